"""README's tables are what their sources say: after a change of these, `make readme`."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
from conftest import REPOSITORY

from a2video.models import CATALOG
from a2video.models.catalog import cost_row

COUNTS = REPOSITORY / "tests/models/counts.json"  # which tests/models/test_resnet.py compares with the networks


@pytest.fixture
def readme(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    import readme

    return readme


def test_tables_have_not_drifted(readme: ModuleType) -> None:
    counts = json.loads(COUNTS.read_text())
    rows = []
    for entry in CATALOG:
        forms = counts[entry.name]["multiply_adds"]
        textbook = forms.get("textbook", forms["auto"])
        rows.append(cost_row(entry, counts[entry.name]["parameters"], forms["auto"], textbook))
    text = readme.README.read_text(encoding="utf-8")
    assert readme.filled(text, readme.tables(rows)) == text


def test_replaces_a_table_and_nothing_else(readme: ModuleType) -> None:
    text = "before\n\n<!-- table a -->\n| old |\n|---|\n| x |\n\n| another |\n"
    assert readme.filled(text, {"a": "| new |"}) == "before\n\n<!-- table a -->\n| new |\n\n| another |\n"
    with pytest.raises(ValueError, match="one line '<!-- table b -->', found 0"):
        readme.filled(text, {"a": "", "b": ""})
    with pytest.raises(ValueError, match="tables that nothing makes: a"):
        readme.filled(text, {})
