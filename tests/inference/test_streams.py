"""Live sources from real servers in processes of their own: the clips of the file, whatever happens to the stream."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from a2video.data.pyav_reader import PyAVReader
from a2video.data.transforms import EvenCrops, Preprocessing
from a2video.errors import InputError
from a2video.inference import live_source
from a2video.inference.backends import Backend
from a2video.inference.classifier import VideoClassifier
from a2video.inference.live_source import Connection, is_live, masked
from a2video.inference.streams import LivePrediction, LiveSummary, watch

PREPROCESSING = Preprocessing(num_frames=4, frame_stride=2, short_side=32, crop_size=24)
SERVER = Path(__file__).with_name("stream_server.py")


class Recorder(Backend):
    """Keeps the clips it gets; takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.clips: list[Tensor] = []

    def __call__(self, clips: Tensor) -> Tensor:
        time.sleep(self.seconds)
        self.clips.append(clips)
        return torch.tensor([[1.0, 2.0]])


class Server:
    """stream_server.py, which can be killed and started again on the same port."""

    def __init__(self, film: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [sys.executable, str(SERVER), str(self.port), str(film)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def address(self, path: str, scheme: str = "http", user: str = "") -> str:
        return f"{scheme}://{user}127.0.0.1:{self.port}/{path}"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2.4 seconds of MPEG-TS at 25 frames a second, no two frames alike, with B pictures."""
    path = tmp_path_factory.mktemp("film") / "film.ts"
    rng = np.random.default_rng(0)
    background = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10", "g": "25", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(60):
            picture = background.copy()
            picture[8:40, 8 : 8 + number // 2] += 100
            picture[20:30, 20:40] += 2 * number
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def images(film: Path) -> Tensor:
    """The frames of the film as a network sees them, uint8 (60, 3, 24, 24)."""
    with PyAVReader(film) as reader:
        frames = reader.get_frames(range(len(reader)))
    cut = EvenCrops(32, 24).draw(48, 64, np.random.default_rng(0))
    images = torch.stack([cut.crops(image)[0] for image in cut.resize(frames)])
    assert len(torch.unique(images.flatten(1), dim=0)) == len(images) == 60
    return images


@pytest.fixture(scope="module")
def running(film: Path) -> Iterator[Server]:
    """A server for all tests that leave it alone."""
    server = Server(film)
    yield server
    server.kill()


def classifier(backend: Backend) -> VideoClassifier:
    return VideoClassifier(backend, ["still", "moving"], PREPROCESSING)


def frame_numbers(backend: Recorder, images: Tensor) -> list[list[int]]:
    """Which frames of the film the clips consist of, bit by bit."""
    assert {clip.shape for clip in backend.clips} == {(1, 3, 4, 24, 24)}
    return [
        [int((images == frame).flatten(1).all(1).nonzero()) for frame in clip[0].unbind(1)] for clip in backend.clips
    ]


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_stream_gives_the_clips_of_the_file(scheme: str, running: Server, images: Tensor) -> None:
    backend, shown, said = Recorder(), list[LivePrediction](), list[str]()
    address = running.address("live.ts?key=hidden", scheme, "me:hidden@")
    summary = watch(classifier(backend), address, show=shown.append, every_seconds=0, max_seconds=2.2, say=said.append)
    numbers = frame_numbers(backend, images)
    assert len(numbers) > 1
    assert all(clip == [clip[3] - 6, clip[3] - 4, clip[3] - 2, clip[3]] for clip in numbers)
    assert numbers[0][3] >= 25 + 6  # a second to measure the rate, then the span
    assert [clip[3] for clip in numbers] == sorted({clip[3] for clip in numbers})
    assert said == [f"{masked(address)}: 25 frames a second; the first clip needs 0.3 seconds of video"]
    assert "hidden" not in f"{said} {summary}"
    assert (summary.num_clips, summary.num_damaged, summary.num_reconnects) == (len(numbers), 0, 0)
    assert summary.num_frames >= numbers[-1][3]
    assert 2.2 <= summary.seconds < 30
    assert [label for label, _ in shown[0].ranked] == ["moving", "still"]
    assert shown[0].ranked[0][1] == pytest.approx(1 / (1 + np.exp(-1)))
    assert 1 < shown[0].seconds < shown[-1].seconds <= summary.seconds
    latencies = [prediction.latency_seconds for prediction in shown]
    assert min(latencies) > 0
    assert summary.latencies == (*np.percentile(latencies, (50, 95)), max(latencies))


def test_a_file_from_a_server_is_shown_at_its_speed_and_ends(running: Server, images: Tensor) -> None:
    backend = Recorder()
    summary = watch(classifier(backend), running.address("file.ts"), show=lambda _: None, every_seconds=1)
    assert frame_numbers(backend, images)[-1] == [53, 55, 57, 59]
    assert (summary.num_frames, summary.num_reconnects) == (60, 0)
    assert 2.3 < summary.seconds < 30
    assert 1 <= summary.num_clips <= 3


def test_a_server_that_is_killed_and_comes_back(film: Path, images: Tensor) -> None:
    server = Server(film)
    backend, said = Recorder(), list[str]()
    restarts: list[threading.Timer] = []

    def show(prediction: LivePrediction) -> None:
        if not restarts:
            server.kill()
            restarts.append(threading.Timer(0.7, server.start))
            restarts[0].start()
        elif len(said) >= 3:
            raise KeyboardInterrupt

    summary = watch(classifier(backend), server.address("live.ts"), show=show, every_seconds=0, say=said.append)
    restarts[0].join()
    server.kill()
    assert re.search("the connection is lost .*; trying again until it is back", said[1])
    assert re.search(r"connected again after \d+\.\d seconds", said[2])
    assert summary.num_reconnects == len(said) // 2 == 1
    numbers = frame_numbers(backend, images)
    assert all(clip[3] - clip[0] == 6 for clip in numbers)  # none spans the gap
    assert not [thread for thread in threading.enumerate() if thread.name == "capture"]


def test_a_slow_network_skips_clips_and_never_falls_behind(running: Server, images: Tensor) -> None:
    backend = Recorder(seconds=0.6)
    shown: list[LivePrediction] = []
    address = running.address("file.ts")
    summary = watch(classifier(backend), address, show=shown.append, every_seconds=0)
    numbers = [clip[3] for clip in frame_numbers(backend, images)]
    assert 2 <= len(numbers) <= 5  # of 29
    assert min(np.diff(numbers[:-1]), default=15) >= 10  # 15 frames come while a clip is scored
    assert summary.num_dropped == shown[-1].num_dropped >= (len(numbers) - 2) * 5
    assert max(prediction.latency_seconds for prediction in shown) < 2  # 29 clips would take 17 seconds


def test_slow_decoding_skips_to_where_the_stream_is(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_source, "MAX_LAG_SECONDS", 0.4)
    connection = Connection(running.address("live.ts"), 5)
    frames = connection.frames()
    first = next(frames).seconds
    number = num_skipped = 0
    while not num_skipped:  # 0.16 seconds are lost with each frame
        time.sleep(0.2)
        frame = next(frames)
        number, before, num_skipped = round((frame.seconds - first) * 25), number, frame.num_skipped
        assert number == before + 1 or num_skipped
    assert number in (25, 50)  # keyframes
    assert 2 <= before < 10
    assert number - before - 4 <= num_skipped <= number - before  # a decoder holds some back
    assert [round((next(frames).seconds - first) * 25) for _ in range(5)] == list(range(number + 1, number + 6))
    connection.close()


def test_a_stream_that_falls_silent_is_left_at_once_by_ctrl_c(running: Server) -> None:
    script = f"""if True:
        import atexit, sys, threading, time
        atexit.register(lambda: print("threads", threading.active_count()))  # after all that is registered later
        from a2video.inference.streams import watch
        sys.path.append({str(SERVER.parent)!r})
        from test_streams import Recorder, classifier
        cpu = []
        def show(prediction):
            cpu.append(time.process_time())
            print("shown", flush=True)
        address = {running.address("stall.ts")!r}
        print(watch(classifier(Recorder()), address, show=show, every_seconds=0.2, stall_seconds=60))
        print("CPU", time.process_time() - cpu[-1])"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "shown\n"
    time.sleep(1.2)  # the last frame is 1.6 seconds into the stream, the first clip 1.3
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert time.monotonic() - asked < 5
    summary, cpu, threads = rest.replace("shown\n", "").splitlines()
    assert threads == "threads 1"  # FFmpeg still waiting while Python ends has crashed
    assert re.match(
        r"watched http\S+ for \d+\.\d seconds: \d\d frames \(\d+ in no clip, 0 damaged\), connected again 0 times, ",
        summary,
    )
    assert float(cpu.split()[1]) < 0.5  # of more than 2 seconds


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        *((path, "no video in a format that is opened") for path in ("list.m3u8", "list.sdp", "concat", "redirect")),
        ("text", "no video in a format that is opened"),
        ("silent", "has not answered for 0.7 seconds"),
        ("huge", "has sent no frame that can be decoded, of at most 67,108,864 pixels"),
    ],
)
def test_what_is_refused(path: str, reason: str, running: Server) -> None:
    backend, address = Recorder(), running.address(path, user="me:p@ss:word@")
    with pytest.raises(InputError, match=reason) as error:
        watch(classifier(backend), address, show=lambda _: None, stall_seconds=0.7, say=pytest.fail)
    assert f"http://me:***@127.0.0.1:{running.port}/{path}: " in str(error.value)
    assert not backend.clips


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x", "rtsp://127.0.0.1:9/x"])
def test_a_server_that_is_not_there_is_an_error_at_once(address: str) -> None:
    with pytest.raises(InputError, match=rf"^{address}: cannot be reached \(Connection refused\); check the address$"):
        watch(classifier(Recorder()), address, show=lambda _: None)


