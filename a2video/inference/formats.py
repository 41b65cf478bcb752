"""How results read: lines for people, JSON, CSV, subtitles."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from a2video.inference.classifier import Prediction
from a2video.inference.streams import LivePrediction
from a2video.inference.timeline import Timeline
from a2video.printable import shown


class Format(ABC):
    """How a result becomes text. Every text ends its last line, so that a cut one shows."""

    is_table = False
    header = ""

    @abstractmethod
    def prediction(self, prediction: Prediction, model: str) -> str:
        """Of one video."""

    @abstractmethod
    def timeline(self, timeline: Timeline, model: str) -> str:
        """Of one video."""

    @abstractmethod
    def error(self, path: str, message: str, model: str) -> str:
        """Of a video that could not be read."""

    def rows(self, lines: Iterator[str]) -> Iterator[tuple[str, str, bool]]:
        """Path, model and whether it is an error, of each result in lines that this has written.

        Raises:
            ValueError: it has not.
        """
        raise NotImplementedError

    def may_begin_with(self, line: bytes, is_first: bool) -> bool:
        """Whether a line that was cut off can be the beginning of one of ours; the file's first line or a later one."""
        raise NotImplementedError


class Text(Format):
    """For people."""

    def __init__(self, top: int | None) -> None:
        self.top = top or 5

    def prediction(self, prediction: Prediction, model: str) -> str:
        """The most probable classes."""
        lines = [f"  {probability:7.2%}  {shown(label)}\n" for label, probability in prediction.ranked[: self.top]]
        return "".join([f"{shown(prediction.path)}\n", *lines])

    def timeline(self, timeline: Timeline, model: str) -> str:
        """A line for each segment."""
        lines = [
            f"  {clock(s.start_seconds)} - {clock(s.end_seconds)}  {s.confidence:7.2%}  {shown(s.label)}\n"
            for s in timeline.segments
        ]
        return "".join([f"{shown(timeline.path)}\n", *lines])

    def error(self, path: str, message: str, model: str) -> str:
        """Nothing: stderr has it."""
        return ""


class Json(Format):
    """One JSON object a line.

    Args:
        top: classes of a prediction; all when None.
        along_time: whether timelines are written, not predictions.
    """

    def __init__(self, top: int | None, along_time: bool = False) -> None:
        self.top = top
        self.key = "segments" if along_time else "predictions"

    def prediction(self, prediction: Prediction, model: str) -> str:
        """All classes of the video, or the first `top`; the best one of each clip."""
        clips = [
            {
                "start_seconds": round(clip.start_seconds, 4),
                "end_seconds": round(clip.end_seconds, 4),
                "label": clip.ranked[0][0],
                "probability": clip.ranked[0][1],
            }
            for clip in prediction.clips
        ]
        classes = [{"label": label, "probability": p} for label, p in prediction.ranked[: self.top]]
        return _line(prediction.path, model, predictions=classes, clips=clips)

    def timeline(self, timeline: Timeline, model: str) -> str:
        """Its segments, and the best class of each window."""
        segments = [
            {
                "start_seconds": round(s.start_seconds, 4),
                "end_seconds": round(s.end_seconds, 4),
                "label": s.label,
                "confidence": s.confidence,
            }
            for s in timeline.segments
        ]
        windows = [
            {
                "start_seconds": round(float(start), 4),
                "end_seconds": round(float(end), 4),
                "label": timeline.class_names[probs.argmax()],
                "probability": float(probs.max()),
            }
            for (start, end), probs in zip(timeline.windows, timeline.window_probs, strict=True)
        ]
        duration = round(float(timeline.edges[-1]), 4)
        return _line(timeline.path, model, duration_seconds=duration, segments=segments, windows=windows)

    def error(self, path: str, message: str, model: str) -> str:
        """The message."""
        return _line(path, model, error=message)

    def may_begin_with(self, line: bytes, is_first: bool) -> bool:
        """See Format."""
        start = b'{"path": "'
        return line.startswith(start[: len(line)])

    def rows(self, lines: Iterator[str]) -> Iterator[tuple[str, str, bool]]:
        """See Format."""
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                if self.key not in row and "error" not in row:
                    raise KeyError(self.key)
                yield str(row["path"]), str(row["model"]), "error" in row
            except (ValueError, KeyError, TypeError):
                expected = f"a JSON object with path, {self.key} or error, and model"
                raise ValueError(f"line {number}: expected {expected}, found {line[:80]!r}") from None


