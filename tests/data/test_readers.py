"""The readers give the frames of a sequential decode, for any file, in any order; or they say what is wrong."""

import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch._utils import ExceptionWrapper
from videos import NUM_FRAMES, OPEN_GOP, VFR_TIMES, X264, check_all_access, encode, read_number, remux, truth, turn

from a2video.data.pyav_reader import PyAVReader
from a2video.data.readers import VideoError, VideoReader, open_video
from a2video.data.transforms import Preprocessing, resize, short_side_size
from a2video.data.views import load_test_views

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "videos"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def gop12(folder):
    return encode(folder / "gop12.mp4", options=X264)


@pytest.fixture(scope="session")
def open_gop(folder):
    return encode(folder / "open_gop.mp4", options=OPEN_GOP)


def test_literal_frames_and_rate(gop12):
    with open_video(gop12) as video:
        assert isinstance(video, VideoReader)
        assert len(video) == 90
        assert video.fps == 25.0
        frames = video.get_frames([89, 0, 13, 13, 12, 11])
        assert frames.shape == (6, 64, 96, 3)
        assert frames.dtype == np.uint8
        assert [read_number(frame) for frame in frames] == [89, 0, 13, 13, 12, 11]


def test_all_frames_as_they_are_decoded(gop12):
    with PyAVReader(gop12) as video:
        record = video.record()
    with PyAVReader(gop12, record) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode_all()]
        assert len(frames) == 90
        assert np.array_equal(video.get_frames([89, 3]), [frames[89], frames[3]])
        assert next(video.decode_all()).pts == 0
        assert np.array_equal(video.get_frames([0])[0], frames[0])
        assert video.pixel_aspect in (None, 1)
    with pytest.raises(ValueError, match="is closed"):
        next(video.decode_all())


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
        with pytest.raises(ValueError, match="at least one"):
            video.get_frames([])
        with pytest.raises(ValueError, match=r"expected rising frame numbers.*got \[3, 3\]"):
            video.read([3, 3], lambda place, frames: None)
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


def overwrite(source, path, number, offset, value):
    """Copy a file with other bytes at an offset within packet `number`."""
    with av.open(str(source)) as container:
        start = list(container.demux(video=0))[number].pos + offset
    if source.suffix == ".avi":
        start += 8  # the head of its chunk
    data = bytearray(source.read_bytes())
    data[start : start + len(value)] = value
    path.write_bytes(data)
    return path


def test_lost_reference_is_noticed_while_leaving_out(folder, monkeypatch):
    """Told to leave out pictures, FFmpeg's H.264 decoder keeps quiet about others that it fails to decode."""
    source = encode(folder / "long_gop.mp4", options={**X264, "g": "90"})
    with av.open(str(source)) as container:
        headers = [bytes(packet)[4] for packet in container.demux(video=0) if packet.size]
    number = 40 + next(number for number, header in enumerate(headers[40:]) if header >> 5)  # a reference
    path = overwrite(source, folder / "lost_reference.mp4", number, 5, bytes(10))  # the header of its slice
    assert len(truth(path)) < 45
    with open_video(path) as video, pytest.raises(VideoError, match="frames can be decoded"):
        video.get_frames([80])
    monkeypatch.setattr("a2video.data.pyav_reader.may_be_referred_to", lambda packet, extradata: False)
    with open_video(path) as video:
        assert not np.array_equal(video.get_frames([80])[0], truth(source)[80])  # silently wrong


@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_damage_that_is_only_logged(folder, suffix, capfd):
    codec, pix_fmt = ("mjpeg", "yuvj420p") if suffix == "avi" else ("ffv1", "bgr0")
    source = encode(folder / f"intra.{suffix}", codec, pix_fmt=pix_fmt, num=30)
    path = overwrite(source, folder / f"logged.{suffix}", 20, 300, b"\xfe" * 20)
    assert len(truth(path)) == 30
    with open_video(path) as video:
        assert np.array_equal(video.get_frames(range(20)), truth(source)[:20])
        with pytest.raises(VideoError, match="frames can be decoded"):
            video.get_frames(range(30))
    assert capfd.readouterr().err == ""


def test_damage_that_is_logged_with_the_same_words(folder):
    source = encode(folder / "wmv2.avi", "wmv2", options={"g": "12"}, num=12)
    path = remux(source, folder / "no first keyframe.avi", keep=lambda number, packet: number > 0)
    for _ in range(3):
        with pytest.raises(VideoError, match="first frame is no keyframe"):
            open_video(path)


