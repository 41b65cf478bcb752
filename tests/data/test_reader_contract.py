"""Every reader against a sequential decode of every kind of file; `python tests/data/test_reader_contract.py` prints
the table for the README."""

import random
import sys
import tempfile
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pytest
from videos import (
    NUM_FRAMES,
    OPEN_GOP,
    VFR_TIMES,
    X264,
    check_all_access,
    encode,
    overstate,
    pack,
    read_number,
    remux,
    truth,
    turn,
)

from a2video.data.decord_reader import DecordReader, import_decord
from a2video.data.pyav_reader import PyAVReader
from a2video.data.readers import VideoError, open_video
from a2video.data.torchcodec_reader import TorchCodecReader, import_decoder
from a2video.errors import InputError

README = Path(__file__).resolve().parents[2] / "README.md"
FOLDER = README.parents[1] / "shared" / "videos"
MPEG4 = {"bf": "2", "g": "12"}
VP9 = {"g": "20", "deadline": "realtime", "cpu-used": "8"}
X265 = "keyint=12:bframes=3:log-level=none:pools=1"
LATE = list(range(200, 200 + NUM_FRAMES))

# How encode() makes each file.
SETTINGS = {
    "b_frames.mp4": {"options": X264},
    "open_gop.mp4": {"options": OPEN_GOP},
    "open_gop.mkv": {"options": OPEN_GOP},
    "refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}},
    "refresh.mkv": {"options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}},
    "interlaced.mp4": {"options": {**X264, "flags": "+ildct+ilme", "x264-params": "tff=1"}},
    "ten_bits.mp4": {"options": X264, "pix_fmt": "yuv420p10le"},
    "odd.mp4": {"size": (97, 63), "pix_fmt": "yuv444p", "options": X264},
    "vfr.mp4": {"options": X264, "times": VFR_TIMES},
    "late.mp4": {"options": X264, "times": LATE},
    "late.mkv": {"options": X264, "times": LATE},
    "parts.mp4": {"options": X264, "container": {"movflags": "frag_keyframe+empty_moov"}},
    "h264.avi": {"options": X264},
    "h264.ts": {"options": X264},
    "h264.flv": {"options": X264},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": X265}},
    "hevc_open.mp4": {"codec": "libx265", "options": {"x265-params": X265 + ":open-gop=1"}},
    "hevc10.mp4": {"codec": "libx265", "options": {"x265-params": X265}, "pix_fmt": "yuv420p10le"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VP9},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "20", "lag-in-frames": "16", "auto-alt-ref": "1"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "10", "g": "20", "crf": "20", "svtav1-params": "lp=1"}},
    "av1_10.mp4": {
        "codec": "libsvtav1",
        "options": {"preset": "10", "g": "20", "crf": "20", "svtav1-params": "lp=1"},
        "pix_fmt": "yuv420p10le",
    },
    "mpeg4.mp4": {"codec": "mpeg4", "options": MPEG4},
    "b_frames.avi": {"codec": "mpeg4", "options": MPEG4},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": MPEG4},
    "odd.mkv": {"codec": "ffv1", "size": (97, 63), "pix_fmt": "bgr0"},
}


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


DERIVED = ["turned90.mp4", "turned180.mp4", "turned270.mp4", "edit.mp4", "cut.mp4", "packed.avi", "overstated.avi"]
SHARED = [
    *("arm_wrestling.mp4", "flipping_a_pancake.mkv", "h265_video.mp4", "nasa_13013.mp4"),
    *("rotated_90.mov", "short_mpeg4.avi", "testsrc2_vp9.webm", "unordered_pts.mov"),
]
# Rows of the README's table: the title, and the files it stands for; " / " parts them as it parts the title.
ROWS = {
    "H.264 MP4, VFR, late start (MP4, MKV), fragmented, FLV, turned; odd sizes 4:4:4": (
        "b_frames.mp4 vfr.mp4 late.mp4 late.mkv parts.mp4 h264.flv turned90.mp4 turned180.mp4 turned270.mp4 odd.mp4"
    ),
    "VP8, VP9, MJPEG, FFV1": "vp8.webm vp9.webm mjpeg.avi odd.mkv",
    "H.264 open GOP (MP4, MKV)": "open_gop.mp4 open_gop.mkv",
    "H.264 intra refresh": "refresh.mp4 refresh.mkv",
    "H.264 interlaced or 10 bits": "interlaced.mp4 ten_bits.mp4",
    "H.264 in AVI": "h264.avi",
    "H.264 in MPEG-TS": "h264.ts",
    "H.264, edit list / cut from an open GOP": "edit.mp4 / cut.mp4",
    "HEVC, closed or open GOP / 10 bits": "hevc.mp4 hevc_open.mp4 / hevc10.mp4",
    "AV1 / 10 bits": "av1.mp4 / av1_10.mp4",
    "MPEG-4 B-frames in MP4": "mpeg4.mp4",
    "MPEG-4 AVI: B-frames, packed, overstated count": "b_frames.avi packed.avi overstated.avi",
    "MPEG-2 in MPEG-PS": "mpeg2.mpg",
}

