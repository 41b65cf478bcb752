"""The readers give the frames of a sequential decode, for any file, in any order; or they say what is wrong."""

import random
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from torch._utils import ExceptionWrapper

from a2video.data.pyav_reader import PyAVReader
from a2video.data.readers import VideoError, VideoReader, open_video

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "videos"
NUM_FRAMES = 90
BIT = 8  # pixels: side of the black and white squares that write a frame's number into its first rows


def picture(number, width, height):
    """A noisy gradient that moves, with `number` in 7 squares at the top."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 2 + number, y * 2 + number * 3, x + y + number * 5], axis=-1) % 256
    for bit in range(7):
        image[:BIT, bit * BIT : (bit + 1) * BIT] = 255 * (number >> bit & 1)
    return image.astype(np.uint8)


def read_number(image):
    """The number that `picture` wrote into an image."""
    return sum((image[2:6, bit * BIT + 2 : bit * BIT + 6].mean() > 128) << bit for bit in range(7))


def encode(
    path,
    codec="libx264",
    size=(96, 64),
    pix_fmt="yuv420p",
    options=None,
    times=None,
    num=NUM_FRAMES,
    rate=25,
    container=None,
):
    """Write `num` numbered pictures to `path`; `times` are their pts in 1/rate seconds."""
    with av.open(str(path), "w", container_options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        for number in range(num):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def remux(source, path, keep=lambda number, packet: True, shift=0):
    """Copy the video packets for which `keep` is true, `shift` seconds later."""
    with av.open(str(source)) as inp, av.open(str(path), "w") as out:
        template = inp.streams.video[0]
        stream = out.add_stream_from_template(template)
        for number, packet in enumerate(inp.demux(template)):
            if packet.size and keep(number, packet):
                offset = int(shift / packet.time_base)
                packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                packet.stream = stream
                out.mux(packet)
    return path


def turn(source, path, degrees):
    """Copy an MP4 with a display matrix for a clockwise turn."""
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version and flags, then 36 bytes, in a version 0 box
    one = 1 << 16
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def truth(path):
    """All frames of a sequential decode, upright, up to the decoder's first error."""
    images = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        try:
            for frame in container.decode(stream):
                images.append(
                    np.rot90(frame.to_ndarray(format="rgb24"), {0: 0, 90: 1, -90: 3, 180: 2, -180: 2}[frame.rotation])
                )
        except av.FFmpegError:
            pass
    return images


def check_all_access(path, images):
    """Compare with `images`: everything in order, unsorted with repeats, and clips of 8 x 8 by fresh readers."""
    rng = random.Random(0)
    num = len(images)
    with open_video(path) as video:
        assert len(video) == num
        assert all(map(np.array_equal, video.get_frames(range(num)), images))
        for _ in range(2):
            indices = np.array([rng.randrange(num) for _ in range(12)])
            assert all(map(np.array_equal, video.get_frames(indices), [images[index] for index in indices]))
    for _ in range(4):
        start = rng.randrange(num)
        indices = [min(start + 8 * step, num - 1) for step in range(8)]
        with open_video(path) as video:
            assert all(map(np.array_equal, video.get_frames(indices), [images[index] for index in indices]))


X264 = {"g": "12", "bf": "2", "preset": "veryfast", "sc_threshold": "0"}
OPEN_GOP = {"preset": "veryfast", "x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0"}
VFR_TIMES = np.cumsum([1 + (number * 7 % 5 == 0) * 3 + number % 2 for number in range(NUM_FRAMES)]).tolist()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def gop12(folder):
    return encode(folder / "gop12.mp4", options=X264)


