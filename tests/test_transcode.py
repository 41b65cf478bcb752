"""transcode.py: every frame of every readable video, smaller, at its time, with regular keyframes; resumable."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import write_video

from a2video import open_video
from a2video.errors import InputError

DATA_PREP = Path(__file__).resolve().parents[1] / "data_prep"
sys.path.insert(0, str(DATA_PREP))
import encoders  # noqa: E402
import reencode as reencode_module  # noqa: E402
import transcode  # noqa: E402
from common import Listed, read_list  # noqa: E402
from encoders import Settings  # noqa: E402
from reencode import Job, reencode, unfinished_path  # noqa: E402


def scene(num_frames: int, height: int, width: int) -> np.ndarray:
    """A gradient with a bright top left corner, which gets redder with time, and a cut in the middle."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[..., 0] = np.linspace(0, 200, num_frames, dtype=np.uint8)[:, None, None]
    frames[..., 1] = np.linspace(0, 200, width, dtype=np.uint8)
    frames[..., 2] = np.linspace(0, 200, height, dtype=np.uint8)[:, None]
    frames[num_frames // 2 :] = 255 - frames[num_frames // 2 :]
    frames[:, : height // 4, : width // 4] = 255
    return frames


def encode(path: Path, frames: np.ndarray, ticks: list[int], rotation: int = 0, sound: bool = False) -> Path:
    """A video whose frames are shown at ticks / 90000 s, perhaps with a rotation flag and with sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "0"}, time_base=Fraction(1, 90000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        audio = container.add_stream("aac", rate=16000) if sound else None
        for frame, tick in zip(frames, ticks, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = tick, Fraction(1, 90000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if audio is not None:
            wave = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            wave.sample_rate = 16000
            container.mux(audio.encode(wave))
            container.mux(audio.encode(None))
    return path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        transcode.main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def packets(path: Path) -> list[tuple[float, bool]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sorted((float(p.pts * p.time_base), p.is_keyframe) for p in container.demux(stream) if p.size)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with awkward names: three good videos and a damaged one."""
    root = tmp_path_factory.mktemp("source videos")
    good = write_video(root / "left é's" / '-a "b" 日本.mp4', scene(30, 48, 64))
    write_video(root / "left é's" / "same.mkv", scene(5, 48, 64))
    write_video(root / "left é's" / "same.mp4", scene(7, 48, 64))
    (root / "right").mkdir()
    (root / "right" / "cut off.mp4").write_bytes(good.read_bytes()[:3000])
    return root


@pytest.fixture(scope="module")
def written(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written")
    assert run("--list", sources, "--out", out, "--short-side", 32, "--gop", 12, "--workers", 1) == 1
    return out


def test_files_and_lists(written: Path) -> None:
    assert rows(written / "list.csv") == [
        ["path", "label"],
        ['left é\'s/-a "b" 日本.mp4', "left é's"],
        ["left é's/same.mkv.mp4", "left é's"],
        ["left é's/same.mp4.mp4", "left é's"],
    ]
    header, (path, reason) = rows(written / "failed.csv")
    assert (header, path) == (["path", "reason"], "right/cut off.mp4")
    assert "get the file again" in reason
    assert str(written) not in reason
    assert not list(written.rglob(".part*"))
    assert sorted(path.name for path in written.iterdir()) == ["failed.csv", "left é's", "list.csv", "transcode.sqlite"]


def test_what_was_written(written: Path, sources: Path) -> None:
    path = Path("left é's", '-a "b" 日本.mp4')
    with open_video(sources / path) as before, open_video(written / path) as after:
        assert len(before) == len(after) == 30
        assert after.fps == 30
        frames = after.get_frames(range(30))
        assert frames.shape == (30, 32, 42, 3)  # 64 * 32 / 48 = 42.7, even
        corner = frames[:, :6, :6].astype(int)
        assert corner.min() > 225
        red = frames[:, 20, 21, 0].astype(int)
        assert abs(red[:15] - np.linspace(0, 200, 30)[:15]).max() < 12
        assert abs(red[15:] - (255 - np.linspace(0, 200, 30)[15:])).max() < 12
    assert [number for number, (_, is_key) in enumerate(packets(written / path)) if is_key] == [0, 12, 24]


def test_run_again(written: Path, sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = written / "left é's" / "same.mp4.mp4"
    other = written / "left é's" / "same.mkv.mp4"
    before = target.stat().st_mtime_ns, other.stat().st_mtime_ns
    options = ["--list", sources, "--out", written, "--short-side", 32]
    assert run(*options) == 1
    assert "Written 0, kept 3, failed 1 of 4 videos" in capsys.readouterr().out
    assert (target.stat().st_mtime_ns, other.stat().st_mtime_ns) == before
    os.utime(sources / "left é's" / "same.mp4", ns=(1, 1))
    assert run(*options) == 1
    assert "Written 1, kept 2, failed 1" in capsys.readouterr().out
    assert target.stat().st_mtime_ns != before[0]
    assert other.stat().st_mtime_ns == before[1]
    other.write_bytes(b"")
    assert run(*options) == 1
    assert "Written 1, kept 2, failed 1" in capsys.readouterr().out
    assert run("--list", sources, "--out", written, "--short-side", 24) == 2
    assert "was written with short_side 32, now 24: choose another --out" in capsys.readouterr().err


def test_times_sound_and_rotation(tmp_path: Path) -> None:
    ticks = [9000 + 3000 * number + 4500 * (number > 3) for number in range(14)]
    source = encode(tmp_path / "a.mp4", scene(14, 48, 64), ticks, rotation=90, sound=True)
    reencode(Job(source, tmp_path / "out" / "a.mp4"), Settings(short_side=24, gop=5))
    with av.open(str(tmp_path / "out" / "a.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height, frame.rotation) == (24, 32, 0)
        assert frame.to_ndarray(format="rgb24")[-4:, :4].min() > 200  # counterclockwise: the corner is at the bottom
    expected = [(tick - 9000) / 90000 for tick in ticks]
    assert [time for time, _ in packets(tmp_path / "out" / "a.mp4")] == pytest.approx(expected, abs=1e-4)
    assert [number for number, (_, is_key) in enumerate(packets(tmp_path / "out" / "a.mp4")) if is_key] == [0, 5, 10]


@pytest.mark.parametrize(
    "codec", ["libx265", "libvpx-vp9", "mpeg4", "libsvtav1", "ffv1", "mpeg2video", "mpeg1video", "msmpeg4"]
)
def test_codecs(codec: str, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", scene(10, 64, 80))
    target = tmp_path / "b.mkv"
    reencode(Job(source, target), Settings(short_side=256, gop=4, codec=codec, suffix=".mkv"))
    with open_video(target) as video:
        assert video.get_frames([0, 9]).shape == (2, 64, 80, 3)  # never enlarged
    keys = [number for number, (_, is_key) in enumerate(packets(target)) if is_key]
    assert keys == [0, 4, 8]


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4", "mjpeg"])
def test_times_that_encoders_do_not_know(codec: str, tmp_path: Path) -> None:
    ticks = [9000 + 3214 * number + 4500 * (number > 3) for number in range(8)]  # 28 frames per second, and a gap
    source = encode(tmp_path / "a.mp4", scene(8, 48, 64), ticks)
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    arguments = ["--list", tmp_path, "--out", tmp_path.with_name(codec), "--codec", codec, "--pixel-format", pixels]
    assert source.is_file()
    assert run(*arguments) == 0
    expected = [(tick - 9000) / 90000 for tick in ticks]
    assert [time for time, _ in packets(tmp_path.with_name(codec) / "a.mp4")] == pytest.approx(expected, abs=1e-6)


def test_gaps_in_avi(tmp_path: Path) -> None:
    source, target = tmp_path / "a.avi", tmp_path / "a.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("mpeg4", rate=50, time_base=Fraction(1, 50))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, frame in enumerate(scene(25, 48, 64)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = 2 * number, Fraction(1, 50)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    reencode(Job(source, target), Settings())
    with open_video(target) as video:
        assert len(video) == 25
        assert video.fps == 25
        assert video.times[-1] == pytest.approx(0.96)


def test_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoders.check_settings(tmp_path, Settings())
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_damage_that_a_decoder_only_logs(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=30, options={"slicecrc": "1", "level": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in scene(6, 48, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(source)) as container:
        third = [bytes(packet) for packet in container.demux(video=0) if packet.size][2]
    data = bytearray(source.read_bytes())
    data[data.index(third) + len(third) // 2] ^= 16
    source.write_bytes(data)
    for _ in range(2):  # the decoder says the same again
        with pytest.raises(InputError, match="only 2 frames can be decoded"):
            reencode(Job(source, tmp_path / "b.mp4"), Settings())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


@pytest.mark.parametrize(("shift", "when"), [(1, "late"), (-1, "early")])
def test_frames_in_each_others_places_are_noticed(
    shift: int, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.repeat(np.arange(0, 90, 3, dtype=np.uint8), 32 * 32 * 3).reshape(30, 32, 32, 3)  # slower than 8 levels
    write = reencode_module._write

    def write_shifted(*arguments):
        written = write(*arguments)
        pictures = written.pictures
        shifted = [pictures[min(max(number + shift, 0), 29)] for number in range(30)]
        return reencode_module._Written(written.size, written.times, shifted)

    monkeypatch.setattr(reencode_module, "_write", write_shifted)
    with pytest.raises(InputError, match=f"shows each frame one place too {when}"):
        reencode(Job(write_video(tmp_path / "a.mp4", frames), tmp_path / "b.mp4"), Settings())


def test_damaged_record(sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "transcode.sqlite").write_bytes(b"no table " * 200)
    assert run("--list", sources, "--out", tmp_path) == 2
    assert "transcode.sqlite is no record of finished videos (file is not a database)" in capsys.readouterr().err


def test_what_an_encoder_refuses(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", scene(3, 32, 32))
    with pytest.raises(InputError, match=r"a\.mp4: cannot be written with codec libx264 \(.+\)$"):
        reencode(Job(source, tmp_path / "b.mp4"), Settings(options=(("preset", "none such"),)))


def test_wrong_quality_is_noticed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8)
    source = write_video(tmp_path / "a.mp4", noise)
    with pytest.raises(InputError, match=r"differs from it by \d+\.\d levels in frame 0: expected at most 8"):
        reencode(Job(source, tmp_path / "b.mp4"), Settings())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--options", "preset=fast", "crff=3"], "refuses --options crff=3 (there is no option crff)"),
        (["--options", "crf=good"], "refuses --options crf=good"),
        (["--options", "x264-params=foo=3"], "refuses --options x264-params=foo=3"),
        (["--options", "crf"], "--options: expected NAME=VALUE, found 'crf'"),
        (["--options", "g=250"], "the distance of keyframes is given with --gop"),
        (["--codec", "h266"], "codec h266 is none that PyAV"),
        (["--codec", "aac"], "codec aac writes audio"),
        (["--pixel-format", "rgb24"], "cannot write the pixel format rgb24: expected one of yuv420p"),
        (["--suffix", ".webm"], "codec libx264 does not write .webm files"),
        (["--gop", "0"], "--gop of at least 1"),
        (["--time-limit", "-1"], "expected seconds above 0, found '-1'"),
        (["--workers", "0"], "expected a whole number of at least 1, found '0'"),
    ],
)
def test_wrong_options(options: list[str], message: str, sources: Path, tmp_path: Path, capsys) -> None:
    assert run("--list", sources, "--out", tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.mp4"))


def test_sources_are_safe(sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list", sources, "--out", sources / "small") == 2
    assert "lies in the folder of videos" in capsys.readouterr().err
    source = write_video(tmp_path / "a.mp4", scene(3, 32, 32))
    before = source.read_bytes()
    (tmp_path / "some.csv").write_text("path\na.mp4\n")
    assert run("--list", tmp_path / "some.csv", "--out", tmp_path) == 2
    assert "lies where an output would go" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_a_list_of_videos_that_lie_elsewhere(sources: Path, tmp_path: Path) -> None:
    places = [sources / "left é's" / "same.mkv", sources / "right" / "cut off.mp4"]
    (tmp_path / "some.csv").write_text(f"path\n{places[0]}\n{places[1]}\n", encoding="utf-8")
    assert [video.name for video in read_list(str(tmp_path / "some.csv"), None)] == [
        "left é's/same.mkv",
        "right/cut off.mp4",
    ]
    names = [video.name for video in read_list(str(tmp_path / "some.csv"), sources / "right")]
    assert names == [places[0].as_posix(), "cut off.mp4"]


def test_names() -> None:
    def targets(*names: str) -> list[str]:
        videos = [Listed(Path("/root", name), None, name) for name in names]
        return [str(job.target) for job in transcode.plan(videos, Path("/out"), ".mp4")]

    assert targets("a.avi", "b.x/a.mkv") == ["/out/a.mp4", "/out/b.x/a.mp4"]
    assert targets("a.avi", "a.mp4") == ["/out/a.avi.mp4", "/out/a.mp4.mp4"]
    assert targets("/else/a.avi") == ["/out/outside/else/a.mp4"]
    with pytest.raises(InputError, match=r"would both become /out/a\.avi\.mp4"):
        targets("a.avi", "a.mp4", "a.avi.mp4")


def hang(job: Job, settings: Settings) -> None:
    if job.source.suffix == ".mkv":
        job.target.parent.mkdir(exist_ok=True)
        unfinished_path(job.target).write_bytes(b"half a video")
        time.sleep(60)
    reencode(job, settings)


def test_time_limit(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcode, "reencode", hang)
    (tmp_path / "some.csv").write_text("path,label\nsame.mkv,x\n")
    arguments = ["--list", tmp_path / "some.csv", "--root", sources / "left é's", "--out", tmp_path / "out"]
    assert run(*arguments, "--time-limit", 0.5) == 1
    assert rows(tmp_path / "out" / "failed.csv") == [["path", "reason"], ["same.mkv", "takes longer than 0.5 s"]]
    assert rows(tmp_path / "out" / "list.csv") == [["path", "label"]]
    assert not list((tmp_path / "out").rglob("*.mp4"))


def test_killed_and_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write_video(tmp_path / "videos" / f"{number}.mp4", scene(60, 96, 128))
    arguments = [
        "--list",
        tmp_path / "videos",
        "--out",
        tmp_path / "out",
        "--workers",
        1,
        "--options",
        "preset=placebo",
    ]
    command = [sys.executable, DATA_PREP / "transcode.py", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(DATA_PREP.parent)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("out/[0-9].mp4")) or not list(tmp_path.glob("out/.part-*.mp4")):
            assert process.poll() is None, "it finished before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finished = list(tmp_path.glob("out/[0-9].mp4"))
    assert len(finished) < 3
    for path in finished:
        with open_video(path) as video:
            assert len(video) == 60
    assert run(*arguments) == 0
    expected = f"Written {3 - len(finished)}, kept {len(finished)}, failed 0 of 3 videos"
    assert expected in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("0.mp4", "1.mp4", "2.mp4", "failed.csv", "list.csv", "transcode.sqlite")
    ]
    assert rows(tmp_path / "out" / "list.csv") == [["path"], ["0.mp4"], ["1.mp4"], ["2.mp4"]]


@pytest.mark.parametrize("name", ["rotated_90.mov", "short_mpeg4.avi", "unordered_pts.mov", "h265_video.mp4"])
def test_shared_videos(name: str, shared: Path, tmp_path: Path) -> None:
    reencode(Job(shared / "videos" / name, tmp_path / "a.mp4"), Settings(short_side=64, options=(("preset", "fast"),)))


def test_damage_in_the_middle(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"corrupted\.mp4: only \d+ frames can be decoded"):
        reencode(Job(shared / "videos" / "corrupted.mp4", tmp_path / "a.mp4"), Settings())
    assert not list(tmp_path.iterdir())
