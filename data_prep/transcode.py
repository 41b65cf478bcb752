"""Write a list of videos again, smaller and with regular keyframes, so that clips decode quickly: one command.

    python data_prep/transcode.py --list train.csv --out small --short-side 256 --gop 12

writes the videos under `small/` in the folders they have now, `small/list.csv` with their labels and `small/failed.csv`
(path, reason). Nothing is there that was not decoded again and compared, frame by frame. Run it again after it was
stopped, or with more videos: what is finished stays. The sources are never changed.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common import (
    Listed,
    absolute,
    add_common_options,
    make_folder,
    read_list,
    reason_of,
    run_program,
    why_unusable,
    write_list,
    write_reasons,
)
from encoders import SUFFIXES, Settings, check_settings
from jobs import Failure, run_jobs
from reencode import Job, reencode, unfinished_path
from tqdm import tqdm

from a2video.errors import InputError


@dataclass(frozen=True)
class Stamp:
    """What tells that a source is the same file as before: bytes, and nanoseconds of its last change."""

    size: int
    mtime: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Of the file as it is now."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


class Record:
    """Which outputs are finished and of which sources, kept in the output folder.

    Raises:
        InputError: the folder was written with other settings, or the record is damaged.
    """

    def __init__(self, out: Path, settings: Settings) -> None:
        self._out = out
        self._table = sqlite3.connect(out / "transcode.sqlite")
        try:
            rows = self._begin(settings)
        except sqlite3.DatabaseError as error:
            self._table.close()
            raise InputError(
                f"{out / 'transcode.sqlite'} is no record of finished videos ({error}): delete it, and all are written "
                "again"
            ) from error
        self._done = {name: (Stamp(size, mtime), written) for name, size, mtime, written in rows}

    def _begin(self, settings: Settings) -> list[tuple[str, int, int, int]]:
        """The rows of what is finished; refuses other settings than theirs."""
        with self._table:
            self._table.execute("CREATE TABLE IF NOT EXISTS settings (text TEXT)")
            self._table.execute(
                "CREATE TABLE IF NOT EXISTS done (name TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, written INTEGER)"
            )
            rows = self._table.execute("SELECT name, size, mtime, written FROM done").fetchall()
            before = self._table.execute("SELECT text FROM settings").fetchone()
            if before is not None and rows:
                _refuse_others(self._out, json.loads(before[0]), json.loads(json.dumps(asdict(settings))))
            self._table.execute("DELETE FROM settings")
            self._table.execute("INSERT INTO settings VALUES (?)", (json.dumps(asdict(settings)),))
        return rows

    def has(self, job: Job, stamp: Stamp) -> bool:
        """Whether the target is there, as it was written from this very source."""
        known = self._done.get(self._name(job))
        return known is not None and job.target.is_file() and known == (stamp, job.target.stat().st_size)

    def add(self, job: Job, stamp: Stamp) -> None:
        """Notes a finished target."""
        row = (self._name(job), stamp.size, stamp.mtime, job.target.stat().st_size)
        with self._table:
            self._table.execute("INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?)", row)

    def close(self) -> None:
        """Releases the file."""
        self._table.close()

    def _name(self, job: Job) -> str:
        return job.target.relative_to(self._out).as_posix()


def _refuse_others(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changes = [f"{name} {before.get(name)}, now {now[name]}" for name in now if before.get(name) != now[name]]
    if changes:
        raise InputError(f"{out} was written with {' and '.join(changes)}: choose another --out, or delete that folder")


def plan(videos: Sequence[Listed], out: Path, suffix: str) -> list[Job]:
    """Where each video goes: the path that names it in the list, with another suffix.

    Videos that differ in nothing but the suffix keep theirs: `a.avi` and `a.mp4` become `a.avi.mp4` and `a.mp4.mp4`.
    A video that does not lie under the list's root goes to `outside/` and its absolute path.

    Raises:
        InputError: two videos would get one name, or an output would replace a source.
    """
    names = [Path(video.name) for video in videos]
    names = [Path("outside", *name.parts[1:]) if name.is_absolute() else name for name in names]
    shared = Counter(name.with_suffix("") for name in names)
    jobs: list[Job] = []
    owner: dict[Path, Path] = {}
    for video, name in zip(videos, names, strict=True):
        is_shared = shared[name.with_suffix("")] > 1
        target = out / (name.with_name(name.name + suffix) if is_shared else name.with_suffix(suffix))
        other = owner.setdefault(target, video.path)
        if len(jobs) + 1 > len(owner):
            raise InputError(f"{other} and {video.path} would both become {target}: rename one, or list it only once")
        jobs.append(Job(video.path, target))
    for video in videos:
        if video.path in owner:
            raise InputError(f"{video.path} lies where an output would go: choose another --out")
    return jobs


def transcode(given: argparse.Namespace, settings: Settings) -> int:
    """Does all the work; returns the number of failures. Raises InputError."""
    make_folder(given.out, given.list)
    out = absolute(given.out)
    videos = read_list(given.list, given.root)
    jobs = plan(videos, out, settings.suffix)
    failures = {video.path: reason for video in videos if (reason := why_unusable(video.path))}
    stamps = {job: Stamp.of(job.source) for job in jobs if job.source not in failures}
    with closing(Record(out, settings)) as record:
        waiting = [job for job in stamps if not record.has(job, stamps[job])]
        if waiting:
            _check(out, settings)
        try:
            work = run_jobs(partial(reencode, settings=settings), waiting, given.workers, given.time_limit)
            with closing(work), tqdm(work, total=len(waiting), unit="video") as bar:
                for job, result in bar:
                    if isinstance(result, Failure):
                        failures[job.source] = reason_of(result.reason, job.source)
                        bar.set_postfix(failed=len(failures))
                    else:
                        record.add(job, stamps[job])
        finally:
            for job in waiting:
                unfinished_path(job.target).unlink(missing_ok=True)  # of processes that were killed
    _remove_empty_folders(out, [job.target for job in jobs if job.source in failures])
    names = {job.source: job.target.relative_to(out).as_posix() for job in jobs if job.source not in failures}
    write_list(out, videos, names)
    write_reasons(out / "failed.csv", videos, failures)
    kept = len(stamps) - len(waiting)
    print(
        f"Written {len(names) - kept}, kept {kept}, failed {len(failures)} of {len(videos)} videos: see "
        f"{out / 'list.csv'}{' and failed.csv' if failures else ''}"
    )
    return len(failures)


def _remove_empty_folders(out: Path, targets: Iterable[Path]) -> None:
    """Those made for videos that failed: an empty folder would look like a class without videos."""
    for target in targets:
        for folder in target.parents:
            if folder == out or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def _check(out: Path, settings: Settings) -> None:
    """Raises InputError if the settings do not work; in a process of its own, as encoders may crash."""
    for _, result in run_jobs(partial(check_settings, settings=settings), [out], 1, 60):
        if isinstance(result, Failure):
            raise InputError(result.reason)


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Settings]:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write videos again: smaller, with regular keyframes, without sound.")
    add_common_options(parser, time_limit_seconds=600)
    parser.add_argument("--short-side", type=int, default=256, help="pixels; smaller videos keep their size (256)")
    parser.add_argument("--gop", type=int, default=12, help="frames from one keyframe to the next (12)")
    parser.add_argument(
        "--codec", default="libx264", help="FFmpeg's name of an encoder, e.g. libx265, libvpx-vp9, mpeg4"
    )
    parser.add_argument("--options", nargs="*", default=[], metavar="NAME=VALUE", help="of the encoder, e.g. crf=18")
    parser.add_argument("--pixel-format", default="yuv420p", help="FFmpeg's name (yuv420p)")
    parser.add_argument("--suffix", default=".mp4", choices=SUFFIXES, help="of the files, which chooses the container")
    given = parser.parse_args(arguments)
    if given.short_side < 16 or given.gop < 1:
        parser.error(
            f"expected --short-side of at least 16 and --gop of at least 1, found {given.short_side}, {given.gop}"
        )
    wrong = [option for option in given.options if not option.partition("=")[0] or "=" not in option]
    if wrong:
        parser.error(f"--options: expected NAME=VALUE, found {wrong[0]!r}")
    if any(option.startswith(("g=", "keyint_min=")) for option in given.options):
        parser.error("--options: the distance of keyframes is given with --gop")
    options = tuple(tuple(option.split("=", 1)) for option in given.options)
    return given, Settings(given.short_side, given.gop, given.codec, options, given.pixel_format, given.suffix)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; exit status 1 if some videos failed, 2 for wrong input."""
    given, settings = parse(arguments)
    os.environ.setdefault("SVT_LOG", "1")  # libsvtav1 says only what is wrong
    run_program(lambda: transcode(given, settings))


if __name__ == "__main__":
    main()