class Csv(Format):
    """A table: a row a video with its `top` classes."""

    is_table = True

    def __init__(self, top: int | None) -> None:
        self.top = top or 5
        names = [name for n in range(1, self.top + 1) for name in (f"label_{n}", f"probability_{n}")]
        self.columns = ("path", *names, "error", "model")
        self.header = _row(self.columns)

    def prediction(self, prediction: Prediction, model: str) -> str:
        """One row; empty fields where there are fewer classes."""
        cells: list[Any] = [cell for label, p in prediction.ranked[: self.top] for cell in (label, f"{p:.6f}")]
        cells += [""] * (2 * self.top - len(cells))
        return _row([prediction.path, *cells, "", model])

    def timeline(self, timeline: Timeline, model: str) -> str:
        """See SegmentCsv."""
        raise NotImplementedError

    def error(self, path: str, message: str, model: str) -> str:
        """A row with the message."""
        return _row([path, *[""] * (len(self.columns) - 3), message, model])

    def may_begin_with(self, line: bytes, is_first: bool) -> bool:
        """See Format."""
        return not is_first or self.header.encode().startswith(line)

    def rows(self, lines: Iterator[str]) -> Iterator[tuple[str, str, bool]]:
        """See Format."""
        rows = csv.reader(lines, strict=True)
        try:
            header = next(rows)
            if header != list(self.columns):
                raise ValueError(f"line 1: expected {','.join(self.columns)}, found {','.join(header)[:200]!r}")
            for row in rows:
                if len(row) != len(self.columns):
                    found = ",".join(row)[:80]
                    raise ValueError(f"line {rows.line_num}: expected {len(self.columns)} fields, found {found!r}")
                yield row[0], row[-1], bool(row[-2])
        except csv.Error as error:
            raise ValueError(f"line {rows.line_num}: {error}") from None


class SegmentCsv(Csv):
    """A table of timelines: a row a segment."""

    def __init__(self, top: int | None = None) -> None:
        self.columns = ("path", "start_seconds", "end_seconds", "label", "confidence", "error", "model")
        self.header = _row(self.columns)

    def timeline(self, timeline: Timeline, model: str) -> str:
        """Its segments."""
        rows = [
            [timeline.path, f"{s.start_seconds:.3f}", f"{s.end_seconds:.3f}", s.label, f"{s.confidence:.6f}", "", model]
            for s in timeline.segments
        ]
        return "".join(map(_row, rows))


def srt(timeline: Timeline) -> str:
    """The segments as SubRip subtitles, which players show over the video."""
    blocks = []
    for number, s in enumerate(timeline.segments, 1):
        label = " ".join(s.label.split())  # an empty line would end the block
        times = f"{srt_time(s.start_seconds)} --> {srt_time(s.end_seconds)}"
        blocks.append(f"{number}\n{times}\n{label} ({s.confidence:.0%})\n")
    return "\n".join(blocks)


def live_text(prediction: LivePrediction, top: int | None) -> str:
    """A line with the clock, the most probable classes, and how late the answer is."""
    classes = "  ".join(f"{probability:6.1%} {shown(label)}" for label, probability in prediction.ranked[: top or 1])
    late = f"{1000 * prediction.latency_seconds:.0f} ms late, {prediction.num_dropped} frames in no clip"
    return f"{prediction.time:%H:%M:%S}  {classes}  ({late})"


def live_json(prediction: LivePrediction, top: int | None) -> str:
    """A JSON object."""
    row = {
        "time": prediction.time.isoformat(timespec="milliseconds"),
        "seconds": round(prediction.seconds, 3),
        "predictions": [{"label": label, "probability": p} for label, p in prediction.ranked[:top]],
        "latency_seconds": round(prediction.latency_seconds, 4),
        "num_dropped": prediction.num_dropped,
    }
    return json.dumps(row, ensure_ascii=False)


def clock(seconds: float) -> str:
    """1:02:03.4."""
    tenths = round(seconds * 10)
    return f"{tenths // 36_000}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"


def srt_time(seconds: float) -> str:
    """01:02:03,456."""
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"


def _line(path: str, model: str, **fields: Any) -> str:
    row = {"path": path, **fields, **({"model": model} if model else {})}
    return json.dumps(row, ensure_ascii=False) + "\n"


def one_line(text: str) -> str:
    r"""The same with line ends as \n and \r."""
    return text.replace("\n", r"\n").replace("\r", r"\r")


def _row(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([one_line(str(cell)) for cell in cells])
    return text.getvalue()
