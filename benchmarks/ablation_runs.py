"""Trainings and tests of ablation.py: what is run, and what has been run already."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TextIO

from ablation_networks import Network
from ablation_tables import Row, read_scores
from tqdm import tqdm

from a2video import cli, lightning_cli  # noqa: F401 (its handlers begin before output goes to files)


@dataclass(frozen=True)
class Run:
    """One training and its test: the folder they write to, the options of both, and those of the training alone."""

    folder: Path
    options: list[str]
    of_fit: list[str]

    @property
    def commands(self) -> list[list[str]]:
        """Arguments of `a2video`, one command after the other."""
        folder = ["--trainer.default_root_dir", str(self.folder)]
        return [
            ["fit", *self.options, *folder, *self.of_fit, "--overwrite", "true"],
            ["test", *self.options, *folder, "--ckpt_path", str(self.checkpoint)],
        ]

    @property
    def text(self) -> str:
        """The commands as one types them: what is kept of them in commands.txt."""
        return "".join(f"PYTHONPATH=benchmarks a2video {shlex.join(command)}\n" for command in self.commands)

    @property
    def checkpoint(self) -> Path:
        """The last weights."""
        return self.folder / "last.ckpt"

    @property
    def results(self) -> dict[str, Any]:
        """What its test wrote to results.json."""
        found: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return found

    def finish(self) -> None:
        """Runs both, unless that has been done since what they start from; RuntimeError with the cause if one fails."""
        results, record = self.folder / "results.json", self.folder / "commands.txt"
        starts = [Path(option).stat().st_mtime for option in self.of_fit if option.endswith(".ckpt")]
        if (
            results.exists()
            and record.exists()
            and record.read_text() == self.text
            and record.stat().st_mtime > max(starts, default=0)
        ):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (record, results, self.folder / "scores.parquet"):
            path.unlink(missing_ok=True)
        with output_to(self.folder / "log.txt") as log:
            for command in self.commands:
                try:
                    cli.main(command)
                except SystemExit as end:
                    if end.code:
                        log.seek(0)
                        last = (log.read().strip() or "without a word").splitlines()[-1]
                        raise RuntimeError(
                            f"{self.folder}: {command[0]} ended with status {end.code}: {last}"
                        ) from None
                except Exception as error:
                    raise RuntimeError(f"{self.folder}: {command[0]} failed") from error
        record.write_text(self.text)


@contextmanager
def output_to(path: Path) -> Iterator[TextIO]:
    """Lets a file have what is printed, and what Lightning logs, whose handlers keep the stream they began with."""
    handlers = [h for h in logging.getLogger("lightning.pytorch").handlers if isinstance(h, logging.StreamHandler)]
    with path.open("w+") as log, redirect_stdout(log), redirect_stderr(log):
        before = [handler.setStream(log) for handler in handlers]
        try:
            yield log
        finally:
            for handler, stream in zip(handlers, before, strict=True):
                handler.setStream(stream)


Runs = dict[Network, dict[int, Run]]  # by seed
OfFit = Callable[[Network, int], list[str]]  # options for a network and a seed


def pretrained(run: Run) -> list[str]:
    """Options of a training that starts from the weights of another."""
    return ["--model.pretrained", str(run.checkpoint)]


def plan(folder: Path, options: Mapping[Network, list[str]], num_seeds: Mapping[Network, int], of_fit: OfFit) -> Runs:
    """Runs for each network, seeds from 0 on, from the options of both of their commands and those of the training."""
    return {
        network: {
            seed: Run(
                folder / network.folder / str(seed),
                of_network,
                ["--seed_everything", str(seed), *of_fit(network, seed), *network.of_fit],
            )
            for seed in range(num_seeds[network])
        }
        for network, of_network in options.items()
    }


def finish_all(title: str, runs: Iterable[Run], pool: Executor) -> None:
    """Runs what is missing; when one fails the others go on, and its error comes last."""
    running = [pool.submit(Run.finish, run) for run in runs]
    for _ in tqdm(as_completed(running), desc=title, total=len(running), unit="run"):
        pass
    for run in running:
        run.result()


def seed_by_seed(runs: Runs) -> list[Run]:
    """So that all rows have as many seeds at any time."""
    of_rows = [list(of_row.values()) for of_row in runs.values()]
    return [run for of_seed in zip_longest(*of_rows) for run in of_seed if run is not None]


def rows_of(runs: Runs, groups: Mapping[str, Sequence[str]]) -> list[Row]:
    """What came of them, with the mean over each group of classes."""
    rows = []
    for network, of_row in runs.items():
        found = {seed: read_scores(run.folder, groups) for seed, run in of_row.items()}
        rows.append(Row(network.name, {name: {seed: of[name] for seed, of in found.items()} for name in found[0]}))
    return rows
