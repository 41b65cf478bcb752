"""Files of scores: nothing lost, and nothing wrong let in."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_scores import made_scores

from a2video.comparison import comparison_table
from a2video.data.transforms import Preprocessing
from a2video.errors import InputError
from a2video.results import summarize
from a2video.score_files import read_scores, write_scores
from a2video.scores import Scores


def scores() -> Scores:
    views = [[[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]], [], [[0.1, 0.9], [0.6, 0.4], [0.3, 0.7]]]
    made = made_scores(views, [0, 1, 1], extra_center=True, failed={1: "v1 \udcff.mp4: is damaged"})
    return replace(made, paths=("a ü.mp4", "v1 \udcff.mp4", "b,c.mp4"))


def test_nothing_is_lost(tmp_path: Path) -> None:
    whole = scores()
    write_scores(whole, tmp_path / "scores.parquet")
    read = read_scores(tmp_path)
    assert (read.about, read.class_names, read.paths, read.labels) == (
        whole.about, whole.class_names, whole.paths, whole.labels
    )  # fmt: skip
    assert read.unscored == whole.unscored
    assert np.array_equal(read.rows.views, whole.rows.views)
    assert np.array_equal(read.rows.logits, whole.rows.logits)
    assert summarize(read) == summarize(whole)
    table = pq.read_table(tmp_path / "scores.parquet").to_pylist()  # as another tool sees it
    assert [row["path"] for row in table] == ["a ü.mp4"] * 3 + ["b,c.mp4"] * 3
    assert table[5]["clip"] == -1
    assert table[5]["logits"] == pytest.approx(np.log([0.3, 0.7]).tolist())
    assert not list(tmp_path.glob(".*"))


def test_without_any_row(tmp_path: Path) -> None:
    whole = scores()
    write_scores(replace(whole, rows=whole.rows[[]]), tmp_path / "scores.parquet")
    assert len(read_scores(tmp_path).rows) == 0


def change(**columns: object) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        for name, values in columns.items():
            column = values(table) if callable(values) else values
            table = table.set_column(table.schema.get_field_index(name), name, column)
        return table

    return changed


def metadata(old: str, new: str) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        text = table.schema.metadata[b"a2video"].decode()
        assert old in text
        return table.replace_schema_metadata({b"a2video": text.replace(old, new).encode()})

    return changed


def nan_logits(table: pa.Table, value: float = np.nan) -> pa.Array:
    flat = np.full(2 * len(table), value, np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), 2)


def int32(values: list[int | None]) -> pa.Array:
    return pa.array(values, pa.int32())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: table.drop_columns(["clip"]), "its column clip is None, expected int32"),
        (lambda table: table.drop_columns(["logits"]), "its column logits is None, expected lists of float32"),
        (change(view=pa.array(["x"] * 6)), "its column view is string"),
        (change(view=int32([0, None, 2, 0, 1, 2])), "it has empty cells"),
        (change(view=int32([0, 0, 2, 0, 1, 2])), "view 0 of video 0 is there twice and differs"),
        (change(view=int32([0, 1, 3, 0, 1, 2])), "a view with an impossible number"),
        (change(video=int32([0, 0, 0, 7, 7, 7])), "views of videos that are none of the 3 listed"),
        (change(label=int32([1, 1, 1, 1, 1, 1])), "labels that differ"),
        (change(logits=nan_logits), "logits that are missing, not finite or too large"),
        (change(logits=lambda table: nan_logits(table, 3e38)), "logits that are missing, not finite or too large"),
        (lambda table: table.replace_schema_metadata(None), "no `a2video` of format 1"),
        (metadata('"format": 1', '"format": 2'), "no `a2video` of format 1"),
        (metadata('"class_names": ["a", "b"]', '"class_names": ["a"]'), "1 class names for 2 logits"),
        (metadata('"average": "probs"', '"average": "sum"'), "neither probs nor logits"),
        (metadata('"reader": "a.Reader"', '"reader": 1'), "reader is 1"),
        (metadata('"seed": 0, ', ""), "expected the keys"),
        (metadata('"format": 1', "[" * 10_000), ""),
    ],
)
def test_wrong_files(tmp_path: Path, damage: Callable[[pa.Table], pa.Table], message: str) -> None:
    path = write_scores(scores(), tmp_path / "scores.parquet")
    pq.write_table(damage(pq.read_table(path)), path)
    with pytest.raises(InputError, match=r"scores.parquet is no scores.parquet of `a2video test`") as error:
        read_scores(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_text_that_cannot_be_printed(tmp_path: Path) -> None:
    views = [[[0.5, 0.5]]]
    made = made_scores(views, [0], names=["a\ud800", "b"], protocol="x\ud800y\n\x1b[2J")
    read = read_scores(write_scores(made, tmp_path / "scores.parquet"))
    assert (read.class_names, read.about.protocol) == (("a\\ud800", "b"), "x\\ud800y\ufffd\ufffd[2J")
    results = tmp_path / "results.json"
    results.write_text(json.dumps(summarize(made)))
    assert comparison_table([results]).splitlines()[-1] == f"{tmp_path}: x\ufffdy\ufffd\ufffd[2J"
    for wrong in ({"short_side": 32.5}, {"crop_size": 24.5}):
        with pytest.raises(InputError, match=r"must be an integer, got \d+\.5"):
            Preprocessing.from_dict(wrong)


def test_damaged_or_missing_files(tmp_path: Path) -> None:
    path = write_scores(scores(), tmp_path / "scores.parquet")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for wrong in (b"", b"text", content[:-20], content[: len(content) // 2], json.dumps({}).encode()):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match=r"is no scores\.parquet"):
            read_scores(path)
    for _ in range(40):  # whatever is hit, it is that error or a file that reads
        wrong = bytearray(content)
        for place in rng.integers(0, len(content), 8):
            wrong[place] = rng.integers(256)
        path.write_bytes(wrong)
        with suppress(InputError):
            read_scores(path)
    path.unlink()
    with pytest.raises(InputError, match=r"does not exist: give the scores\.parquet"):
        read_scores(tmp_path / "scores.parquet")
