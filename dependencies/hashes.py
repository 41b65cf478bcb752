"""Writes constraints-hashed.txt: the packages of constraints.txt for all platforms, with the checksums of their files.

    python dependencies/hashes.py    # after constraints.txt has changed; asks the package index, downloads no package

torch is not in it, nor what its CUDA builds bring: one pin stands for different files on different machines.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from dependencies import CONSTRAINTS, OF_CUDA, ROOT, uv

HASHED = ROOT / "constraints-hashed.txt"
HEADER = """\
# The packages of constraints.txt with checksums, written by dependencies/hashes.py; `make .venv` installs no others.
# torch is missing: the same pin is the CPU build here and the CUDA build there.
"""


def main() -> None:
    """Writes the file."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "hashed.txt"
        command = [uv(Path(folder)), "pip", "compile", "-q", "--universal", "--python-version", "3.11", "--no-header"]
        command += ["--no-annotate", "--generate-hashes", "--extra", "test", "--constraint", str(CONSTRAINTS)]
        subprocess.run([*command, "--output-file", str(made), str(ROOT / "setup.cfg")], check=True)
        packages = re.split(r"^(?=\S)", made.read_text(encoding="utf-8"), flags=re.MULTILINE)
    kept = [package for package in packages if package and not package.startswith(("torch==", *OF_CUDA))]
    HASHED.write_text(HEADER + "".join(kept), encoding="utf-8")
    print(f"Wrote {HASHED}: {len(kept)} packages")


if __name__ == "__main__":
    main()