def test_claim_of_gigabytes(folder):
    """Width and height in the first picture of motion JPEG."""
    data = bytearray(encode(folder / "small.avi", "mjpeg", pix_fmt="yuvj420p", num=10).read_bytes())
    at = data.index(b"\xff\xc0\x00\x11\x08") + 5
    data[at : at + 4] = struct.pack(">HH", 16000, 16000)
    path = folder / "huge.avi"
    path.write_bytes(data)
    with (
        pytest.raises(VideoError, match="only 0 frames can be decoded"),
        open_video(path) as video,
    ):
        video.get_frames([0])


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_cut_off(folder, suffix):
    codec, options = ("mpeg4", {"bf": "2"}) if suffix == "avi" else ("libx264", X264)
    container = {"movflags": "faststart"} if suffix == "mp4" else {}
    data = encode(folder / f"long.{suffix}", codec, options=options, container=container).read_bytes()
    path = folder / f"short.{suffix}"
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(VideoError, match="cut off"):
        open_video(path)


@pytest.mark.parametrize(
    ("suffix", "found"),
    [
        ("mp4", "is cut off after 50 of 90 packets; get the file again"),
        ("mkv", r"is cut off after {at} of {num} bytes; get"),
    ],
)
def test_cut_off_between_packets(folder, suffix, found):
    """What is left reads well to its end."""
    container = {"movflags": "faststart"} if suffix == "mp4" else {}
    source = encode(folder / f"whole.{suffix}", options=X264, container=container)
    with av.open(str(source)) as whole:
        at = [packet.pos for packet in whole.demux(video=0) if packet.size][50]
    data = source.read_bytes()
    path = folder / f"part.{suffix}"
    path.write_bytes(data[:at])
    with av.open(str(path)) as part:
        packets = [packet for packet in part.demux(video=0) if packet.size]
    assert len(packets) == 50
    assert not any(packet.is_corrupt for packet in packets)
    with pytest.raises(VideoError, match=found.format(at=at, num=len(data))):
        open_video(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_decoding_times_stored_as_presentation_times(folder, gop12, suffix):
    """They name the wrong pictures where there are B-frames, and nothing shows it until the frames are compared."""
    path = folder / f"decoding_times.{suffix}"
    with av.open(str(gop12)) as inp, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(inp.streams.video[0])
        for number, packet in enumerate(packet for packet in inp.demux(video=0) if packet.size):
            packet.pts = packet.dts = int(number / 25 / packet.time_base)
            packet.stream = stream
            out.mux(packet)
    images = truth(path)
    assert [read_number(image) for image in images] == list(range(NUM_FRAMES))
    with PyAVReader(path) as video:
        assert len(video.record().index.labels) == 0  # frames are counted
    check_all_access(path, images)


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


@pytest.mark.parametrize(("codec", "num_bidirectional"), [("mpeg4", 0), ("libx264", 0), ("mpeg4", 2), ("libx264", 2)])
def test_times_of_an_avi_with_gaps(folder, codec, num_bidirectional):
    """FFmpeg writes empty chunks where no frame is due: the stated rate is not that of the frames.

    With B pictures only the times of decoding are in the file, which gaps before and after differ from a little.
    """
    options = {"bf": str(num_bidirectional), "g": "12"}
    expected = np.array(VFR_TIMES) - VFR_TIMES[0]
    path = encode(folder / f"gaps_{codec}_{num_bidirectional}.avi", codec, options=options, times=expected.tolist())
    with open_video(path) as video:
        np.testing.assert_allclose(video.times * 25, expected, atol=5 if num_bidirectional else 1e-9)
        assert video.fps == pytest.approx(25 * (NUM_FRAMES - 1) / expected[-1], rel=0.03 if num_bidirectional else 1e-9)
        assert [read_number(image) for image in video.get_frames(range(NUM_FRAMES))] == list(range(NUM_FRAMES))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_views_of_large_turned_videos(folder, gop12, degrees):
    """Frames that are resized one by one, and a single frame, are handed on upright too."""
    large = encode(folder / "large.mp4", size=(1280, 720), num=4, options={"preset": "ultrafast"})
    for source in (large, gop12):
        path = turn(source, folder / f"view_{source.stem}_{degrees}.mp4", degrees)
        p = Preprocessing(num_frames=1, frame_stride=1, short_side=32, crop_size=32, num_clips=1, num_crops=3)
        views = load_test_views(path, p)
        with open_video(path) as video:
            frame = video.get_frames([(len(video) - 1) // 2])
        size = short_side_size(*frame.shape[1:3], 32)
        small = resize(torch.from_numpy(frame.copy()).permute(0, 3, 1, 2), size)[0]
        assert torch.equal(views[0, :, 0], small[:, :32, :32])
