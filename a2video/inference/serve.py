"""`a2video serve`: a page on this machine to try a network on, which ends in good order and leaves nothing behind."""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from a2video.errors import InputError, Interrupted
from a2video.html_page import tail
from a2video.inference.classifier import VideoClassifier
from a2video.inference.serve_app import TryPage
from a2video.inference.serve_guard import Guard, OneRequest
from a2video.inference.serve_uploads import Uploads

MAX_CONNECTIONS = 64
SECONDS_TO_LOCK = 60  # that a new server has at most
PREFIX = "a2video-serve-"  # of folders for uploads
SECONDS_TO_END = 1  # for answers that are on their way when the server is stopped


def serve(
    checkpoint: str | Path,
    host: str = "127.0.0.1",
    port: int = 7860,
    max_megabytes: float = 200,
    max_seconds: float = 600,
    device: str = "auto",
) -> None:
    """Serves the page until a signal ends it.

    Args:
        checkpoint: see VideoClassifier.load.
        host: address or name to listen on; 127.0.0.1 can be reached from this machine only.
        port: 0 takes a free one.
        max_megabytes: of a video, a million bytes each.
        max_seconds: that a video may last.
        device: see VideoClassifier.load.

    Raises:
        InputError: the checkpoint cannot be loaded, or the address cannot be listened on.
        KeyboardInterrupt: Ctrl-C has ended it.
        Interrupted: SIGTERM has.
    """
    with _ending_on_sigterm(), _bound(host, port) as listener:
        classifier = VideoClassifier.load(checkpoint, device)
        with _folder() as folder:
            uploads = Uploads(folder, round(max_megabytes * 1e6))
            page = TryPage(classifier, tail(checkpoint), uploads, max_seconds)
            logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what went wrong, uploads.py says
            config = uvicorn.Config(
                Guard(page.app(), host),
                loop="asyncio",
                http=OneRequest,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                headers=[("connection", "close")],
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=SECONDS_TO_END,
            )
            _Server(config, page.name).run([listener])


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for uploads, which is removed in the end: by the next server, should this one be killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if time.time() - left.stat().st_mtime > SECONDS_TO_LOCK and (descriptor := _locked(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(descriptor)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        descriptor = _locked(Path(folder))
        try:
            yield Path(folder)
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _locked(folder: Path) -> int | None:
    """Locks a folder until it is closed or this process ends; None where another one has it, or it is not ours."""
    try:
        import fcntl  # which Windows has not

        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except (ImportError, OSError):
        return None
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            raise PermissionError
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


class _Server(uvicorn.Server):
    """Says where it listens when it does."""

    def __init__(self, config: uvicorn.Config, name: str) -> None:
        super().__init__(config)
        self.name = name

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        print(f"{self.name} can be tried on {_url(sockets[0])} until Ctrl-C", flush=True)


def _url(listener: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        return f"http://localhost:{port}/"
    return f"http://[{address}]:{port}/" if address.version == 6 else f"http://{address}:{port}/"


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket with that address, which does not listen yet.

    Raises:
        InputError: it cannot have it.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host}: no such address ({error}); give one of this machine's") from error
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        if sys.platform != "win32":  # where it would let two servers have the same port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise InputError(
                f"port {port} of {host} cannot be had ({error.strerror}): end what uses it or give another --port"
            ) from error
        if not ipaddress.ip_address(address[0]).is_loopback:
            print(
                f"a2video: warning: --host {host} lets anyone who reaches this machine over the network use the page",
                file=sys.stderr,
            )
        yield listener


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM an exception, so that everything is put away."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Interrupted("stopped by SIGTERM", 128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
