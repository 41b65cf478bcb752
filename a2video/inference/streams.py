"""Classifies a camera or a network stream as it comes: always the newest clip, whatever was missed meanwhile."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from a2video.inference.classifier import Ranked, VideoClassifier
from a2video.inference.live_capture import Capture
from a2video.inference.scoring import average_views
from a2video.printable import shown

NUM_LATENCIES = 10_000  # the newest, of which the summary tells


@dataclass(frozen=True)
class LivePrediction:
    """What a network makes of the newest clip of a stream.

    Attributes:
        seconds: when the answer was there, after the start.
        time: the same on the clock of the wall, with its zone.
        ranked: (class name, probability) of every class, the most probable first; of this clip alone.
        latency_seconds: from the arrival of the clip's newest frame here to the answer, decoding, waiting and the
            network included; what the camera, the encoder and the network cable took before is not known here.
        num_dropped: frames so far that came and went without a clip that spans them: no answer was due yet, or the
            scoring or the decoding was too slow, or the stream broke off.
    """

    seconds: float
    time: datetime
    ranked: Ranked
    latency_seconds: float
    num_dropped: int


@dataclass(frozen=True)
class LiveSummary:
    """What became of a stream; str() makes a sentence of it.

    Attributes:
        source: without its password.
        seconds: from the start to the end.
        num_frames: received.
        num_dropped: of these, in no clip's span; see LivePrediction.
        num_damaged: packets and frames left out, for they were damaged.
        num_reconnects: after the connection was lost.
        num_clips: scored.
        latencies: median, 95th percentile and longest in seconds, see LivePrediction; None without a clip. The first
            two are of the last NUM_LATENCIES clips.
    """

    source: str
    seconds: float
    num_frames: int
    num_dropped: int
    num_damaged: int
    num_reconnects: int
    num_clips: int
    latencies: tuple[float, float, float] | None

    def __str__(self) -> str:
        """One sentence."""
        counts = (
            f"{self.num_frames} frames ({self.num_dropped} in no clip, {self.num_damaged} damaged), "
            f"connected again {self.num_reconnects} times, {self.num_clips} clips"
        )
        latencies = ""
        if self.latencies is not None:
            median, most, longest = (f"{1000 * seconds:.0f} ms" for seconds in self.latencies)
            latencies = f", latency {median} (median), {most} (95 %), {longest} (longest)"
        return f"watched {self.source} for {self.seconds:.1f} seconds: {counts}{latencies}"


def _to_stderr(sentence: str) -> None:
    print(f"a2video: {shown(sentence)}", file=sys.stderr, flush=True)


def watch(
    classifier: VideoClassifier,
    source: str,
    *,
    show: Callable[[LivePrediction], None],
    every_seconds: float = 1.0,
    stall_seconds: float = 10.0,
    max_seconds: float = float("inf"),
    say: Callable[[str], None] = _to_stderr,
) -> LiveSummary:
    """Classifies the newest clip of a camera or a stream again and again, until Ctrl-C.

    The centre of each frame is taken. A ring buffer as long as a clip drops the oldest frames, so that a slow network
    skips clips instead of falling behind; decoding that falls 2 seconds behind skips to where the stream is. The
    first clip is scored when there has been enough video for it. A connection that is lost is made again, for as long
    as it takes; no clip spans the gap. A file that a server sends (it states a length) is shown at its own speed and
    ends.

    Args:
        classifier: computes the probabilities.
        source: a camera's number or an address; see live_source.is_live.
        show: gets each prediction.
        every_seconds: from one clip to the next, at least; 0 for one after the other.
        stall_seconds: without a frame before the connection counts as lost; of the first connection, before it fails.
        max_seconds: after which to stop, from the start.
        say: gets a sentence whenever the connection is made, lost and made again.

    Raises:
        InputError: the first connection fails.
    """
    start = due = time.monotonic()
    num_clips, longest = 0, 0.0
    latencies: deque[float] = deque(maxlen=NUM_LATENCIES)
    capture = Capture(source, classifier.preprocessing, stall_seconds, say)
    try:
        with capture:
            while (clip := capture.next_clip(due, start + max_seconds)) is not None:
                due = time.monotonic() + every_seconds
                ranked = classifier.rank(average_views(classifier.score(clip.pixels), "probs"))
                now = time.monotonic()
                num_clips += 1
                latencies.append(now - clip.arrival)
                longest = max(longest, latencies[-1])
                at = datetime.now().astimezone()
                show(LivePrediction(now - start, at, ranked, latencies[-1], capture.num_dropped))
    except KeyboardInterrupt:  # how a user ends it
        pass
    return LiveSummary(
        source=capture.name,
        seconds=time.monotonic() - start,
        num_frames=capture.num_frames,
        num_dropped=capture.num_dropped,
        num_damaged=capture.num_damaged,
        num_reconnects=capture.num_reconnects,
        num_clips=num_clips,
        latencies=(*np.percentile(latencies, (50, 95)).tolist(), longest) if latencies else None,
    )