READERS = {"pyav": PyAVReader, "decord": DecordReader, "torchcodec": TorchCodecReader}
# Where decord 0.6.0 and torchcodec 0.13.0 (with FFmpeg 5.1) do not keep the contract: their verdict. Where pixels are
# close, the frame is the right one, converted to 8 bits RGB by another version of FFmpeg than PyAV's.
DECORD = {
    "open_gop.mp4": "wrong frames",
    "open_gop.mkv": "wrong frames",
    "refresh.mp4": "wrong frames",
    "refresh.mkv": "wrong frames",
    "interlaced.mp4": "close pixels",
    "ten_bits.mp4": "close pixels",
    "h264.avi": "wrong frames",
    "h264.ts": "cannot read",
    "hevc.mp4": "wrong frames",
    "hevc_open.mp4": "wrong frames",
    "hevc10.mp4": "wrong frames",
    "av1.mp4": "cannot open",
    "av1_10.mp4": "cannot open",
    "mpeg4.mp4": "wrong frames",
    "b_frames.avi": "wrong frames",
    "mpeg2.mpg": "wrong frames",
    "edit.mp4": "wrong count",
    "cut.mp4": "wrong count",
    "packed.avi": "wrong frames",
    "overstated.avi": "wrong frames",
    "h265_video.mp4": "cannot read",
}
TORCHCODEC = {
    "open_gop.mp4": "cannot read",
    "open_gop.mkv": "cannot read",
    "refresh.mp4": "wrong frames",
    "refresh.mkv": "wrong frames",
    "interlaced.mp4": "close pixels",
    "ten_bits.mp4": "close pixels",
    "h264.avi": "cannot read",
    "h264.ts": "cannot read",
    "hevc10.mp4": "close pixels",
    "av1_10.mp4": "close pixels",
    "b_frames.avi": "cannot read",
    "mpeg2.mpg": "cannot read",
    "cut.mp4": "cannot read",
    "packed.avi": "cannot read",
    "overstated.avi": "cannot read",
    "short_mpeg4.avi": "cannot read",
}
VERDICTS = {"pyav": {}, "decord": DECORD, "torchcodec": TORCHCODEC}


def make(folder, name):
    """The file of this name, made once."""
    path = FOLDER / name if name in SHARED else folder / name
    if path.exists():
        return path
    return encode(path, **SETTINGS[name]) if name in SETTINGS else derived(folder, name)


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
            return "wrong count"
        for request in requests:
            try:
                frames = video.get_frames(request)
            except VideoError:
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


def recorded(reader, name):
    """The verdict that the package is known to get."""
    return VERDICTS[reader].get(name, "exact")


def table(verdict_of):
    """Lines of the README's table from verdict_of(reader, name); " or " where files of one part differ."""
    yield "| kind of file | PyAV (default) | decord 0.6.0 | torchcodec 0.13.0 |"
    yield "|---|---|---|---|"
    for title, names in ROWS.items():
        parts = [part.split() for part in names.split(" / ")]
        cells = []
        for reader in READERS:
            words = [" or ".join(dict.fromkeys(verdict_of(reader, name) for name in part)) for part in parts]
            cells.append(" / ".join(words if len(set(words)) > 1 else words[:1]))
        yield f"| {' | '.join([title, *cells])} |"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("contract")


# The last file's frames are kept: pytest goes through all readers before the next file.
last_truth = lru_cache(maxsize=1)(truth)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", [*SETTINGS, *DERIVED, *SHARED])
def test_contract(folder, name, reader):
    if name in SHARED and not FOLDER.is_dir():
        pytest.skip("needs ../shared")
    if not is_installed(reader):
        pytest.skip(f"{reader} does not load")
    path = make(folder, name)
    images = last_truth(path)
    if name in SETTINGS:
        assert [read_number(image) for image in images] == list(range(NUM_FRAMES))
        width, height = SETTINGS[name].get("size", (96, 64))
        assert images[0].shape == (height, width, 3)
    assert judge(READERS[reader], path, images) == recorded(reader, name)
    if reader == "pyav":
        check_all_access(path, images)


def test_readme_has_the_table():
    assert sorted(" ".join(ROWS.values()).replace(" / ", " ").split()) == sorted([*SETTINGS, *DERIVED])
    assert "\n\n" + "\n".join(table(recorded)) + "\n\n" in README.read_text()


@cache
def is_installed(reader):
    """False only where the package itself does not load."""
    try:
        {"pyav": lambda: None, "decord": import_decord, "torchcodec": import_decoder}[reader]()
    except InputError:
        return False
    return True


@pytest.mark.parametrize("reader", ["decord", "torchcodec"])
def test_times_rates_and_errors(folder, reader):
    if not is_installed(reader):
        pytest.skip(f"{reader} does not load")
    with open_video(make(folder, "late.mp4"), READERS[reader]) as video:
        assert video.fps == pytest.approx(25.0)
        np.testing.assert_allclose(video.times, np.arange(NUM_FRAMES) / 25, atol=1e-6)
        with pytest.raises(IndexError, match=r"90.*\[0, 90\)"):
            video.get_frames([90])
    with pytest.raises(ValueError, match="closed"):
        video.get_frames([0])
    with open_video(make(folder, "vfr.mp4"), READERS[reader]) as video:
        np.testing.assert_allclose(video.times, (np.array(VFR_TIMES) - VFR_TIMES[0]) / 25, atol=1e-6)
    text = folder / "text.mp4"
    text.write_text("This is no video.\n" * 100)
    for path, found in ((folder / "missing.mp4", "does not exist"), (text, f"{reader} finds no video")):
        with pytest.raises(VideoError, match=found) as caught:
            open_video(path, READERS[reader])
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("reader", "module"), [("decord", "decord"), ("torchcodec", "torchcodec.decoders")])
def test_missing_package(monkeypatch, folder, reader, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"Reader needs {reader}, which does not load \(.*\): .*PyAVReader") as caught:
        open_video(make(folder, "late.mp4"), READERS[reader])
    assert not isinstance(caught.value, VideoError)  # a fault of the installation, not of one video


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:

        def judged(reader, name):
            """The verdict that the installed package gets now."""
            path = make(Path(made), name)
            return judge(READERS[reader], path, truth(path))

        for line in table(judged):
            print(line, flush=True)
