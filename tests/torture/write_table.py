"""Writes benchmarks/results/torture.md from what the campaign has written down: python write_table.py FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from report import circumstances, table, write

HEAD = """# What it survives

`make torture` tries these faults in real processes on real files (`tests/torture/`) and writes this table. "Before" is
what was seen at commit 2b91995; "not tried" and "by reading" are cells of faults that nobody tried there. "Lost" is
what had been reported as saved; a training that is killed loses the steps since its last checkpoint.
"""


def main() -> None:
    rows = [json.loads(path.read_text()) for path in sorted(Path(sys.argv[1]).glob("*.json"))]
    failed = [row["fault"] for row in rows if row["now"] == "FAILED"]
    tried = [row for row in rows if not row["now"].startswith("not tried")]
    minutes = sum(row["seconds"] for row in rows) / 60
    lines = [
        HEAD,
        circumstances(["torch", "lightning", "av"]),
        "",
        f"**{len(tried)} faults tried, {len(tried) - len(failed)} survived, "
        f"{sum(row['lost'] not in ('nothing', '?') for row in tried)} of them lost something** "
        f"({minutes:.0f} minutes, two at a time).",
        "",
        table(
            ["fault", "what happened before", "what happens now", "lost"],
            [[row[name].replace("|", "\\|") for name in ("fault", "before", "now", "lost")] for row in rows],
        ),
    ]
    write("torture", "\n".join(lines))
    sys.exit(1 if failed or not rows else 0)


if __name__ == "__main__":
    main()
