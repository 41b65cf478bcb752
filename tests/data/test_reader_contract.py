"""Every reader against a sequential decode of every kind of file; `python tests/data/test_reader_contract.py` prints
the table for the README."""

import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from videos import NUM_FRAMES, OPEN_GOP, VFR_TIMES, X264, check_all_access, encode, overstate, pack, read_number
from videos import remux, truth, turn

from a2video.data.decord_reader import DecordReader
from a2video.data.pyav_reader import PyAVReader
from a2video.data.readers import VideoError, open_video
from a2video.data.torchcodec_reader import TorchCodecReader
from a2video.errors import InputError

MPEG4 = {"bf": "2", "g": "12"}
VP9 = {"g": "20", "deadline": "realtime", "cpu-used": "8"}
X265 = "keyint=12:bframes=3:log-level=none:pools=1"
LATE = list(range(200, 200 + NUM_FRAMES))

# What the table calls it, the file's name, and how encode() makes it.
ENCODED = [
    ("H.264 in MP4", "b_frames.mp4", {"options": X264}),
    ("H.264 with an open GOP in MP4", "open_gop.mp4", {"options": OPEN_GOP}),
    ("the same in Matroska", "open_gop.mkv", {"options": OPEN_GOP}),
    ("H.264 with intra refresh", "refresh.mp4", {"options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}}),
    ("H.264, interlaced", "interlaced.mp4", {"options": {**X264, "flags": "+ildct+ilme", "x264-params": "tff=1"}}),
    ("H.264, 10 bits", "ten_bits.mp4", {"options": X264, "pix_fmt": "yuv420p10le"}),
    ("H.264, odd size, 4:4:4", "odd.mp4", {"size": (97, 63), "pix_fmt": "yuv444p", "options": X264}),
    ("H.264, variable frame rate", "vfr.mp4", {"options": X264, "times": VFR_TIMES}),
    ("H.264 that starts late in MP4", "late.mp4", {"options": X264, "times": LATE}),
    ("the same in Matroska", "late.mkv", {"options": X264, "times": LATE}),
    ("H.264 in fragmented MP4", "parts.mp4", {"options": X264, "container": {"movflags": "frag_keyframe+empty_moov"}}),
    ("H.264 in AVI", "h264.avi", {"options": X264}),
    ("H.264 in MPEG-TS", "h264.ts", {"options": X264}),
    ("H.264 in FLV", "h264.flv", {"options": X264}),
    ("HEVC", "hevc.mp4", {"codec": "libx265", "options": {"x265-params": X265}}),
    ("HEVC, open GOP", "hevc_open.mp4", {"codec": "libx265", "options": {"x265-params": X265 + ":open-gop=1"}}),
    (
        "HEVC, 10 bits",
        "hevc10.mp4",
        {"codec": "libx265", "options": {"x265-params": X265}, "pix_fmt": "yuv420p10le"},
    ),
    ("VP9", "vp9.webm", {"codec": "libvpx-vp9", "options": VP9}),
    ("VP9, 10 bits", "vp9_10.webm", {"codec": "libvpx-vp9", "options": VP9, "pix_fmt": "yuv420p10le"}),
    (
        "VP8",
        "vp8.webm",
        {"codec": "libvpx", "options": {"g": "20", "lag-in-frames": "16", "auto-alt-ref": "1"}},
    ),
    (
        "AV1",
        "av1.mp4",
        {"codec": "libsvtav1", "options": {"preset": "10", "g": "20", "crf": "20", "svtav1-params": "lp=1"}},
    ),
    ("MPEG-4 with B-frames in MP4", "mpeg4.mp4", {"codec": "mpeg4", "options": MPEG4}),
    ("MPEG-4 with B-frames in AVI", "b_frames.avi", {"codec": "mpeg4", "options": MPEG4}),
    ("motion JPEG in AVI", "mjpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    ("MPEG-2 in MPEG-PS", "mpeg2.mpg", {"codec": "mpeg2video", "options": MPEG4}),
    ("FFV1, odd size", "odd.mkv", {"codec": "ffv1", "size": (97, 63), "pix_fmt": "bgr0"}),
]


def derived(folder, name):
    """Files that encode() cannot make."""
    h264 = encode(folder / f"for_{name}.mp4", options=X264)
    if name.startswith("turned"):
        return turn(h264, folder / name, int(name[6:-4]))
    if name == "edit.mp4":
        return remux(h264, folder / name, shift=-0.8)
    if name == "cut.mp4":
        source = encode(folder / "for_cut.mp4", options=OPEN_GOP)
        return remux(source, folder / name, keep=lambda number, packet: number >= 21)
    avi = encode(folder / f"for_{name}", "mpeg4", options=MPEG4)
    return pack(avi, folder / name) if name == "packed.avi" else overstate(avi, folder / name, 30)


DERIVED = [
    ("H.264 turned by 90 degrees", "turned90.mp4"),
    ("H.264 turned by 180 degrees", "turned180.mp4"),
    ("H.264 turned by 270 degrees", "turned270.mp4"),
    ("H.264 with an edit list that hides the beginning", "edit.mp4"),
    ("H.264 cut out of an open GOP", "cut.mp4"),
    ("MPEG-4 with packed B-frames in AVI (XviD)", "packed.avi"),
    ("MPEG-4 in AVI that states 30 frames too many", "overstated.avi"),
]
SHARED = [
    ("shared", name)
    for name in (
        "arm_wrestling.mp4",
        "flipping_a_pancake.mkv",
        "h265_video.mp4",
        "nasa_13013.mp4",
        "rotated_90.mov",
        "short_mpeg4.avi",
        "testsrc2_vp9.webm",
        "unordered_pts.mov",
    )
]
KINDS = {name: title for title, name, *_ in [*ENCODED, *DERIVED, *SHARED]}
SETTINGS = {name: settings for _, name, settings in ENCODED}
FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "videos"


def make(folder, name):
    """The file of this name."""
    if (name, "shared") in [(name, KINDS[name])]:
        return FOLDER / name
    if (folder / name).exists():
        return folder / name
    return encode(folder / name, **SETTINGS[name]) if name in SETTINGS else derived(folder, name)


def judge(reader, path, images):
    """One of: exact, close pixels, wrong frames, wrong count, cannot read, cannot open."""
    rng = random.Random(0)
    num = len(images)
    start = rng.randrange(num)
    requests = [list(range(num)), [rng.randrange(num) for _ in range(12)], [num - 1]]
    requests += [[min(start + 8 * step, num - 1) for step in range(8)]]
    try:
        video = open_video(path, reader)
    except VideoError:
        return "cannot open"
    verdict = "exact"
    with video:
        if len(video) != num:
            return f"{len(video)} of {num} frames"
        for request in requests:
            try:
                frames = video.get_frames(request)
            except VideoError as error:
                print(error, file=sys.stderr)
                return "cannot read"
            if frames.shape[1:] != images[0].shape:
                return "wrong size"
            for number, frame in zip(request, frames, strict=True):
                if not np.array_equal(frame, images[number]):
                    if not is_close(frame, number, images):
                        return "wrong frames"
                    verdict = "close pixels"
    return verdict


def is_close(frame, number, images):
    """Whether it is the frame of this number but for rounding: none of its neighbours is closer."""
    around = range(max(0, number - 3), min(len(images), number + 4))
    distances = {other: np.abs(frame[::2].astype(int) - images[other][::2]).mean() for other in around}
    return distances[number] < 8 and distances[number] == min(distances.values())


if __name__ == "__main__":
    only = sys.argv[1:]
    readers = [PyAVReader, DecordReader, TorchCodecReader]
    with tempfile.TemporaryDirectory() as made:
        for kind, title in KINDS.items():
            if only and kind not in only:
                continue
            file = make(Path(made), kind)
            verdicts = []
            for one in readers:
                print(kind, one.__name__, end=" ", file=sys.stderr, flush=True)
                verdicts.append(judge(one, file, truth(file)))
                print(verdicts[-1], file=sys.stderr, flush=True)
            print("| " + " | ".join([title if title != "shared" else kind, *verdicts]) + " |", flush=True)