def test_jpegs_without_times_go_by_their_arrival(running: Server, images: Tensor) -> None:
    backend = Recorder()
    num_rises = 0

    def show(
        prediction: LivePrediction,
    ) -> None:  # until it is clear; the film may begin anew
        nonlocal num_rises
        last = [clip[0, :, 3].int() for clip in backend.clips[-2:]]
        nearest = [int((images.int() - frame).abs().flatten(1).sum(1).argmin()) for frame in last]
        num_rises += len(nearest) == 2 and nearest[0] < nearest[1]
        if num_rises == 3:
            raise KeyboardInterrupt

    watch(classifier(backend), running.address("mjpeg"), show=show, every_seconds=0, max_seconds=60)
    assert num_rises == 3


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")
def test_ffmpeg_as_the_server(film: Path, images: Tensor) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/live.ts"
    sent = ["-re", "-i", film, "-c", "copy", "-f", "mpegts", "-listen", "1", address]
    server = subprocess.Popen(["ffmpeg", "-v", "error", *sent], stdin=subprocess.DEVNULL)
    backend = Recorder()
    try:
        for _ in range(50):
            try:
                summary = watch(classifier(backend), address, show=lambda _: None, every_seconds=0, max_seconds=2)
                break
            except InputError:  # ffmpeg does not listen yet
                time.sleep(0.1)
    finally:
        server.kill()
        server.wait()
    assert summary.num_clips > 0
    assert all(clip[3] - clip[0] == 6 for clip in frame_numbers(backend, images))


