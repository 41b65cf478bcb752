"""Installs the lowest or the newest versions that setup.cfg allows, into a fresh environment, and runs the fast tests.

    python dependencies/versions.py lowest --folder versions    # or newest; --torch 2.15.0 for another torch

torch is that of constraints.txt for both, for only of that one there is a CPU build everywhere. uv, which knows how to
take the lowest versions, is installed into the folder where it is missing. Old packages' warnings are no failures.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from dependencies import ROOT, pins, uv

RESOLUTION = {"lowest": "lowest-direct", "newest": "highest"}
FAST = [
    *("tests/data", "tests/models", "tests/properties", "tests/inference/test_backends.py"),
    *("tests/inference/test_exported_networks.py", "tests/inference/test_annotate.py", "tests/inference/test_serve.py"),
    *(
        "tests/inference/test_attention_page.py",
        "tests/test_cli.py",
        "tests/test_schedules.py",
        "tests/test_results.py",
    ),
    *("tests/test_score_files.py", "tests/test_html_report.py", "tests/test_html_report_in_chromium.py"),
    *("tests/test_augment.py", "tests/test_logs.py", "tests/test_trust.py", "tests/test_fuzzed_inputs.py"),
]


def environment(which: str, folder: Path, torch: str) -> Path:
    """Makes it; returns its Python."""
    python = folder / which / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", folder / which], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"torch=={torch}"], check=True)
    code = "from importlib.metadata import version; print(version('torch'))"
    installed = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "torch.txt").write_text(f"torch=={installed}\n", encoding="utf-8")
    command = [uv(folder), "pip", "install", "-q", "--python", python, "--resolution", RESOLUTION[which]]
    command += ["--constraint", folder / "torch.txt", "--editable", f"{ROOT}[test]"]
    places = {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")}  # where a CPU build of torch may be
    subprocess.run(command, check=True, env=os.environ | places)
    subprocess.run([uv(folder), "pip", "freeze", "--python", python], check=True)
    return python


def main() -> int:
    """Returns the exit status of the tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=RESOLUTION)
    parser.add_argument("--folder", type=Path, required=True, help="for the environments, 2 GB each; stays")
    parser.add_argument("--torch", default=pins()["torch"], help="its version (default: that of constraints.txt)")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    python = environment(given.which, given.folder.resolve(), given.torch)
    options = ["--numprocesses", "2", "--dist", "loadfile", *(["-W", "default"] if given.which == "lowest" else [])]
    return subprocess.run([python, "-m", "pytest", *options, *FAST], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
