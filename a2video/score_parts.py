"""A test that is interrupted goes on: what is scored goes to small files, and the next test takes it from there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from a2video.errors import InputError
from a2video.provenance import commit, common_folder, file_sha256, hardware, list_sha256, versions
from a2video.score_files import read_rows, write_rows
from a2video.scores import VIDEO, About, Rows, join

if TYPE_CHECKING:
    from a2video.datamodule import VideoDataModule
    from a2video.recognizer import Recognizer

WRITE_EVERY_SECONDS = 30.0  # what a killed test loses at most, beside the video it was at
MAY_DIFFER = ("checkpoint", "list", "commit", "hardware")  # between the parts of one test
DECISIVE_PACKAGES = ("a2video", "torch", "av")


def about_test(trainer: pl.Trainer, data: VideoDataModule, name: str, checkpoint: str) -> About:
    """What is to make the scores of data.videos[name]."""
    videos, reader = data.videos[name], data.reader
    return About(
        protocol=data.protocol.name,
        average=data.protocol.average,
        center_view=data.protocol.centre_view,
        seed=data.seed,
        preprocessing=data.preprocessing.to_dict(),
        checkpoint=checkpoint,
        checkpoint_sha256=file_sha256(checkpoint),
        list=videos.source,
        folder=common_folder(videos.paths),
        list_sha256=list_sha256(videos.paths, videos.labels, videos.class_names),
        reader=f"{reader.__module__}.{reader.__qualname__}",
        precision=str(trainer.precision),
        channels_last=cast("Recognizer", trainer.lightning_module).channels_last,
        test_batch_size=data.test_batch_size,
        versions=versions(),
        commit=commit(),
        hardware=hardware(trainer.strategy.root_device),
    )


class ScoreParts(pl.Callback):
    """Writes what each rank has scored to scores.parts/, and lets a test begin where an interrupted one stopped.

    The first rank looks for what is there of the same test (scores.parquet too) and tells the others, so that parts
    matter on its disk only and the numbers of ranks may differ. What is found is not read again; videos that failed
    are tried again. A damaged file is said and left out.

    Args:
        folder: of the outputs.
        checkpoint: that is tested.
        overwrite: begin anew, whatever is there.

    Attributes:
        about: on the first rank, from `setup` on: the test, with the hardware and commits of all its parts.
    """

    about: About
    _about: About  # of this run

    def __init__(self, folder: Path, checkpoint: str, overwrite: bool = False) -> None:
        self.folder = folder
        self.parts = folder / "scores.parts"
        self.checkpoint = checkpoint
        self.overwrite = overwrite
        self._pending: list[Rows] = []
        self._last_write = time.monotonic()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Agrees with the other ranks on the videos that are scored already.

        Raises:
            InputError: the folder holds another test.
        """
        data = cast("VideoDataModule", trainer.datamodule)  # type: ignore[attr-defined]
        agreed: Any = None
        if trainer.is_global_zero:
            self._about = self.about = about_test(trainer, data, "test", self.checkpoint)
            try:
                rows = self._resume(len(data.videos["test"]))
            except InputError as error:  # the other ranks must hear of it
                agreed = str(error), [], self._about
            else:
                cast("Recognizer", pl_module).resumed = rows
                agreed = "", sorted(set(rows.views[:, VIDEO].tolist())), self._about
        refusal, scored, self._about = trainer.strategy.broadcast(agreed)
        if refusal:
            raise InputError(refusal)
        data.scored = frozenset(scored)
        if scored:
            rank_zero_info(
                f"{len(scored)} of {len(data.videos['test'])} videos were scored by this test before it was run again: "
                f"only the others are read (--overwrite=true reads all)"
            )

    def _resume(self, num_videos: int) -> Rows:
        """What is there of this test."""
        about = self.about
        results = [self.folder / "results.json", self.folder / "scores.parquet"]
        if self.overwrite:
            self.remove()
            for path in results:
                path.unlink(missing_ok=True)
        found: list[Rows] = []
        for path, theirs, rows in self._tests(results):
            difference = _difference(about, theirs)
            is_same_file = (theirs.get("checkpoint"), theirs.get("list")) == (about.checkpoint, about.list)
            if difference == "checkpoint_sha256" and is_same_file:
                rank_zero_info(f"{path} is of what {about.checkpoint} was before, and is replaced")
                path.unlink(missing_ok=True)
            elif difference is not None:
                raise InputError(
                    f"{path} holds the test of {theirs.get('checkpoint')} on {theirs.get('list')} with another "
                    f"{difference.removesuffix('_sha256')}: choose another --trainer.default_root_dir, or replace it "
                    "by --overwrite=true"
                )
            elif rows is not None and (not len(rows) or rows.views[:, VIDEO].max() < num_videos):
                self.about = self.about.and_also(About.from_dict(theirs))
                found.append(rows)
        return join(found).complete() if found else Rows.none(0)

    def _tests(self, results: list[Path]) -> Iterator[tuple[Path, dict[str, Any], Rows | None]]:
        """Each file of a test in the folder, what made it, and the rows if it has some."""
        for path in [*results, *sorted(self.parts.glob("*.parquet"))]:
            if not path.is_file():
                continue
            if path.suffix == ".json":
                with suppress(OSError, ValueError):
                    theirs = json.loads(path.read_text(encoding="utf-8"))
                    yield path, theirs if isinstance(theirs, dict) else {}, None
                continue
            try:
                rows, content = read_rows(path)
                theirs = About.from_dict(content.get("about")).to_dict()
            except (InputError, ValueError) as error:
                if path in results:
                    raise InputError(
                        f"{path} cannot be gone on with ({error}): choose another --trainer.default_root_dir, or "
                        "replace it by --overwrite=true"
                    ) from error
                rank_zero_info(f"{error}: its videos are scored again")
                path.unlink(missing_ok=True)
            else:
                yield path, theirs, rows

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Writes now and then."""
        self._pending.append(outputs["rows"])
        if time.monotonic() - self._last_write >= WRITE_EVERY_SECONDS:
            self._write()

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the rest: the ranks are still to come together."""
        self._write()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Writes what there is, as after Ctrl-C."""
        self._write()

    def _write(self) -> None:
        """A test does without its parts, and other ranks do not wait for one that has failed to write them."""
        self._last_write = time.monotonic()
        pending, self._pending = [rows for rows in self._pending if len(rows)], []
        if not pending:
            return
        try:
            write_rows(self.parts / f"{uuid4().hex}.parquet", join(pending), {"about": self._about.to_dict()})
        except InputError as error:
            print(f"If this test is interrupted, some videos will be scored again: {error}")

    def remove(self) -> None:
        """Removes the parts: the whole is written."""
        if self.parts.is_dir():
            shutil.rmtree(self.parts)


def _difference(ours: About, theirs: dict[str, Any]) -> str | None:
    """What makes it another test; None if it is the same."""
    for name, value in asdict(ours).items():
        other = theirs.get(name)
        if name == "versions":
            others = other if isinstance(other, dict) else {}
            value, other = ([each.get(package) for package in DECISIVE_PACKAGES] for each in (value, others))
        if name not in MAY_DIFFER and value != other:
            return name
    return None
