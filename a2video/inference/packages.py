"""Packages that only some users need, imported when they are, and without reports to their makers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from a2video.errors import InputError

TELEMETRY = "openvino_telemetry"


def optional_package(name: str, extra: str) -> Any:
    """The module, which `a2video[extra]` brings.

    Raises:
        InputError: it is not installed.
    """
    try:
        with _without_telemetry():
            return importlib.import_module(name)
    except ImportError as error:
        raise InputError(missing(name, extra)) from error


def missing(name: str, extra: str) -> str:
    """The sentence that says how to get a package."""
    where = f'pip install "a2video[{extra}]", or in a clone: pip install -c constraints.txt ".[{extra}]"'
    return f"this needs {name}, which cannot be imported: {where}"


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hides openvino_telemetry from an import.

    As soon as OpenVINO or NNCF are imported, it writes an identity to ~/intel and sends it to Google Analytics, in a
    process that it forks. Both do without it where it is not installed.
    """
    if TELEMETRY in sys.modules:
        yield
        return
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(TELEMETRY, None)
