"""What a test has seen: the logits of each (video, view) exactly once, and everything that made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from a2video.data.protocols import Average
from a2video.data.views import EXTRA_CLIP

IntArray: TypeAlias = NDArray[np.int32]
FloatArray: TypeAlias = NDArray[np.float32]

# Of each scored view: the video's place in the list and its label (-1: none); the view's number among the video's
# num_views; the rest as in a2video.data.views.View.
COLUMNS = ("video", "label", "view", "num_views", "clip", "crop", "first_frame", "last_frame")
VIDEO, LABEL, VIEW, NUM_VIEWS, CLIP, CROP, FIRST, LAST = range(len(COLUMNS))
FUSED_CLIP = -2  # clip of a row that stands for a video's views in several files, see rescore.fuse


@dataclass(frozen=True)
class Rows:
    """Scored views.

    Attributes:
        views: int32 (N, len(COLUMNS)).
        logits: float32 (N, K).
    """

    views: IntArray
    logits: FloatArray

    @classmethod
    def none(cls, num_classes: int) -> Self:
        """No views of `num_classes` logits."""
        return cls(np.empty((0, len(COLUMNS)), np.int32), np.empty((0, num_classes), np.float32))

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, rows: Any) -> Rows:
        return Rows(self.views[rows], self.logits[rows])

    @cached_property
    def is_own(self) -> NDArray[np.bool_]:
        """Which views (N,) are averaged: all but the extra centre views."""
        own: NDArray[np.bool_] = self.views[:, CLIP] != EXTRA_CLIP
        return own

    def once(self) -> Rows:
        """Sorted by video and view, each once."""
        order = np.lexsort((self.views[:, VIEW], self.views[:, VIDEO]))
        keys = self.views[order][:, [VIDEO, VIEW]]
        is_new = np.append(True, (keys[1:] != keys[:-1]).any(1))[: len(keys)]
        if len(order) == is_new.sum() and (order[1:] > order[:-1]).all():
            return self  # of a large test there is no second copy
        return self[order[is_new]]

    def complete(self) -> Rows:
        """The views, sorted, of the videos that have all of theirs."""
        rows = self.once()
        videos, places, counts = np.unique(rows.views[:, VIDEO], return_inverse=True, return_counts=True)
        wanted = np.zeros(len(videos), np.int64)
        np.maximum.at(wanted, places, rows.views[:, NUM_VIEWS])
        is_whole = (counts == wanted)[places]
        return rows if is_whole.all() else rows[is_whole]


def join(parts: Sequence[Rows]) -> Rows:
    """All rows of the parts, of which there is at least one."""
    if len(parts) == 1:
        return parts[0]
    return Rows(np.concatenate([part.views for part in parts]), np.concatenate([part.logits for part in parts]))


@dataclass(frozen=True)
class About:
    """What made the logits; all plain data.

    Attributes:
        protocol: the views and how they are averaged, in one line.
        average: of a video's views: "probs" or "logits".
        center_view: the number of the one centre view, -1 for the last; None if it was not scored.
        seed: of random clips and crops.
        preprocessing: see Preprocessing.to_dict.
        checkpoint: the file with the weights.
        checkpoint_sha256: of its content.
        list: the videos' file or folder.
        folder: that all listed videos have in common.
        list_sha256: of the videos' paths from there on, with their labels.
        reader: import path of what decoded the videos.
        precision: of the network's arithmetic, as Lightning calls it.
        channels_last: the memory layout.
        test_batch_size: clips that went through the network together.
        versions: of python and the packages that matter.
        commit: of the git checkout that a2video ran from; None if it was installed.
        hardware: name of the GPU or CPU.
    """

    protocol: str
    average: Average
    center_view: int | None
    seed: int
    preprocessing: dict[str, Any]
    checkpoint: str
    checkpoint_sha256: str
    list: str
    folder: str
    list_sha256: str
    reader: str
    precision: str
    channels_last: bool
    test_batch_size: int
    versions: dict[str, str]
    commit: str | None
    hardware: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """The inverse of to_dict.

        Raises:
            ValueError: a value is missing, unknown or of another type.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise ValueError(f"expected the keys {', '.join(sorted(names))}")
        kinds: dict[str, Any] = {"preprocessing": dict, "versions": dict, "commit": str | None, "seed": int}
        kinds |= {"center_view": int | None, "channels_last": bool, "test_batch_size": int}
        for name, value in values.items():
            if not isinstance(value, kinds.get(name, str)):
                raise ValueError(f"{name} is {value!r}")
        if values["average"] not in get_args(Average):
            raise ValueError(f"average is {values['average']!r}, neither probs nor logits")
        return cls(**values)

    def and_also(self, other: About) -> About:
        """The same test, done in part on other hardware or from another commit."""
        joined: dict[str, Any] = {}
        for name in ("commit", "hardware"):
            values = {value for one in (self, other) for value in (getattr(one, name) or "").split(" and ") if value}
            joined[name] = " and ".join(sorted(values)) or None
        return replace(self, **joined)


@dataclass(frozen=True)
class Scores:
    """The scored views of a list of videos.

    Attributes:
        about: what made them.
        class_names: in the order of the logits.
        paths: of every listed video.
        labels: one each; -1 where there is none.
        rows: only of videos that have all views of the protocol, sorted by video and view.
        unscored: why each of the other videos has none, by its place in the list.
    """

    about: About
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    rows: Rows
    unscored: dict[int, str]

    @classmethod
    def of(
        cls,
        about: About,
        class_names: Sequence[str],
        paths: Sequence[str],
        labels: Sequence[int],
        rows: Rows,
        failed: dict[int, str],
    ) -> Self:
        """Sorts the rows, and leaves out those of videos that lack some of their views.

        Args:
            about: see above.
            class_names: likewise.
            paths: likewise.
            labels: likewise.
            rows: in any order.
            failed: why videos could not be read.
        """
        whole = rows.complete()
        scored = set(whole.views[:, VIDEO].tolist())
        unscored = {}
        for video in set(range(len(paths))) - scored:
            views = rows.views[rows.views[:, VIDEO] == video]
            reason = "was not tested" if len(views) == 0 else f"has {len(views)} of its {views[0, NUM_VIEWS]} views"
            unscored[video] = failed.get(video, f"{paths[video]}: {reason}")
        return cls(about, tuple(class_names), tuple(paths), tuple(labels), whole, dict(sorted(unscored.items())))

    @cached_property
    def scored(self) -> IntArray:
        """Places in the list of the scored videos, rising."""
        return np.unique(self.rows.views[:, VIDEO])

    @cached_property
    def scored_labels(self) -> IntArray:
        """Their labels."""
        return np.array(self.labels, np.int32)[self.scored]

    @property
    def coverage(self) -> float:
        """The share of the listed videos that were scored."""
        return len(self.scored) / len(self.paths)
