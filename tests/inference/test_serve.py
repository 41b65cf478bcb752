"""`a2video serve` as a user has it: a real server process, a real browser, and clients that mean no good."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, browser
from conftest import moving_square, write_video
from test_cli import fails

from a2video.cli import main
from a2video.inference.classifier import VideoClassifier
from a2video.inference.serve_uploads import MAX_INSIDE
from a2video.inference.timeline import timeline

MEGABYTES = 20  # limits of the server
SECONDS = 5
HOSTILE_NAME = "<img src=x onerror=alert(1)>.mp4"


@dataclass
class Server:
    """A running server whose temporary files go to a folder of its own."""

    process: subprocess.Popen[str]
    temporary: Path
    url: str

    @property
    def port(self) -> int:
        return urllib.parse.urlsplit(self.url).port or 0

    @property
    def files(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def post(self, content: bytes, name: str = "", path: str = "classify?", **headers: str) -> tuple[int, dict]:
        """Sends a file, to be classified if nothing else is asked; the status and the answer."""
        url = f"{self.url}{path}&{urllib.parse.urlencode({'name': name})}"
        request = urllib.request.Request(url, content, {k.replace("_", "-"): v for k, v in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def refusal(self, content: bytes, name: str = "") -> str:
        """The sentence with which a file is refused, which must not tell where the server has it."""
        status, answer = self.post(content, name)
        assert status == 422
        assert str(self.temporary) not in answer["error"]
        return answer["error"]

    def connect(self, headers: str = "", method: str = "POST /classify") -> socket.socket:
        """A connection over which the beginning of a request has been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(f"{method} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
        return connection

    def wait_until_empty(self) -> None:
        end = time.monotonic() + 30
        while self.files:
            assert time.monotonic() < end, self.files
            time.sleep(0.02)

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Sends a signal; the exit status and what was written to standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@contextmanager
def serving(checkpoint: Path, temporary: Path) -> Iterator[Server]:
    options = ["--port=0", f"--max-megabytes={MEGABYTES}", f"--max-seconds={SECONDS}", "--device=cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "a2video", "serve", str(checkpoint), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " can be tried on http://127.0.0.1:" in line, process.communicate()
        yield Server(process, temporary, line.split()[-3])
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(trained / "best.ckpt", tmp_path_factory.mktemp("server's own")) as running:
        yield running
        assert running.end(signal.SIGTERM) == (143, "a2video: stopped by SIGTERM\n")
        assert list(running.temporary.iterdir()) == []


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def video(small_data: Path) -> Path:
    return small_data / "test/left/0 ü.mp4"


def read_until_closed(connection: socket.socket) -> str:
    answer = b""
    while part := connection.recv(1 << 16):
        answer += part
    return answer.decode()


class TestInTheBrowser:
    def choose(self, chromium: Browser, server: Server, file: Path, **options: int | bool) -> None:
        chromium.open(server.url, **options)
        chromium.choose_files("#file", file)
        chromium.wait_for("!document.getElementById('result').hidden || !document.getElementById('error').hidden")

    def text(self, chromium: Browser, selector: str) -> str:
        return chromium.run(f"document.querySelector({selector!r}).innerText")

    @pytest.mark.parametrize("width", [1000, 360])
    def test_a_video_gets_the_classifier_s_answer(
        self, chromium: Browser, server: Server, trained: Path, video: Path, width: int
    ) -> None:
        self.choose(chromium, server, video, width=width, touch=width == 360)
        expected = VideoClassifier.load(trained / "best.ckpt", "cpu")(video)
        names = chromium.run("[...document.querySelectorAll('#ranked .name')].map((e) => e.textContent)")
        numbers = chromium.run("[...document.querySelectorAll('#ranked data')].map((e) => Number(e.value))")
        assert names == [name for name, _ in expected.ranked]
        assert numbers == pytest.approx([number for _, number in expected.ranked], abs=1e-6)
        assert self.text(chromium, "#ranked data") == f"{expected.probability:.1%}"
        assert self.text(chromium, "#about") == "0 ü.mp4: 0.8 s, 24 frames"
        assert "best.ckpt" in self.text(chromium, "h1")
        assert "2 classes · 3 clips x 3 crops of 4 frames, stride 2" in self.text(chromium, "header")
        assert chromium.run("document.activeElement.id") == "result"
        chromium.wait_for(
            "document.getElementById('preview').readyState > 1 || document.getElementById('preview').hidden"
        )
        assert chromium.run("document.documentElement.scrollWidth") <= width
        assert chromium.complaints == []
        assert all(url.startswith((server.url, "blob:", "data:")) for url in chromium.requested)
        assert server.files == []

    def test_the_timeline_leads_to_its_moments(self, chromium: Browser, server: Server, video: Path) -> None:
        """Shown by the page's own function, for the network's own timeline of so short a video has one part."""
        self.choose(chromium, server, video)
        chromium.wait_for("document.getElementById('preview').readyState > 1")
        parts = [("<b>left</b>", 0.9, 0, 0.2), ("right", 0.8, 0.2, 0.5), ("<b>left</b>", 0.7, 0.5, 0.8)]
        names = ("label", "confidence", "start_seconds", "end_seconds")
        segments = [dict(zip(names, part, strict=True)) for part in parts]
        answer = {"seconds": 0.8, "num_frames": 24, "ranked": [["right", 1]], "segments": segments}
        chromium.run(f"shown.result(document.getElementById('file').files[0], {json.dumps(answer)})")
        assert chromium.run("[...document.querySelectorAll('#segments button')].map((e) => e.innerText)") == [
            "0.0–0.2 s\n<b>left</b>\n90.0%",
            "0.2–0.5 s\nright\n80.0%",
            "0.5–0.8 s\n<b>left</b>\n70.0%",
        ]
        assert chromium.run("[...document.querySelectorAll('#strip button')].map((e) => e.className)") == [
            "c0",
            "c1",
            "c0",
        ]
        widths = chromium.run("[...document.querySelectorAll('#strip button')].map((e) => e.offsetWidth)")
        total = chromium.run("document.getElementById('strip').offsetWidth")
        assert widths == pytest.approx([total / 4, total * 3 / 8, total * 3 / 8], abs=1.5)
        chromium.wait_for("document.getElementById('preview').readyState > 1")
        for selector, moment in (("#strip button:nth-child(3)", 0.5), ("#segments li:nth-child(2) button", 0.2)):
            chromium.run(f"document.querySelector({selector!r}).click()")
            chromium.wait_for("!document.getElementById('preview').seeking")
            assert chromium.run("document.getElementById('preview').currentTime") == pytest.approx(moment, abs=1e-3)
            left = chromium.run("document.getElementById('playhead').style.left")
            assert float(left.rstrip("%")) == pytest.approx(100 * moment / 0.8, abs=0.5)
        assert chromium.run("document.querySelector('#segments .now').innerText").startswith("0.2–0.5 s")

    def test_attention_is_shown_in_a_frame_of_its_own(self, chromium: Browser, server: Server, video: Path) -> None:
        self.choose(chromium, server, video)
        chromium.wait_for("document.getElementById('preview').readyState > 1")
        chromium.run("document.getElementById('attend').click()")
        chromium.wait_for("!document.getElementById('save').hidden")
        with chromium.frame("/frame"):
            chromium.wait_for("!!document.querySelector('.card')")
            assert chromium.run("document.querySelector('h1').innerText") == "0 ü.mp4"
            assert chromium.run("Promise.all([...document.images].map((e) => e.decode())).then((e) => e.length)") > 2
            assert chromium.run("document.getElementById('frame-label').textContent").startswith("frame ")  # its script
            assert chromium.run("origin") == "null"
            stolen = chromium.run("fetch('/').then(() => 'read', () => 'refused')")
            assert stolen == "refused"
        saved = chromium.run("fetch(document.getElementById('save').href).then((e) => e.text(), () => 'refused')")
        assert saved == "refused"  # the page itself may connect to the server alone; the link is for the reader
        assert server.files == []

    def test_a_broken_file_and_a_hostile_name(self, chromium: Browser, server: Server, tmp_path: Path) -> None:
        broken = tmp_path / HOSTILE_NAME
        broken.write_text("no video")
        self.choose(chromium, server, broken)
        sentence = self.text(chromium, "#error")
        assert sentence.startswith(f"{HOSTILE_NAME}: no video found in its 8 bytes")
        assert chromium.run("document.images.length") == 0
        assert chromium.run("document.getElementById('result').hidden")
        assert all("422" in complaint for complaint in chromium.complaints)  # Chromium notes every such answer

    def test_another_file_takes_the_place_of_the_first(
        self, chromium: Browser, server: Server, video: Path, tmp_path: Path
    ) -> None:
        self.choose(chromium, server, video)
        (tmp_path / "empty.mp4").touch()
        chromium.choose_files("#file", tmp_path / "empty.mp4")
        chromium.wait_for("!document.getElementById('error').hidden")
        assert self.text(chromium, "#error") == "empty.mp4: is empty: choose another file"
        assert chromium.run("document.getElementById('result').hidden")

    def test_too_large_a_file_is_not_even_sent(self, chromium: Browser, server: Server, tmp_path: Path) -> None:
        with (tmp_path / "large.mp4").open("wb") as file:
            file.truncate(MEGABYTES * 1_000_000 + 1)
        self.choose(chromium, server, tmp_path / "large.mp4")
        assert self.text(chromium, "#error") == "large.mp4: has 20 MB, and this server takes at most 20: shorten it"
        assert not any("classify" in url for url in chromium.requested)

    def test_dropping(self, chromium: Browser, server: Server, video: Path) -> None:
        chromium.open(server.url)
        data = {"items": [], "files": [str(video)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            chromium.call("Input.dispatchDragEvent", type=kind, x=500, y=600, data=data)
        chromium.wait_for("!document.getElementById('result').hidden")
        assert self.text(chromium, "#about").startswith("0 ü.mp4: ")


def test_the_answer_has_the_timeline(server: Server, trained: Path, tmp_path: Path) -> None:
    frames = np.concatenate([moving_square(1, 60), moving_square(-1, 60)])
    path = write_video(tmp_path / "both.mp4", frames)
    status, answer = server.post(path.read_bytes(), "both.mp4")
    expected = timeline(VideoClassifier.load(trained / "best.ckpt", "cpu"), path).segments
    assert status == 200
    assert answer["seconds"] == answer["segments"][-1]["end_seconds"] == 4
    assert [segment["label"] for segment in answer["segments"]] == [segment.label for segment in expected]
    for found, segment in zip(answer["segments"], expected, strict=True):
        assert found == pytest.approx(asdict(segment), abs=1e-6)


class TestLimits:
    def test_two_gigabytes_are_refused_before_they_come(self, server: Server) -> None:
        with server.connect("Content-Length: 2147483648\r\n") as connection:
            answer = read_until_closed(connection)
        assert answer.startswith("HTTP/1.1 413 ")
        assert "has more than the 20 MB that this server takes" in answer

    def test_a_body_without_end_is_cut_off(self, server: Server) -> None:
        chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
        num_sent = 0
        before = self.peak_kilobytes(server)
        with server.connect("Transfer-Encoding: chunked\r\n") as connection:
            try:
                while num_sent < 100_000_000:
                    connection.sendall(chunk)
                    num_sent += len(chunk)
            except ConnectionError:
                pass
        assert num_sent < 35_000_000  # what was underway when the server hung up
        assert self.peak_kilobytes(server) - before < 10_000
        server.wait_until_empty()

    def peak_kilobytes(self, server: Server) -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    def test_a_body_that_breaks_off_leaves_nothing(self, server: Server) -> None:
        with server.connect("Content-Length: 1000\r\n") as connection:
            connection.sendall(bytes(500))
            while not server.files:
                time.sleep(0.01)
        server.wait_until_empty()

    def test_lengths_that_are_none(self, server: Server) -> None:
        for length in ("-1", "1e3", "9" * 5000, "1\r\nContent-Length: 2"):
            with server.connect(f"Content-Length: {length}\r\n") as connection:
                assert read_until_closed(connection).startswith(("HTTP/1.1 400 ", "HTTP/1.1 413 "))

    def test_many_at_a_time(self, server: Server, video: Path) -> None:
        connections = [server.connect("Content-Length: 1000\r\n") for _ in range(MAX_INSIDE)]
        while len(server.files) < MAX_INSIDE:
            time.sleep(0.01)
        status, answer = server.post(video.read_bytes(), "a.mp4")
        for connection in connections:
            connection.close()
        assert (status, answer["error"]) == (
            503,
            "a.mp4: 6 other videos are being looked at: try again in a minute",
        )
        server.wait_until_empty()
        assert server.post(video.read_bytes())[0] == 200

    def test_too_long_a_video(self, server: Server, tmp_path: Path) -> None:
        path = write_video(tmp_path / "long.mp4", moving_square(1, 12), fps=2)
        assert server.refusal(path.read_bytes(), "long.mp4") == (
            "long.mp4: lasts 6 seconds, and this server takes at most 5: cut a part out of it"
        )


class TestHostileFiles:
    @pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\0.mp4", "..", "%2e%2e%2f.mp4", "x" * 5000])
    def test_a_name_is_no_path(self, server: Server, video: Path, name: str) -> None:
        before = {path.name for path in server.temporary.parent.iterdir()}
        shown = name.replace("\0", "\ufffd")
        shown = shown if len(shown) < 121 else shown[:120] + "…"
        assert server.refusal(b"text", name).startswith(f"{shown}: no video found in its 4 bytes")
        assert server.post(video.read_bytes(), name)[0] == 200
        assert server.files == []
        assert {path.name for path in server.temporary.parent.iterdir()} == before

    def test_what_names_other_files_is_not_opened(self, server: Server, video: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"http://127.0.0.1:{other.getsockname()[1]}/a.mp4"
            for target in (str(video), f"file:{video}", address):
                playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n"
                concat = f"ffconcat version 1.0\nfile '{target}'\n"
                for name, content in (("a.m3u8", playlist), ("a.ffconcat", concat), ("a.mp4", concat)):
                    assert "no video found" in server.refusal(content.encode(), name)
            sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
            assert "no video found" in server.refusal(sdp.encode(), "a.sdp")
            other.settimeout(0.2)
            with pytest.raises(TimeoutError):
                other.accept()

    def test_moments_of_the_attention(self, server: Server, video: Path) -> None:
        content = video.read_bytes()
        status, answer = server.post(content, "<i>.mp4", "attend?at=100")  # as late as there are frames
        assert status == 200
        assert '<h1 class="name">&lt;i&gt;.mp4</h1>' in answer["page"]
        for at, found in (("x", "at=x: expected seconds"), ("nan", "a.mp4 lasts 0.80 seconds"), ("-1", "a.mp4 lasts")):
            status, answer = server.post(content, "a.mp4", f"attend?at={at}")
            assert status == 422
            assert answer["error"].startswith(found)

    def test_damaged_video(self, server: Server, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
        content = write_video(tmp_path / "a.mp4", noise).read_bytes()
        assert server.refusal(content[: len(content) // 2], "half.mp4").startswith("half.mp4: ")


class TestWhoIsAnswered:
    def test_other_names_of_this_machine(self, server: Server) -> None:
        for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:7860", "192.0.2.1", "", "localhost@evil"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
                connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                answer = read_until_closed(connection)
            assert answer.startswith(("HTTP/1.1 421 ", "HTTP/1.1 400 ")), host
            assert "<html" not in answer
        for host in ("localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:7860"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
                connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert read_until_closed(connection).startswith("HTTP/1.1 200 ")

    def test_pages_of_others(self, server: Server, video: Path) -> None:
        content = video.read_bytes()
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://127.0.0.1:{server.port + 1}"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site", "Origin": server.url.rstrip("/")},
        ):
            assert server.post(content, **headers)[0] == 403
        assert server.post(content, Origin=server.url.rstrip("/"), Sec_Fetch_Site="same-origin")[0] == 200

    def test_no_other_address(self, server: Server) -> None:
        for path in ("/etc/passwd", "/../../etc/passwd", "/static/", "/classify", "//", "/%2e%2e/", "/docs"):
            with server.connect(method=f"GET {path}") as connection:
                assert read_until_closed(connection).startswith(("HTTP/1.1 404 ", "HTTP/1.1 405 ")), path

    def test_headers(self, server: Server) -> None:
        with urllib.request.urlopen(server.url) as answer:
            headers = answer.headers
        assert headers["content-security-policy"] == "frame-ancestors 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_the_folder_is_private(server: Server) -> None:
    (folder,) = server.temporary.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_ctrl_c_with_an_upload_under_way(trained: Path, tmp_path: Path) -> None:
    with serving(trained / "best.ckpt", tmp_path) as server, server.connect("Content-Length: 1000\r\n") as connection:
        connection.sendall(bytes(10))
        while not server.files:
            time.sleep(0.01)
        assert server.end(signal.SIGINT) == (130, "a2video: interrupted\n")
        assert list(tmp_path.iterdir()) == []


def test_wrong_input(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("serve", trained / "best.ckpt")
    with socket.create_server(("127.0.0.1", 0)) as other:
        message = fails(capsys, *command, "--port", str(other.getsockname()[1]))
    assert "of 127.0.0.1 cannot be had (Address already in use): end what uses it or give another --port" in message
    assert "--host no such host: no such address" in fails(capsys, *command, "--host", "no such host")
    assert "does not exist" in fails(capsys, "serve", tmp_path / "none.ckpt", "--port=0")
    for port in ("65536", "-1", "x"):
        with pytest.raises(SystemExit) as exit_info:
            main([*map(str, command), f"--port={port}"])
        assert exit_info.value.code == 2
        assert "expected a number from 0 to 65535" in capsys.readouterr().err
    for module in ("serve", "serve_guard"):
        monkeypatch.delitem(sys.modules, f"a2video.inference.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert 'a2video serve needs uvicorn: pip install "a2video[web]"' in fails(capsys, *command)
