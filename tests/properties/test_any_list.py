"""Any list is either read as it was written, or refused in one sentence that names the file."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import example, given
from hypothesis import strategies as st

from a2video.data.folders import Folders
from a2video.data.kinetics import SPLIT_WORDS, parse_kinetics
from a2video.data.list_formats import SUFFIXES, Listing, parse_csv, parse_lines, split_line
from a2video.data.official_lists import parse_hmdb51, parse_ucf101
from a2video.data.video_list import listed_paths, read_class_names, read_video_list
from a2video.errors import InputError

# Letters that matter to one of the formats, and any others that a file may hold.
LETTERS = st.one_of(
    st.sampled_from(list(" \t,\"'\\#./:01-_ab\n\r\x0b\x0c\x1c\x85\u2028\xa0\ufeff\u202e²٣")),
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
)
WORDS = st.sampled_from(
    ["path", "label", "youtube_id", "time_start", "time_end", "split", "a.mp4", "b c.avi", "x/y.MP4"]
)
PIECES = st.one_of(WORDS, st.text(LETTERS, max_size=8), st.sampled_from(["\n", ",", " ", "1", '"']))
TEXTS = st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(LETTERS, max_size=60))
# One line of a name that no format strips, splits or takes for something else.
PLAIN = st.text(st.characters(categories=["L", "Nd", "S"], include_characters=" ,.'()&"), min_size=1, max_size=12).map(
    str.strip
)
NAMES = PLAIN.filter(lambda name: name and not name[0].isdigit())
PATHS = st.tuples(NAMES, st.sampled_from(sorted(SUFFIXES))).map("".join)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def check_refusal(error: InputError, *files: Path) -> None:
    sentence = str(error)
    assert any(str(file) in sentence for file in files), sentence
    assert len(sentence) < 2000
    assert not re.search(r"line 0\b", sentence)


def check(listing: Listing) -> None:
    assert len(listing.places) == len(listing.paths) == len(listing.labels)
    assert all(listing.paths)
    assert "" not in listing.labels
    assert len({label is None for label in listing.labels}) <= 1


@examples
@given(TEXTS, st.sampled_from(["list.csv", "list.txt", "names.txt"]))
@example("path,label\n" + "x" * 200_000 + ",a\n", "list.csv")
@example('path,label\n"a.mp4', "list.csv")
@example("youtube_id,youtube_id,time_start,time_end\n", "list.csv")
@example("youtube_id,time_start,time_end\nabc,²,3\n", "list.csv")
@example("youtube_id,time_start,time_end\nabc,٣,3\n", "list.csv")
@example("a.mp4 ٣\n", "list.txt")
@example("a.mp4 " + "9" * 5000, "list.txt")
def test_any_text(folder: Path, text: str, name: str) -> None:
    file = folder / name
    file.write_text(text, encoding="utf-8", newline="")
    for read in (
        lambda: read_video_list(file, allow_missing=True),
        lambda: listed_paths(file),
        lambda: read_class_names(file),
        lambda: read_video_list(f"{file}#val", allow_missing=True),
    ):
        try:
            read()
        except InputError as error:
            check_refusal(error, file)
    for parse in (parse_csv, parse_lines, parse_kinetics):
        try:
            check(parse(file, text))
        except InputError as error:
            check_refusal(error, file)


@examples
@given(st.binary(max_size=200))
def test_any_bytes(folder: Path, content: bytes) -> None:
    file = folder / "bytes.csv"
    file.write_bytes(content)
    try:
        read_video_list(file, allow_missing=True)
    except InputError as error:
        check_refusal(error, file)


@examples
@given(st.lists(st.tuples(PATHS, NAMES), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_a_csv_is_read_as_it_was_written(folder: Path, rows: list[tuple[str, str]], line_end: str) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end).writerows([("path", "label"), *rows])
    listing = parse_csv(folder / "list.csv", text.getvalue())
    assert [*zip(listing.paths, listing.labels, strict=True)] == rows
    assert listing.places[-1] == f"{folder / 'list.csv'} line {len(rows) + 1}"


@examples
@given(PATHS, NAMES, st.sampled_from([" ", "\t", ",", ", ", " , "]))
def test_a_line_is_read_as_it_was_written(path: str, label: str, separator: str) -> None:
    """Unless the label looks like the rest of a path, or the path's beginning like a path and a label."""
    quoted = '"' + path.replace('"', '""') + '"'
    assert split_line(f"{quoted}{separator}{label}") == (path, label) or label[:1] in ",\"'"
    inner = re.compile(rf"\.({'|'.join(suffix[1:] for suffix in SUFFIXES)})(?=[ \t,]|$)", re.IGNORECASE)
    if len(inner.findall(f"{path} {label}")) == 1 and path[:1] != '"' and label[:1] != ",":
        assert split_line(f"{path}{separator}{label}") == (path, label)


IDS, SECONDS = st.text("abcXYZ019-_", min_size=1, max_size=11), st.integers(0, 10**7)
CLIPS = st.tuples(IDS, SECONDS, SECONDS, NAMES, st.sampled_from(sorted(SPLIT_WORDS)))


@examples
@given(st.lists(CLIPS, min_size=1, max_size=6), st.permutations(range(5)))
def test_kinetics_columns_in_any_order(folder: Path, rows: list[tuple[Any, ...]], order: list[int]) -> None:
    header = ("youtube_id", "time_start", "time_end", "label", "split")
    text = io.StringIO()
    csv.writer(text).writerows([[row[place] for place in order] for row in (header, *rows)])
    listing = parse_kinetics(folder / "list.csv", text.getvalue())
    assert listing.paths == [f"{name}_{start:06}_{end:06}" for name, start, end, _, _ in rows]
    assert listing.labels == [row[3] for row in rows]
    assert listing.splits == [SPLIT_WORDS[row[4]] for row in rows]


@examples
@given(TEXTS, TEXTS)
@example("1 \x85\n", "")
@example("1 a\n", "a/b.avi ²\n")
def test_official_lists(folder: Path, classes: str, text: str) -> None:
    (folder / "ucf").mkdir(exist_ok=True)
    index, file = folder / "ucf/classInd.txt", folder / "ucf/trainlist01.txt"
    index.write_text(classes, encoding="utf-8", newline="")
    try:
        listing = parse_ucf101(file, text)
    except InputError as error:
        check_refusal(error, index, file)
    else:
        check(listing)
        assert set(listing.labels) <= set(listing.class_names or ())
    split = folder / "ucf/walk_test_split1.txt"
    split.write_text(text, encoding="utf-8", newline="")
    for part in ("train1", "test1", "test2", classes):
        try:
            check(parse_hmdb51(folder / "ucf", part, [split.name]))
        except InputError as error:
            check_refusal(error, split, folder / "ucf")


@examples
@given(st.lists(st.text(LETTERS, min_size=1, max_size=30), max_size=5), st.text(LETTERS, max_size=10))
def test_paths_of_any_kind_are_missing_and_no_more(folder: Path, paths: list[str], root: str) -> None:
    listing = Listing([f"line {n}" for n in range(len(paths))], paths, [None] * len(paths))
    located, missing = listing.locate(str(folder / "nothing" / root), Folders())
    assert len(located) == len(paths)
    assert set(missing) <= set(range(len(paths)))