@pytest.mark.skipif(sys.platform != "linux", reason="names the device")
def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"^97: there is no camera /dev/video97 \(No such file or directory\); give "):
        watch(classifier(Recorder()), "97", show=lambda _: None)


def test_a_camera_is_opened_by_the_systems_own_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert live_source._address("1") == ("/dev/video1", "v4l2", {})
    monkeypatch.setattr(sys, "platform", "darwin")
    assert live_source._address("1") == ("1:none", "avfoundation", {"framerate": "30"})


def test_what_is_live() -> None:
    assert all(is_live(source) for source in ("0", "12", "rtsp://host/x", "RTSPS://host", "http://a", "https://a"))
    assert not any(is_live(source) for source in ("a.mp4", "0.mp4", "./0", "file:///etc/passwd", "-1", "²", ""))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("rtsp://me:secret@host:554/x", "rtsp://me:***@host:554/x"),
        ("rtsp://me:se@cr/et@host/x", "rtsp://me:***@host/x"),
        ("http://host:80/x?user=me&password=secret", "http://host:80/x?***"),
        ("http://me:se?cret@host/x?y", "http://me:***@host/x?***"),
        ("http://host:80/x", "http://host:80/x"),
        ("0", "0"),
    ],
)
def test_passwords_are_not_told(source: str, expected: str) -> None:
    assert masked(source) == expected


def test_the_summary_is_a_sentence() -> None:
    numbers = {"num_frames": 150, "num_dropped": 2, "num_damaged": 1, "num_reconnects": 3}
    summary = LiveSummary(source="0", seconds=6.04, num_clips=4, latencies=(0.02, 0.05, 0.1004), **numbers)
    counts = "watched 0 for 6.0 seconds: 150 frames (2 in no clip, 1 damaged), connected again 3 times"
    assert str(summary) == f"{counts}, 4 clips, latency 20 ms (median), 50 ms (95 %), 100 ms (longest)"
    assert str(LiveSummary("0", 6.04, *numbers.values(), 0, None)) == f"{counts}, 0 clips"
