"""Whether the lists of an experiment can be used, and whether videos to test on are trained on."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from a2video.data.video_list import VideoList, read_class_names, read_video_list
from a2video.datamodule import VideoDataModule
from a2video.doctor_checks import Finding
from a2video.errors import InputError

NUM_NAMED = 3  # videos that a sentence names
FIRST_BYTES = 2**16  # that are compared before whole files are


def check_lists(data: VideoDataModule) -> tuple[list[Finding], dict[str, VideoList]]:
    """Findings, and the lists that could be read; videos that are missing are in them as missing."""
    findings, lists, names = [], {}, data.class_names
    try:
        names = names or (read_class_names(data.class_source) if data.class_source else ())
    except InputError as error:
        findings.append(Finding("error", f"the classes cannot be told: {error}"))
    for name in ("train", "val", "test"):
        if (source := getattr(data, f"{name}_list")) is None:
            continue
        try:
            lists[name] = listed = read_video_list(source, data.root, names, True, data.classes_of)
        except InputError as error:
            findings.append(Finding("error", f"data.{name}_list: {error}"))
            continue
        findings.append(_missing(name, listed, data.allow_missing))
        if len(set(listed.labels)) < len(listed.class_names):
            absent = [c for i, c in enumerate(listed.class_names) if i not in set(listed.labels)]
            text = f"data.{name}_list has no video of {len(absent)} classes, such as {absent[0]!r}"
            findings.append(Finding("warning" if name == "train" else "note", text))
    return [*findings, *check_overlap(lists)], lists


def _missing(name: str, listed: VideoList, is_allowed: bool) -> Finding:
    text = f"data.{name}_list: {len(listed)} videos of {len(set(listed.labels))} classes ({listed.source})"
    if not listed.missing:
        return Finding("ok", f"{text}, all present")
    some = _some(listed.paths[index] for index in listed.missing)
    advice = "Bring them, or take the others with --data.allow_missing true."
    text = f"{text}, of which {len(listed.missing)} are missing: {some}"
    return Finding("warning", text) if is_allowed else Finding("error", text, advice)


def check_overlap(lists: Mapping[str, VideoList]) -> list[Finding]:
    """Whether videos of the training list are also in the others, as the same file or with the same content."""
    if "train" not in lists:
        return []
    train = {os.path.realpath(path): path for path in lists["train"].present().paths}
    findings = []
    for name in ("val", "test"):
        if name not in lists:
            continue
        others = {os.path.realpath(path): path for path in lists[name].present().paths}
        same = [(path, path) for file, path in others.items() if file in train]
        rest = {file: path for file, path in others.items() if file not in train}
        same += [(rest[file], train[twin]) for file, twin in identical(rest, train)]
        if not same:
            text = f"no video of data.{name}_list is in data.train_list, not even under another name"
            findings.append(Finding("ok", text))
            continue
        some = _some(path if path == twin else f"{path} (the same content as {twin})" for path, twin in same)
        text = f"{len(same)} of {len(others)} videos of data.{name}_list are trained on: {some}"
        advice = f"Take them out of one of the two lists: {name} accuracy would be that of videos learnt by heart."
        findings.append(Finding("error", text, advice))
    return findings


def identical(ours: Iterable[str], theirs: Iterable[str]) -> list[tuple[str, str]]:
    """Each of ours with the first of theirs that has the same content: the same size, first bytes, and then bytes."""
    by_size = defaultdict(list)
    for path in theirs:
        by_size[_size(path)].append(path)

    @cache
    def first(path: str) -> bytes:
        with Path(path).open("rb") as file:
            return hashlib.blake2b(file.read(FIRST_BYTES)).digest()

    @cache
    def whole(path: str) -> bytes:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()

    def twins(path: str) -> Iterator[str]:
        likely = (twin for twin in by_size.get(_size(path), ()) if first(path) == first(twin))
        return (twin for twin in likely if whole(path) == whole(twin))

    return [(path, twin) for path in ours if (twin := next(twins(path), None)) is not None]


def _size(path: str) -> int:
    return Path(path).stat().st_size


def _some(paths: Iterable[str]) -> str:
    named = list(paths)
    more = f" and {len(named) - NUM_NAMED} more" if len(named) > NUM_NAMED else ""
    return ", ".join(named[:NUM_NAMED]) + more
