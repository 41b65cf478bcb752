"""The page to try a network on: one HTML page, and what it asks for with a video."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from torch import nn

from a2video.data.protocols import OfPreprocessing
from a2video.data.readers import VideoError, VideoReader, open_video
from a2video.data.views import reading
from a2video.errors import InputError
from a2video.html_page import render
from a2video.inference.attention import attention
from a2video.inference.attention_page import attention_html
from a2video.inference.backends import TorchBackend
from a2video.inference.classifier import VideoClassifier
from a2video.inference.serve_uploads import Stopped, Uploads, shown_name
from a2video.inference.timeline import timeline
from a2video.models import DoubleAttention

NUM_SHOWN = 5  # classes
FRAME_POLICY = "; ".join(
    [
        "sandbox allow-scripts",
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",  # the page that comes names its own style and script, and allows no others
        "script-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    ]
)
FRAME = """<!DOCTYPE html><meta charset="utf-8"><title>Attention</title><script>
addEventListener('message', (event) => {
  if (event.source !== parent) return;
  document.open();
  document.write(event.data);
  document.close();
}, { once: true });
</script>
"""


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
                Route("/frame", self.frame),
                Route("/classify", self.classify, methods=["POST"]),
                Route("/attend", self.attend, methods=["POST"]),
            ]
        )

    async def page(self, request: Request) -> Response:
        """What is to be seen before a video has come."""
        page = render(
            "try.html.jinja",
            ["report.css", "try.css"],
            ["try.js", "try_upload.js"],
            allows=["connect-src 'self'", "media-src blob:", "frame-src 'self'"],
            name=self.name,
            num_classes=len(self.classifier.class_names),
            protocol=OfPreprocessing(self.classifier.preprocessing).name,
            max_bytes=self.uploads.max_bytes,
            max_seconds=self.max_seconds,
            has_attention=any(isinstance(part, DoubleAttention) for part in self._parts()),
        )
        return HTMLResponse(page, headers={"content-security-policy": "frame-ancestors 'none'"})

    async def frame(self, request: Request) -> Response:
        """An empty page that becomes the attention page, shut off from everything: that one has scripts of its own."""
        return HTMLResponse(FRAME, headers={"content-security-policy": FRAME_POLICY})

    async def classify(self, request: Request) -> Response:
        """The most probable classes of a video and its timeline, as JSON."""

        def work(path: Path, stop: threading.Event) -> Response:
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
                    "clips": [(clip.start_seconds, clip.end_seconds) for clip in prediction.clips],
                    "segments": [asdict(segment) for segment in segments],
                }
            )

        return await self.uploads.answer(request, work)

    async def attend(self, request: Request) -> Response:
        """The attention page of a video as JSON, of the clip around `at` of the query; the centre one without it."""
        name, at = request.query_params.get("name", ""), request.query_params.get("at")

        def work(path: Path, stop: threading.Event) -> Response:
            with reading(path), open_video(path) as video:
                seconds = self._length(video)
            try:
                moment = None if at is None else min(float(at), seconds)  # the file's sound may go on after its picture
            except ValueError:
                raise InputError(f"at={shown_name(str(at))}: expected seconds") from None
            found = replace(attention(self.classifier, path, moment), path=shown_name(name))
            return JSONResponse({"page": attention_html(found, checkpoint=self.name)})

        return await self.uploads.answer(request, work)

    def _parts(self) -> Iterator[nn.Module]:
        """Of the network, where it is one of torch's."""
        if isinstance(self.classifier.backend, TorchBackend):
            yield from self.classifier.network.modules()

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
