"""Scores as Parquet files: writing them, and reading those of which one does not know who wrote them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from a2video.atomic import write_whole
from a2video.comparison import one_line
from a2video.errors import InputError
from a2video.scores import CLIP, COLUMNS, FUSED_CLIP, LABEL, NUM_VIEWS, VIDEO, VIEW, About, Rows, Scores

FORMAT = 1
ROWS_AT_A_TIME = 1 << 14
MAX_LOGIT = 1e30  # of which a mean still is a number
KEY = b"a2video"  # of our JSON in the file's metadata


def write_rows(path: Path, rows: Rows, content: dict[str, Any], paths: Sequence[str] | None = None) -> Path:
    """Writes a table with a line for each view: COLUMNS, `logits`, and `path` where the videos' paths are given.

    Args:
        path: of the file.
        rows: its lines.
        content: kept as JSON in the metadata.
        paths: of all videos.

    Raises:
        InputError: the disk is full, or the folder may not be written to.
    """
    columns: dict[str, Any] = {name: pa.array(rows.views[:, place]) for place, name in enumerate(COLUMNS)}
    if paths is not None:
        shown = [path.encode("utf-8", "replace").decode() for path in paths]  # not all names of files are text
        columns["path"] = pa.array(shown, pa.string()).take(columns["video"])
    flat = pa.array(rows.logits.reshape(-1))
    columns["logits"] = pa.FixedSizeListArray.from_arrays(flat, rows.logits.shape[1])
    text = json.dumps({"format": FORMAT, **content})
    table = pa.table(columns).replace_schema_metadata({KEY: text})
    by_value = ["path", *COLUMNS] if paths is not None else list(COLUMNS)
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": by_value, "row_group_size": ROWS_AT_A_TIME}
    return write_whole(path, lambda part: pq.write_table(table, part, **options))


def read_rows(path: Path) -> tuple[Rows, dict[str, Any]]:
    """The lines of a table that write_rows wrote, and the content of its metadata.

    Raises:
        InputError: there is no such file, it is damaged, or it has another content.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: give the scores.parquet that `a2video test` wrote")
    try:
        with pq.ParquetFile(path) as file:
            text = (file.schema_arrow.metadata or {}).get(KEY, b"")
            content = json.loads(text) if text else None
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise ValueError(f"its metadata has no `a2video` of format {FORMAT}")
            return _rows(file), content
    except (OSError, ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is no scores.parquet of `a2video test` ({reason}): write it anew") from error


def _rows(file: pq.ParquetFile) -> Rows:
    """Piece by piece, so that of the many logits there is one copy."""
    schema = file.schema_arrow
    logits = schema.field("logits").type if "logits" in schema.names else None
    if logits is None or not pa.types.is_fixed_size_list(logits) or logits.value_type != pa.float32():
        raise ValueError(f"its column logits is {logits}, expected lists of float32 that all have one size")
    for name in COLUMNS:
        found = schema.field(name).type if name in schema.names else None
        if found != pa.int32():
            raise ValueError(f"its column {name} is {found}, expected int32")
    num_rows = file.metadata.num_rows
    if num_rows * logits.list_size > 1 << 40:
        raise ValueError(f"it claims to have {num_rows} views")
    rows = Rows(np.empty((num_rows, len(COLUMNS)), np.int32), np.empty((num_rows, logits.list_size), np.float32))
    start = 0
    for batch in file.iter_batches(ROWS_AT_A_TIME, columns=[*COLUMNS, "logits"]):
        part = slice(start, start := start + len(batch))
        if any(column.null_count for column in batch.columns):
            raise ValueError("it has empty cells")
        for place, name in enumerate(COLUMNS):
            rows.views[part, place] = batch.column(name).to_numpy()
        flat = batch.column("logits").flatten().to_numpy(zero_copy_only=False)
        rows.logits[part] = flat.reshape(-1, logits.list_size)
    if start != num_rows:
        raise ValueError(f"it has {start} of {num_rows} views")
    _check(rows)
    return rows


def _check(rows: Rows) -> None:
    """Raises ValueError for rows that no test gives."""
    views = rows.views
    if not all(
        (np.abs(rows.logits[part : part + ROWS_AT_A_TIME]) < MAX_LOGIT).all()
        for part in range(0, len(views), ROWS_AT_A_TIME)
    ):
        raise ValueError("it has logits that are missing, not finite or too large")
    if (
        (views[:, VIEW] < 0).any()
        or (views[:, VIEW] >= views[:, NUM_VIEWS]).any()
        or (views[:, CLIP] < FUSED_CLIP).any()
    ):
        raise ValueError("it has a view with an impossible number")
    order = np.lexsort((views[:, VIEW], views[:, VIDEO]))
    same = (views[order[1:]][:, [VIDEO, VIEW]] == views[order[:-1]][:, [VIDEO, VIEW]]).all(1)
    for first, second in zip(order[:-1][same], order[1:][same], strict=True):
        if (views[first] != views[second]).any() or (rows.logits[first] != rows.logits[second]).any():
            raise ValueError(f"view {views[first, VIEW]} of video {views[first, VIDEO]} is there twice and differs")


def _text(value: Any) -> str:
    """With escapes instead of lone surrogates, which cannot be printed or drawn."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def write_scores(scores: Scores, path: Path) -> Path:
    """Writes scores.parquet.

    Raises:
        InputError: the disk is full, or the folder may not be written to.
    """
    content = {
        "about": scores.about.to_dict(),
        "class_names": scores.class_names,
        "videos": [*zip(scores.paths, scores.labels, strict=True)],
        "unscored": [*scores.unscored.items()],
    }
    return write_rows(path, scores.rows, content, scores.paths)


def read_scores(path: str | Path) -> Scores:
    """Reads scores.parquet, given the file or its folder.

    Raises:
        InputError: there is no such file, it is damaged, or it has another content.
    """
    path = Path(path) / "scores.parquet" if Path(path).is_dir() else Path(path)
    rows, content = read_rows(path)
    try:
        names, videos = [_text(name) for name in content["class_names"]], content["videos"]
        paths, labels = [str(video) for video, _ in videos], [int(label) for _, label in videos]
        failed = {int(video): str(reason) for video, reason in content["unscored"]}
        about = About.from_dict(content["about"])
        about = replace(about, protocol=one_line(_text(about.protocol)))
        if len(names) != rows.logits.shape[1] or not names:
            raise ValueError(f"{len(names)} class names for {rows.logits.shape[1]} logits")
        if not paths or not set(rows.views[:, VIDEO].tolist()) <= set(range(len(paths))):
            raise ValueError(f"views of videos that are none of the {len(paths)} listed")
        if not set(labels) <= set(range(len(names))):
            raise ValueError("labels that are no class")
        if (np.array(labels)[rows.views[:, VIDEO]] != rows.views[:, LABEL]).any():
            raise ValueError("labels that differ between the lines and the list")
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path} is no scores.parquet of `a2video test` ({error}): write it anew") from error
    return Scores.of(about, names, paths, labels, rows, failed)
