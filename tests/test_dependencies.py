"""What is pinned, hashed and listed with its licence is all that setup.cfg brings."""

import re
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "dependencies"


def test_every_package_is_pinned_hashed_and_has_its_licence_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    from hashes import HASHED
    from licences import TABLE

    from dependencies import EXTRAS, OF_CUDA, pins, required

    needed, pinned = set(required(EXTRAS)), pins()
    assert not needed - set(pinned)
    assert not {name for name in pinned if name.startswith(OF_CUDA)}
    text = HASHED.read_text(encoding="utf-8")
    hashed = {line.split(";")[0].rstrip(" \\") for line in text.splitlines() if "==" in line}
    assert hashed - {"colorama==0.4.6"} == {f"{name}=={version}" for name, version in pinned.items() if name != "torch"}
    blocks = re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    listed = dict(line.removeprefix("| ").split(" | ")[:2] for line in lines if line.startswith("| "))
    assert set(listed) >= needed
    assert {name: listed[name] for name in needed} == {name: pinned[name] for name in needed}
    for name in ("dependencies", "hashes", "licences"):
        del sys.modules[name]