@pytest.fixture(scope="session")
def open_gop(folder):
    return encode(folder / "open_gop.mp4", options=OPEN_GOP)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("b_frames.mp4", {"options": X264}),
        ("open_gop.mp4", {"options": OPEN_GOP}),
        ("open_gop.mkv", {"options": OPEN_GOP}),
        ("intra_refresh.mp4", {"options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}}),
        ("interlaced.mp4", {"options": {**X264, "flags": "+ildct+ilme", "x264-params": "tff=1"}}),
        ("fragmented.mp4", {"options": X264, "container": {"movflags": "frag_keyframe+empty_moov"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"g": "20", "deadline": "realtime", "cpu-used": "8"}}),
        ("vp8.webm", {"codec": "libvpx", "options": {"g": "20", "lag-in-frames": "16", "auto-alt-ref": "1"}}),
        ("b_frames.avi", {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}}),
        ("h264.avi", {"options": X264}),
        ("mpeg4.mp4", {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}}),
        ("mjpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("h264.ts", {"options": X264}),
        ("mpeg2.mpg", {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}}),
        ("h264.flv", {"options": X264}),
        ("vfr.mp4", {"options": X264, "times": VFR_TIMES}),
        ("late_start.mp4", {"options": X264, "times": list(range(200, 200 + NUM_FRAMES))}),
        ("late_start.mkv", {"options": X264, "times": list(range(200, 200 + NUM_FRAMES))}),
        ("odd.mkv", {"codec": "ffv1", "size": (97, 63), "pix_fmt": "bgr0"}),
        ("odd.mp4", {"size": (97, 63), "pix_fmt": "yuv444p", "options": X264}),
    ],
)
def test_every_frame_of_every_kind(folder, name, settings):
    path = encode(folder / f"kind_{name}", **settings)
    images = truth(path)
    assert [read_number(image) for image in images] == list(range(NUM_FRAMES))
    width, height = settings.get("size", (96, 64))
    assert images[0].shape == (height, width, 3)
    check_all_access(path, images)


def test_hevc(folder):
    options = {"x265-params": "keyint=12:open-gop=1:bframes=3:log-level=none:pools=1"}
    path = encode(folder / "hevc.mp4", "libx265", options=options)
    images = truth(path)
    assert len(images) == NUM_FRAMES
    check_all_access(path, images)


def test_literal_frames_and_rate(gop12):
    with open_video(gop12) as video:
        assert isinstance(video, VideoReader)
        assert len(video) == 90
        assert video.fps == 25.0
        frames = video.get_frames([89, 0, 13, 13, 12, 11])
        assert frames.shape == (6, 64, 96, 3)
        assert frames.dtype == np.uint8
        assert [read_number(frame) for frame in frames] == [89, 0, 13, 13, 12, 11]


def test_one_frame(folder):
    path = encode(folder / "one.mp4", num=1)
    with open_video(path) as video:
        assert len(video) == 1
        np.testing.assert_array_equal(video.get_frames([0, 0]), truth(path) * 2)


def test_seeks_and_decodes_little(gop12, monkeypatch):
    """The work is bounded too: two frames far apart must not decode the 90 frames, nor anything twice."""
    seen = []
    monkeypatch.setattr(
        PyAVReader,
        "_check",
        lambda self, frame, number=None: seen.append(read_number(frame.to_ndarray(format="rgb24"))),
    )
    with open_video(gop12) as video:
        assert seen == []
        video.get_frames([74, 1, 74])
        assert seen == [0, 1, 3, 72, 73, 74, 75]  # nobody needs the B picture 2, but 1 needs 3, and 74 needs 73 and 75
        seen.clear()
        video.get_frames([10, 13])
    assert seen == [0, 1, 3, 4, 6, 7, 9, 10, 11, 12, 13, 15]  # the keyframe 12 is too near to be worth a seek


@pytest.mark.parametrize(("source", "shift", "first"), [("gop12", -0.8, 20), ("open_gop", -1.2, 30)])
def test_edit_list_hides_the_beginning(folder, request, source, shift, first):
    path = remux(request.getfixturevalue(source), folder / f"edit_{source}.mp4", shift=shift)
    images = truth(path)
    assert [read_number(image) for image in images] == list(range(first, NUM_FRAMES))
    check_all_access(path, images)


@pytest.mark.parametrize(("suffix", "num_cut"), [("mp4", 20), ("mp4", 21), ("mkv", 20), ("mkv", 21), ("avi", 20)])
def test_cut_within_an_open_gop(folder, suffix, num_cut):
    """The first packets (at 21 those after a keyframe) cannot be decoded: fewer frames than packets."""
    source = encode(folder / f"open_gop.{suffix}", options=OPEN_GOP)
    path = remux(source, folder / f"cut_{num_cut}.{suffix}", keep=lambda number, packet: number >= num_cut)
    with av.open(str(path)) as container:
        first = next(container.demux(video=0))
        assert first.is_keyframe == (num_cut == 21)
    images = truth(path)
    assert 60 < len(images) < NUM_FRAMES - num_cut
    check_all_access(path, images)


def test_avi_that_promises_too_many_frames(folder):
    """Without presentation times nothing shows beforehand that 3 packets after the keyframe cannot be decoded."""
    source = encode(folder / "promise.avi", options=OPEN_GOP)
    path = remux(source, folder / "promise_cut.avi", keep=lambda number, packet: number >= 21)
    images = truth(path)
    with open_video(path) as video:
        assert len(video) == len(images) + 3
        assert np.array_equal(video.get_frames(range(len(images))), images)
        with pytest.raises(VideoError, match=f"only {len(images)} of {len(video)} frames can be decoded"):
            video.get_frames([0, len(images)])


