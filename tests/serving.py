"""A server of `a2video serve` for tests: a real process with a temporary folder of its own."""

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
from dataclasses import dataclass
from pathlib import Path

MEGABYTES = 20  # limits of the server
SECONDS = 5


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
            with error:
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
    with subprocess.Popen(
        [sys.executable, "-m", "a2video", "serve", str(checkpoint), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " can be tried on http://127.0.0.1:" in line, process.communicate()
            yield Server(process, temporary, line.split()[-3])
        finally:
            process.kill()


def read_until_closed(connection: socket.socket) -> str:
    answer = b""
    while part := connection.recv(1 << 16):
        answer += part
    return answer.decode()
