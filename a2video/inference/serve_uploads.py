"""Takes uploads, one video at a time through the network, and leaves no file behind."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from a2video.data.folders import VIDEO_SUFFIXES, suffix_of
from a2video.errors import InputError

MAX_INSIDE = 6  # videos that are uploaded, wait or are looked at, at the same time
STILL_SECONDS = 30.0  # after which an upload that brings nothing is given up
UPLOAD_SECONDS = 900.0  # after which any upload is
MAX_NAME = 120  # characters of a file's name in a sentence

T = TypeVar("T")
Work = Callable[[Path, threading.Event], Response]

log = logging.getLogger(__name__)


class Refused(Exception):
    """An upload that is not taken.

    Args:
        status: of HTTP.
        reason: one sentence, after the file's name and a colon.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Stopped(Exception):
    """Work whose result nobody waits for any more."""


@dataclass
class Uploads:
    """Receives a video, lets a worker thread look at it when it is its turn, and removes it, whatever happens.

    Attributes:
        folder: where the files are until they are removed; nobody else's.
        max_bytes: of a video.
        num_inside: videos that have not been answered yet.
    """

    folder: Path
    max_bytes: int
    num_inside: int = 0

    def __post_init__(self) -> None:
        self._turn = asyncio.Lock()

    async def answer(self, request: Request, work: Work) -> Response:
        """The answer to a request whose body is a video and whose query may give its `name`.

        Args:
            request: of a client.
            work: makes the answer, in a thread; raises Stopped soon after its event is set. An InputError of it may
                name the file that it was given: the client reads its own name there.
        """
        name = shown_name(request.query_params.get("name", ""))
        self.num_inside += 1
        try:
            if self.num_inside > MAX_INSIDE:
                raise Refused(503, f"{MAX_INSIDE} other videos are being looked at: try again in a minute")
            with self._new_file(suffix_of(request.query_params.get("name", ""))) as (file, path):
                with file:
                    await self._receive(request, file)
                try:
                    return await self._work(request, work, path)
                except InputError as error:
                    return failure(422, str(error).replace(str(path), name))
        except Refused as refusal:
            return failure(refusal.status, f"{name}: {refusal}")
        except ClientDisconnect:
            return Response(status_code=499)  # which nobody reads
        except asyncio.CancelledError:
            return failure(503, f"{name}: the server has been stopped")
        except Exception:
            log.exception("while %s was looked at", name)
            return failure(500, f"{name}: the server failed, and its terminal says why")
        finally:
            self.num_inside -= 1

    @contextmanager
    def _new_file(self, suffix: str) -> Iterator[tuple[IO[bytes], Path]]:
        """A new file, removed in the end; FFmpeg's guess at a format may need the suffix."""
        number, path = tempfile.mkstemp(suffix if suffix in VIDEO_SUFFIXES else "", dir=self.folder)
        try:
            yield os.fdopen(number, "wb"), Path(path)
        finally:
            Path(path).unlink()

    async def _receive(self, request: Request, file: IO[bytes]) -> None:
        too_large = Refused(413, f"has more than the {self.max_bytes / 1e6:g} MB that this server takes: shorten it")
        if int(request.headers.get("content-length", "0")) > self.max_bytes:
            raise too_large
        now = asyncio.get_running_loop().time
        end, num_bytes = now() + UPLOAD_SECONDS, 0
        try:
            async with asyncio.timeout(STILL_SECONDS) as patience:
                async for chunk in request.stream():
                    num_bytes += len(chunk)
                    if num_bytes > self.max_bytes:
                        raise too_large
                    file.write(chunk)
                    patience.reschedule(min(now() + STILL_SECONDS, end))
            file.flush()
        except TimeoutError:
            raise Refused(408, f"its upload stood still for {STILL_SECONDS:g} seconds: try again") from None
        except OSError as error:
            log.exception("while an upload was written")
            raise Refused(507, "the server has no room for it") from error
        if num_bytes == 0:
            raise Refused(422, "is empty: choose another file")

    async def _work(self, request: Request, work: Work, path: Path) -> Response:
        """What `work` makes of the file, given up when the client goes away."""
        job = asyncio.create_task(self._in_turn(work, path))
        gone = asyncio.ensure_future(request.receive())  # after the body there is nothing else to come
        try:
            await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                raise ClientDisconnect
            return job.result()
        finally:
            gone.cancel()
            job.cancel()
            await asyncio.wait({job, gone})

    async def _in_turn(self, work: Work, path: Path) -> Response:
        stop = threading.Event()
        async with self._turn:
            thread = asyncio.create_task(asyncio.to_thread(work, path, stop))
            try:
                return await asyncio.shield(thread)
            except asyncio.CancelledError:
                stop.set()
                await asyncio.gather(thread, return_exceptions=True)  # the next one's turn comes after it
                raise


def shown_name(name: str) -> str:
    """A file's name as it may stand in a sentence: short, without characters that are no text or turn it around."""
    printable = "".join(c if c.isprintable() else "\ufffd" for c in name) or "the file"
    return printable if len(printable) <= MAX_NAME else printable[:MAX_NAME] + "…"


def failure(status: int, sentence: str) -> Response:
    """An answer that the page shows as it is."""
    return JSONResponse({"error": sentence}, status)
