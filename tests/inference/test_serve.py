"""`a2video serve` as a program: its answers, its limits, its end, and clients and files that mean no good."""

from __future__ import annotations

import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import moving_square, write_video
from serving import Server, read_until_closed, serving
from test_cli import fails

from a2video.cli import main
from a2video.inference.classifier import VideoClassifier
from a2video.inference.serve_uploads import MAX_INSIDE
from a2video.inference.timeline import timeline


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(trained / "best.ckpt", tmp_path_factory.mktemp("server's own")) as running:
        yield running
        assert running.end(signal.SIGTERM) == (143, "a2video: stopped by SIGTERM\n")
        assert list(running.temporary.iterdir()) == []


@pytest.fixture(scope="module")
def video(small_data: Path) -> Path:
    return small_data / "test/left/0 ü.mp4"


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
        assert '{"error":"the file: the server has been stopped"}' in read_until_closed(connection)
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
    assert 'this needs uvicorn, which cannot be imported: pip install "a2video[web]"' in fails(capsys, *command)
