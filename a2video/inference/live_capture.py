"""Keeps the newest frames of a camera or stream in a thread of its own, which connects again when it must."""

from __future__ import annotations

import atexit
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from weakref import WeakSet

import av.container.core
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from a2video.data.pyav_reader import upright_rgb
from a2video.data.readers import MAX_PIXELS
from a2video.data.transforms import EvenCrops, Preprocessing
from a2video.errors import InputError
from a2video.inference.live_frames import FrameRing, RateMeter
from a2video.inference.live_source import Connection, ConnectionLostError, LiveFrame, masked

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.5, 10.0  # before connecting again; doubles with each failure
CLOSE_SECONDS = 1.5  # FFmpeg cannot be interrupted while it waits for data; the process must not wait for it
WAKE_SECONDS = 0.5  # some systems deliver Ctrl-C only between waits


@dataclass(frozen=True)
class LiveClip:
    """The newest clip of a stream.

    Attributes:
        pixels: uint8 (1, 3, T, crop_size, crop_size), the centre.
        seconds: of its newest frame, as the stream counts.
        arrival: of its newest frame, by time.monotonic().
    """

    pixels: Tensor
    seconds: float
    arrival: float


class Capture:
    """Connects on entering and hangs up on leaving.

    Args:
        source: a camera's number or an address.
        preprocessing: what a clip is; its views are not used, only the centre is.
        stall_seconds: without an answer or a frame before the connection counts as lost.
        say: gets a sentence whenever the connection is made, lost and made again.

    Attributes:
        num_frames: received.
        num_damaged: packets and frames left out, for they were damaged.
        num_reconnects: after a loss.
    """

    def __init__(
        self, source: str, preprocessing: Preprocessing, stall_seconds: float, say: Callable[[str], None]
    ) -> None:
        self.source, self.name = source, masked(source)
        self.preprocessing = preprocessing
        self.stall_seconds = stall_seconds
        self.say = say
        self.num_frames = self.num_damaged = self.num_reconnects = 0
        self._num_dropped = 0  # from rings that are gone
        self._transform = EvenCrops(preprocessing.short_side, preprocessing.crop_size)
        self._reformatter = VideoReformatter()
        self._ring: FrameRing | None = None
        self._newest: tuple[float, float] | None = None  # seconds and arrival of the newest frame in no clip yet
        self._lost_at: float | None = None
        self._error: BaseException | None = None
        self._is_over = False
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    @property
    def num_dropped(self) -> int:
        """Frames that were overwritten before a clip was taken whose span had them."""
        with self._changed:
            return self._num_dropped + (self._ring.num_dropped if self._ring else 0)

    def __enter__(self) -> Capture:
        """Starts the thread."""
        _started.add(self)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the thread; one that waits for data is left to its time-out, or to the end of the process."""
        self._stopping.set()
        self._thread.join(CLOSE_SECONDS)

    def next_clip(self, not_before: float, deadline: float) -> LiveClip | None:
        """Waits for a clip whose newest frame was in none before; None at the deadline or the end of a file.

        Args:
            not_before: by time.monotonic(); the last clip of a file comes at once.
            deadline: likewise.

        Raises:
            InputError: the first connection fails.
        """
        with self._changed:
            while (now := time.monotonic()) < deadline:
                is_due = now >= not_before or self._is_over
                if is_due and self._newest and self._ring and self._ring.is_full:
                    newest, self._newest = self._newest, None
                    images = self._ring.clip()
                    break
                if self._error is not None:
                    raise self._error
                if self._is_over:
                    return None
                self._changed.wait(min((deadline if is_due else not_before) - now, WAKE_SECONDS))
            else:
                return None
        return LiveClip(torch.stack(images, dim=1)[None], *newest)

    def _run(self) -> None:
        delay = 0.0
        try:
            while not self._stopping.wait(delay):
                num_before = self.num_frames
                try:
                    self._connect()
                    return
                except (ConnectionLostError, InputError) as error:
                    if self._stopping.is_set():
                        return
                    if self.num_frames == 0:
                        raise
                    is_new = self.num_frames > num_before
                    delay = FIRST_DELAY_SECONDS if is_new else min(2 * delay, LAST_DELAY_SECONDS)
                    if is_new:
                        self._lose(error)
        except ConnectionLostError as error:
            expected = f"no frame that can be decoded, of at most {MAX_PIXELS:,} pixels"
            self._error = InputError(f"{self.name}: has sent {expected} ({error}); check the address")
        except BaseException as error:  # whoever waits for clips raises it
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _connect(self) -> None:
        """Reads one connection until it is told to stop, or to the end of a file.

        Raises:
            InputError: there is no connection.
            ConnectionLostError: it is lost.
        """
        connection = Connection(self.source, self.stall_seconds)
        rate = RateMeter(connection.stated_fps)
        first: LiveFrame | None = None
        try:
            for frame in connection.frames():
                if first is None:
                    first = frame
                    if self.num_frames:
                        self._find_again()
                if connection.is_file:  # comes as fast as it is read: it is shown at its own speed
                    ahead = (frame.seconds - first.seconds) - (time.monotonic() - first.arrival)
                    self._stopping.wait(min(max(ahead, 0.0), self.stall_seconds))
                    frame = dataclasses.replace(frame, arrival=time.monotonic())
                if self._stopping.is_set():
                    return
                self._take(frame, rate)
        finally:
            connection.close()
            self.num_damaged += connection.num_damaged

    def _take(self, frame: LiveFrame, rate: RateMeter) -> None:
        self.num_frames += 1 + frame.num_skipped
        if frame.num_skipped:
            self._num_dropped += frame.num_skipped
            size = f"{frame.picture.width} x {frame.picture.height} pixels"
            skipped = f"{frame.num_skipped} frames were skipped; a smaller picture would help"
            self.say(f"{self.name}: decoding cannot keep up with {size}: {skipped}")
        rate.add(frame.seconds, is_after_gap=frame.num_skipped > 0)
        fps = self.preprocessing.target_fps or rate.fps
        if self._ring is None and fps is not None:
            self._begin(fps)
        if self._ring is None:
            return
        rgb = np.ascontiguousarray(upright_rgb(frame.picture, self._reformatter))
        cut = self._transform.draw(rgb.shape[0], rgb.shape[1], np.random.default_rng(0))  # nothing here is random
        image = cut.crops(cut.resize(rgb[None])[0])[0].clone()  # not the whole resized frame
        with self._changed:
            self._ring.put(image, frame.seconds)
            self._newest = (frame.seconds, frame.arrival)
            self._changed.notify_all()

    def _begin(self, fps: float) -> None:
        self._ring = FrameRing(self.preprocessing, fps)
        if self.num_reconnects == 0:
            needed = self._ring.span / fps
            self.say(f"{self.name}: {fps:.5g} frames a second; the first clip needs {needed:.1f} seconds of video")

    def _lose(self, error: ConnectionLostError | InputError) -> None:
        self._lost_at = time.monotonic()
        with self._changed:  # no clip spans two connections
            if self._ring is not None:
                self._ring.clear()
                self._num_dropped += self._ring.num_dropped
            self._ring = self._newest = None
        self.say(f"{self.name}: the connection is lost ({error}); trying again until it is back")

    def _find_again(self) -> None:
        assert self._lost_at is not None
        self.num_reconnects += 1
        self.say(f"{self.name}: connected again after {time.monotonic() - self._lost_at:.1f} seconds")


def _end_all() -> None:
    """Ends the threads that still wait in FFmpeg when the process ends.

    While FFmpeg waits, PyAV looks at the clock for it, in Python: once that is gone the process may crash. A clock that
    runs past every time-out ends the waits; nothing else can, and no container needs a real clock any more.
    """
    waiting = [capture for capture in _started if capture._thread.is_alive()]
    for capture in waiting:
        capture._stopping.set()
    if waiting:
        vars(av.container.core)["time"] = SimpleNamespace(monotonic=itertools.count(1e18, 1e9).__next__)
    for capture in waiting:
        capture._thread.join(CLOSE_SECONDS)


_started: WeakSet[Capture] = WeakSet()
atexit.register(_end_all)
