"""The page to try a network on: one HTML page, and what it asks for with a video."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from a2video.data.protocols import OfPreprocessing
from a2video.data.readers import VideoError, VideoReader, open_video
from a2video.data.views import reading
from a2video.html_page import render
from a2video.inference.classifier import VideoClassifier
from a2video.inference.serve_uploads import Stopped, Uploads, Work
from a2video.inference.timeline import timeline

NUM_SHOWN = 5  # classes


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
        """The most probable classes of a video and its timeline, as JSON."""
        with reading(path), open_video(path) as video:
            seconds, num_frames = self._length(video), len(video)
            prediction = self.classifier.classify(video)

        def go_on(share: float) -> None:
            if stop.is_set():
                raise Stopped

        go_on(0)
        segments = timeline(self.classifier, path, on_progress=go_on).segments
        return JSONResponse(
            {
                "seconds": seconds,
                "num_frames": num_frames,
                "ranked": prediction.ranked[:NUM_SHOWN],
                "segments": [asdict(segment) for segment in segments],
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
