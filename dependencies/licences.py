"""Lists the licence of every package that a2video or one of its extras brings, as the installed packages state it.

python dependencies/licences.py    # writes dependencies/licences.md; exit status 1 where a licence is unknown
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from dependencies import EXTRAS, normal, pins, required

TABLE = Path(__file__).with_name("licences.md")
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|MPL|EPL|EUPL|CDDL)|General Public|Mozilla Public", re.IGNORECASE)
STATED = {  # what packages say in their repositories, and not or not clearly in their metadata
    "pytorchvideo": "Apache-2.0",
}
BUNDLED = {  # what wheels bring beside the package's own code
    "av": "FFmpeg (calls itself LGPL 3 or later) with x264 and x265 (GPL 2 or later); LAME, GMP, GnuTLS (LGPL)",
    "decord": "FFmpeg 4.1 of 2018, built with --enable-gpl --enable-nonfree and x264: FFmpeg forbids passing that on",
    "numpy": "libgfortran (GPL with the runtime exception) and OpenBLAS (BSD)",
    "scipy": "libgfortran (GPL with the runtime exception) and OpenBLAS (BSD)",
    "scikit-learn": "libgomp (GPL with the runtime exception)",
    "torch": "libgomp (GPL with the runtime exception); CUDA builds bring NVIDIA's own licences",
}


def licence(package: Distribution) -> str:
    """In a few words: the SPDX expression, else the classifiers, else the first line of the licence field."""
    name = normal(package.metadata["Name"])
    if name in STATED:
        return STATED[name]
    if expression := package.metadata["License-Expression"]:
        return str(expression)
    classifiers = package.metadata.get_all("Classifier") or []
    named = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: ")]
    named = [text.removesuffix(" License") for text in named if text != "OSI Approved"]
    field = (package.metadata["License"] or "").strip().partition("\n")[0]
    return ", ".join(named) or (field if len(field) < 60 else "") or "unknown"


def table() -> str:
    """The whole file."""
    default, everything, pinned = required(()), required(EXTRAS), pins()
    rows, copyleft = [], []
    for name, package in sorted(everything.items()):
        words = licence(package)
        if COPYLEFT.search(words + BUNDLED.get(name, "")):
            copyleft.append(name)
        who = "a2video" if name in default else "extras"
        rows.append(f"| {name} | {pinned.get(name, '?')} | {who} | {words} | {BUNDLED.get(name, '')} |")
    lines = [
        "# Licences of the dependencies",
        "",
        "Written by `make pins` from what the packages of constraints.txt say of themselves; `a2video` needs those",
        "marked so, the others come with extras (`onnx`, `openvino`, `int8`, `web`, `test`). a2video itself is MIT and",
        "contains none of them. Copyleft, in whole or in part of their wheels: " + ", ".join(copyleft) + ".",
        "",
        "| package | version | needed by | licence | in its wheels |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes the table; returns the exit status."""
    text = table()
    TABLE.write_text(text, encoding="utf-8")
    unknown = [line for line in text.splitlines() if "| unknown |" in line]
    print(*unknown, f"Wrote {TABLE}", sep="\n")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
