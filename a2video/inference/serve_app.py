"""The page to try a network on: one HTML page, and what it asks for with a video."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from a2video.data.protocols import OfPreprocessing
from a2video.data.readers import VideoError, VideoReader, open_video
from a2video.data.views import reading
from a2video.html_page import render
from a2video.inference.backends import Backend
from a2video.inference.classifier import VideoClassifier
from a2video.inference.serve_uploads import Stopped, Uploads, Work

NUM_SHOWN = 5  # classes


class StoppableBackend(Backend):
    """Another backend until an event is set, which then ends the work on a video nobody waits for.

    Args:
        backend: computes the logits.
        stop: ends it.
    """

    def __init__(self, backend: Backend, stop: threading.Event) -> None:
        self.backend = backend
        self.stop = stop

    def __call__(self, clips: Tensor) -> Tensor:
        """See Backend; raises Stopped."""
        if self.stop.is_set():
            raise Stopped
        return self.backend(clips)


class TryPage:
    """The page of one network.

    Args:
        classifier: the network.
        name: of it, shown.
        uploads: takes the videos.
        max_seconds: that a video may last.
    """

    def __init__(self, classifier: VideoClassifier, name: str, uploads: Uploads, max_seconds: float) -> None:
        self.classifier = classifier
        self.name = name
        self.uploads = uploads
        self.max_seconds = max_seconds

    def app(self) -> Starlette:
        """Fixed addresses alone; no file of the server has one."""
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/classify", self._answering(self.classify), methods=["POST"]),
            ]
        )

    async def page(self, request: Request) -> Response:
        """What is to be seen before a video has come."""
        page = render(
            "try.html.jinja",
            ["report.css", "try.css"],
            ["try.js", "try_upload.js"],
            allows=["connect-src 'self'", "media-src blob:"],
            name=self.name,
            num_classes=len(self.classifier.class_names),
            protocol=OfPreprocessing(self.classifier.preprocessing).name,
            max_bytes=self.uploads.max_bytes,
            max_seconds=self.max_seconds,
        )
        return HTMLResponse(page, headers={"content-security-policy": "frame-ancestors 'none'"})

    def classify(self, path: Path, stop: threading.Event) -> Response:
        """The most probable classes of a video, as JSON."""
        backend = StoppableBackend(self.classifier.backend, stop)
        classifier = VideoClassifier(backend, self.classifier.class_names, self.classifier.preprocessing)
        with reading(path), open_video(path) as video:
            seconds = self._length(video)
            prediction = classifier.classify(video)
        return JSONResponse(
            {
                "seconds": seconds,
                "num_frames": len(video),
                "ranked": prediction.ranked[:NUM_SHOWN],
            }
        )

    def _length(self, video: VideoReader) -> float:
        """The seconds that a video lasts.

        Raises:
            VideoError: they are too many.
        """
        seconds = float(video.times[-1]) + (1 / video.fps if video.fps else 0.0)
        if seconds > self.max_seconds:
            raise VideoError(
                f"{video.path}: lasts {seconds:.0f} seconds, and this server takes at most {self.max_seconds:g}: "
                "cut a part out of it"
            )
        return seconds

    def _answering(self, work: Work) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await self.uploads.answer(request, work)

        return answer
