"""What the fuzzers of benchmarks/fuzz_inputs.py begin with, and all that they ever found: refused, or read."""

import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def test_nothing_but_input_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    from fuzz_targets import replay

    assert replay(REPOSITORY / "tests" / "fuzz_corpus") >= 38
    del sys.modules["fuzz_targets"]
