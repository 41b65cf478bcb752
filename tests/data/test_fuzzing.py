"""A few of the damaged files that benchmarks/fuzz_readers.py makes: right frames or one sentence, nothing else."""

import re
import subprocess
import sys
from pathlib import Path

from videos import OPEN_GOP, X264, encode

from a2video.data.packet_index import stated_bytes

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_readers.py"


def test_forty_damaged_files(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--count", "40", "--seed", "5"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    row = re.search(r"^\| all \| (.*) \|$", result.stdout, re.MULTILINE)
    num, on_opening, on_reading, read, crashed, _, violations = map(int, row[1].split(" | "))
    assert (num, crashed, violations) == (40, 0, 0)
    assert min(on_opening, on_reading, read) > 4


def test_stated_size_of_matroska(tmp_path):
    for suffix, options in (("mkv", OPEN_GOP), ("mkv", X264)):
        path = encode(tmp_path / f"video.{suffix}", options=options, num=30)
        assert stated_bytes(path) == path.stat().st_size
    path.write_bytes(b"no video")
    assert stated_bytes(path) == 0