def test_leading_frames_of_an_open_gop_do_not_stop_seeking(open_gop, monkeypatch):
    seen = []
    monkeypatch.setattr(
        PyAVReader,
        "_check",
        lambda self, frame, number=None: seen.append(read_number(frame.to_ndarray(format="rgb24"))),
    )
    with open_video(open_gop) as video:
        video.get_frames([NUM_FRAMES - 1])
    assert seen == [84, 86, 88, 89]  # every second one of the others is a B picture that nobody wants


def test_false_keyframes(folder):
    """Without its list of sync samples an MP4 calls every packet a keyframe."""
    data = encode(folder / "sync.mp4", "mpeg4", options={"g": "12"}).read_bytes()
    assert data.count(b"stss") == 1
    path = folder / "no_sync.mp4"
    path.write_bytes(data.replace(b"stss", b"free"))
    check_all_access(path, truth(folder / "sync.mp4"))


def test_mpeg4_placeholder_is_no_frame(folder):
    """A packet "not coded" (6 bytes here) between pictures gives no frame, which shifts all behind it."""
    source = encode(folder / "plain.avi", "mpeg4", options={"g": "12"}, num=30)
    path = folder / "placeholder.avi"
    bits = "0101101001001111"  # P picture, time, marker, not coded, stuffing
    with av.open(str(source)) as inp, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(inp.streams.video[0])
        for number, packet in enumerate(inp.demux(inp.streams.video[0])):
            if packet.size:
                packet.stream = stream
                packet.pts = packet.dts = number + (number > 19)
                out.mux(packet)
            if number == 19:
                empty = av.Packet(b"\x00\x00\x01\xb6" + int(bits, 2).to_bytes(2, "big"))
                empty.stream, empty.time_base, empty.pts, empty.dts = stream, Fraction(1, 25), 20, 20
                out.mux(empty)
    images = truth(path)
    assert [read_number(image) for image in images] == list(range(30))
    check_all_access(path, images)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation(folder, gop12, degrees):
    path = turn(gop12, folder / f"turned_{degrees}.mp4", degrees)
    plain, turned = (open_video(file).get_frames([0, 40]) for file in (gop12, path))
    clockwise = {
        90: plain.transpose(0, 2, 1, 3)[:, :, ::-1],
        180: plain[:, ::-1, ::-1],
        270: plain.transpose(0, 2, 1, 3)[:, ::-1],
    }[degrees]
    np.testing.assert_array_equal(turned, clockwise)


def test_wrong_indices(gop12):
    with open_video(gop12) as video:
        with pytest.raises(IndexError, match=r"90.*\[0, 90\)"):
            video.get_frames([0, 90])
        with pytest.raises(IndexError, match=r"-1.*\[0, 90\)"):
            video.get_frames([-1])
        with pytest.raises(ValueError, match="empty"):
            video.get_frames([])
    with pytest.raises(ValueError, match="closed"):
        video.get_frames([0])


def make_bad_files(folder, gop12):
    sound = folder / "sound.mp4"
    with av.open(str(sound), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    (folder / "directory.mp4").mkdir(exist_ok=True)
    texts = {
        "empty.mp4": b"",
        "text.mp4": b"This is no video.\n" * 100,
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{gop12}\n#EXT-X-ENDLIST\n".encode(),
        "list.mp4": f"ffconcat version 1.0\nfile '{gop12}'\n".encode(),
        "headless.mp4": gop12.read_bytes()[:5000],
    }
    for name, data in texts.items():
        (folder / name).write_bytes(data)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.mp4", "does not exist"),
        ("directory.mp4", "is not a file"),
        ("empty.mp4", "no video found in its 0 bytes"),
        ("text.mp4", "no video found in its 1800 bytes"),
        ("list.m3u8", "no video found"),
        ("list.mp4", "no video found"),
        ("headless.mp4", "no video found"),
        ("sound.mp4", "no video stream"),
    ],
)
def test_not_a_video(folder, gop12, name, reason, capfd):
    make_bad_files(folder, gop12)
    path = folder / name
    with pytest.raises(VideoError, match=reason) as caught:
        open_video(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)  # what to do
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["http://localhost:1/a.mp4", "concat:a|b", "pipe:0", "data:video/mp4,a", "a\0b"])
def test_protocols_are_names_of_missing_files(name):
    with pytest.raises(VideoError, match="does not exist"):
        open_video(name)


