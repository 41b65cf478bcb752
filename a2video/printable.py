"""Text of strangers, such as names of files and classes, for a terminal that takes orders from what it shows."""

from __future__ import annotations


def shown(text: str) -> str:
    """The same, with what is not to be shown as it is, such as orders to a terminal, spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)
