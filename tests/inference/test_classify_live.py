"""`a2video classify` on a stream of a real server in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_classify import classify
from test_streams import Server, film  # noqa: F401 (a fixture)


def test_a_stream_that_ends(
    trained: Path,
    film: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = Server(film)
    try:
        assert classify(trained / "best.ckpt", server.address("file.ts"), "--json", "--every-seconds", "0.3") == 0
        printed = capsys.readouterr()
        assert classify(trained / "best.ckpt", server.address("file.ts"), "--every-seconds", "0.3", "--top", "2") == 0
        text = capsys.readouterr().out.splitlines()
    finally:
        server.kill()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert rows
    assert {p["label"] for row in rows for p in row["predictions"]} == {"left", "right"}
    assert all(row["latency_seconds"] > 0 for row in rows)
    assert printed.err.splitlines()[-1].startswith(f"watched {server.address('file.ts')} for ")
    assert " ms late, " in text[0]


def test_what_a_live_video_does_not_take(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (("0", "1"), "give it alone"),
        (("0", "--timeline"), "--timeline is for files"),
        (("0", "--csv"), "--csv is for files"),
        (("0", "--shard", "1/2"), "--shard is for files"),
        (("a.mp4", "--every-seconds", "1"), "is for cameras and streams"),
        (("http://127.0.0.1:9/x",), "http://127.0.0.1:9/x"),
    ):
        assert classify(trained / "best.ckpt", *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
