"""What jsonargparse, Lightning and Python say of a wrong option, in one line that a user understands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches

_KEY = re.compile(r'Parser key "([^"]+)": ')
_NULL = re.compile(r"(.*)Does not validate against any .* Errors: - (.*) - Expected a <class 'NoneType'>.*")
_ABSENT = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_CHOICES = re.compile(r"Literal\[([^]]*)\]")
_VALUE = re.compile(r"(?:Got|Given) value: (.*)")


def explain(message: str) -> str:
    """The message in one line, without what is only of interest to whom knows jsonargparse.

    Left out is why an option that may be null is not null. Of an import path that leads nowhere the module remains that
    lacks the name, of an option that takes certain words those words; and what was probably meant is added.
    """
    line = " ".join(message.split())
    key = "".join(f"{name}: " for name in _KEY.findall(line)[:1])
    if absent := _ABSENT.search(line):
        module, name = absent.groups()
        return f"{key}{absent[0]}{_similar(name, dir(sys.modules.get(module)))}"
    choices = [word for words in _CHOICES.findall(line) for word in re.findall(r"'([^']+)'", words)]
    if choices and (found := _VALUE.search(line)):
        words = list(dict.fromkeys(choices))
        return f"{key}expected {', '.join(words)}, found {found[1]!r}{_similar(found[1], words)}"
    without_null = _NULL.fullmatch(line)
    return "".join(without_null.groups()) if without_null else line


def _similar(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, names, 1)
    return f": did you mean {close[0]}?" if close else ""