@pytest.mark.parametrize("name", ["concat:a|b.mp4", 'it\'s 100% "π" %03d*?#.mp4', "file:a.mp4", " é,[1].mp4", "-i.mp4"])
def test_any_file_name(folder, gop12, name, monkeypatch):
    shutil.copy(gop12, folder / name)
    monkeypatch.chdir(folder)
    for path in (name, folder / name):
        with open_video(path) as video:
            assert read_number(video.get_frames([50])[0]) == 50


def damaged(source, path, start, stop):
    data = bytearray(source.read_bytes())
    data[int(len(data) * start) : int(len(data) * stop)] = bytes(int(len(data) * stop) - int(len(data) * start))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_zeros_in_the_middle(folder, suffix):
    """Every frame is either the right one or an error, and each kind occurs."""
    codec, options = ("mpeg4", {"bf": "2", "g": "12"}) if suffix == "avi" else ("libx264", X264)
    path = encode(folder / f"whole.{suffix}", codec, options=options)
    images = truth(path)
    path = damaged(path, folder / f"zeros.{suffix}", 0.5, 0.52)
    num_right = num_errors = 0
    with open_video(path) as video:
        for index in range(len(video)):
            try:
                image = video.get_frames([index])[0]
            except VideoError as error:
                num_errors += "re-encode" in str(error)
            else:
                num_right += 1
                np.testing.assert_array_equal(image, images[index])
    assert num_right > 10
    assert num_errors > 10


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_cut_off(folder, suffix):
    codec, options = ("mpeg4", {"bf": "2"}) if suffix == "avi" else ("libx264", X264)
    container = {"movflags": "faststart"} if suffix == "mp4" else {}
    data = encode(folder / f"long.{suffix}", codec, options=options, container=container).read_bytes()
    path = folder / f"short.{suffix}"
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(VideoError, match="cut off"):
        open_video(path)


def test_size_change_in_the_middle(folder):
    data = [encode(folder / f"{width}.h264", size=(width, 64), num=30).read_bytes() for width in (96, 128)]
    path = folder / "sizes.h264"
    path.write_bytes(b"".join(data))
    with pytest.raises(VideoError, match=r"change at frame 30 from \(96, 64, 0\) to \(128, 64, 0\)"):
        open_video(path)


def test_no_file_stays_open(folder, gop12):
    make_bad_files(folder, gop12)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ["gop12.mp4", "sound.mp4", "text.mp4", "headless.mp4"] * 50:
        try:
            with open_video(folder / name) as video:
                video.get_frames([40])
        except VideoError:
            assert name != "gop12.mp4"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_error_survives_a_worker_process(folder):
    try:
        open_video(folder / "missing.mp4")
    except VideoError:
        wrapper = ExceptionWrapper(where="in a worker")
    with pytest.raises(VideoError, match="does not exist"):
        wrapper.reraise()


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared videos are not here")
@pytest.mark.parametrize("name", ["arm_wrestling.mp4", "flipping_a_pancake.mkv", "short_mpeg4.avi"])
def test_opening_common_videos_decodes_nothing(name, monkeypatch):
    monkeypatch.setattr(PyAVReader, "_check", lambda *args: pytest.fail("a frame was decoded"))
    with open_video(SHARED / name) as video:
        assert len(video) > 0


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared videos are not here")
@pytest.mark.parametrize(
    ("name", "num_frames", "num_right", "shape"),
    [
        ("arm_wrestling.mp4", 280, 280, (256, 340)),
        ("corrupted.mp4", 50, 28, (720, 1280)),
        ("flipping_a_pancake.mkv", 310, 310, (240, 426)),
        ("h265_video.mp4", 10, 10, (128, 128)),
        ("nasa_13013.mp4", 390, 390, (270, 480)),
        ("rotated_90.mov", 3, 3, (568, 320)),
        ("short_mpeg4.avi", 164, 164, (240, 320)),
        ("testsrc2_vp9.webm", 30, 30, (720, 1280)),
        ("unordered_pts.mov", 4, 4, (50, 50)),
    ],
)
def test_shared_video(name, num_frames, num_right, shape):
    path = SHARED / name
    images = truth(path)
    assert len(images) == num_right
    assert images[0].shape[:2] == shape
    if num_right == num_frames:
        check_all_access(path, images)
        return
    with open_video(path) as video:
        assert len(video) == num_frames
        assert np.array_equal(video.get_frames(range(num_right)), images)
        with pytest.raises(VideoError, match=f"only {num_right} frames can be decoded"):
            video.get_frames([num_right + 1])  # after `num_right` itself the damaged packet need not be decoded
