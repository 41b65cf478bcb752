"""What is kept of a stream: the newest frames at an even rate, in a ring buffer that drops the oldest."""

from __future__ import annotations

from collections import deque
from math import ceil

from torch import Tensor

from a2video.data.samplers import TIME_TOLERANCE, span
from a2video.data.transforms import Preprocessing

GAP_SECONDS = 1.0  # without a frame that a clip may span, or else 3 frame periods
TRUSTED = 0.1  # how far the stated rate of a stream may be from the measured one, relatively


class RateMeter:
    """Measures frames in a second over a stream's first second.

    Args:
        stated: what the stream says, which is taken when it is about right, for it is exact; None if it does not say.
    """

    MIN_SECONDS, MIN_FRAMES = 1.0, 5

    def __init__(self, stated: float | None) -> None:
        self.stated = stated
        self.fps: float | None = None  # None until it is known
        self._first: float | None = None
        self._num = 0

    def add(self, seconds: float, is_after_gap: bool = False) -> None:
        """Takes the time of the next frame; begins anew after a gap, or where the stream's time goes back."""
        if self._first is None or seconds < self._first or is_after_gap:
            self._first, self._num = seconds, 0
        elapsed = seconds - self._first
        if self.fps is None and elapsed >= self.MIN_SECONDS and self._num + 1 >= self.MIN_FRAMES:
            measured = self._num / elapsed
            is_right = self.stated is not None and abs(self.stated - measured) <= TRUSTED * measured
            self.fps = self.stated if is_right else measured
        self._num += 1


class Lag:
    """How much later a stream's data is read than it could be, where reading is the bottleneck.

    Compares the stream's clock with ours. The least difference so far counts as none; it is let go of slowly, for the
    clocks may drift.
    """

    DRIFT = 1e-3  # seconds in a second
    MAX_STEP = 3.0  # seconds; a stream whose time goes back or jumps further has a new clock

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._least = 0.0

    def add(self, seconds: float, arrival: float) -> float:
        """Seconds that the data of the stream's time `seconds` comes late, when it comes at `arrival`."""
        late = arrival - seconds
        if self._last is None or not 0 <= seconds - self._last[0] <= self.MAX_STEP:
            self._least = late
        else:
            self._least = min(self._least + self.DRIFT * (arrival - self._last[1]), late)
        self._last = seconds, arrival
        return late - self._least


class FrameRing:
    """The frames of a stream at the times 0, 1 / fps, 2 / fps, ... after its first one, as many as a clip spans.

    As in a file (`data.samplers.frames_at_rate`), a frame that comes at a lower rate is repeated, and of those that
    come at a higher rate the last one counts. So the memory is the same whatever the stream sends. With a target_fps
    each tick has the last frame at or before it; without one fps is the stream's own rate, and each tick has the
    nearest frame, which bears jitter.

    Args:
        preprocessing: what a clip is.
        fps: ticks in a second.

    Attributes:
        num_dropped: frames that were overwritten or cleared before a clip was taken whose span had them.
    """

    def __init__(self, preprocessing: Preprocessing, fps: float) -> None:
        self.num_frames, self.frame_stride = preprocessing.num_frames, preprocessing.frame_stride
        self.span = span(self.num_frames, self.frame_stride)
        self.fps = fps
        is_as_filmed = preprocessing.target_fps is None
        self._tolerance = 0.5 / fps if is_as_filmed else min(TIME_TOLERANCE, 0.25 / fps)
        self._max_gap = max(GAP_SECONDS, 3 / fps)
        self._ticks: deque[tuple[int, Tensor]] = deque()  # number of the frame, image; the newest last
        self._first_seconds = self._seconds = 0.0
        self._newest_tick = -1
        self._number = self._seen = -1  # of the newest frame, of the newest one that a clip has spanned
        self.num_dropped = 0

    def put(self, image: Tensor, seconds: float) -> None:
        """Takes the next frame; begins anew where the stream's time goes back or jumps ahead."""
        if not self._ticks or not 0 <= seconds - self._seconds <= self._max_gap:
            self.clear()
            self._first_seconds = seconds
        self._seconds = seconds
        self._number += 1
        tick = max(0, ceil((seconds - self._first_seconds - self._tolerance) * self.fps))
        if tick == self._newest_tick:  # until a later frame shows that this one was the last for it
            self._ticks.pop()
            self._newest_tick -= 1
        while self._newest_tick < tick - 1:
            self._append(self._ticks[-1])
        self._append((self._number, image))

    def _append(self, entry: tuple[int, Tensor]) -> None:
        self._ticks.append(entry)
        self._newest_tick += 1
        if len(self._ticks) > self.span:
            number, _ = self._ticks.popleft()
            self.num_dropped += self._seen < number != self._ticks[0][0]

    def clear(self) -> None:
        """Forgets all frames."""
        self.num_dropped += len({number for number, _ in self._ticks if number > self._seen})
        self._ticks.clear()
        self._newest_tick = -1

    @property
    def is_full(self) -> bool:
        """Whether a clip can be taken."""
        return len(self._ticks) == self.span

    def clip(self) -> list[Tensor]:
        """The T images of the newest clip; the ring must be full."""
        self._seen = self._number
        places = range(0, self.span, self.frame_stride) if self.frame_stride else [0] * self.num_frames
        return [self._ticks[place][1] for place in places]
