"""Coverage-guided fuzzing of lists, descriptions and checkpoints: anything but an InputError is a find.

    pip install atheris    # wheels for Linux; of all the project only this script needs it
    python benchmarks/fuzz_inputs.py --seconds 600 --out fuzzed

Each target runs in a process of its own with limits on time (20 s an input) and memory (2 GiB). Finds are in --out, and
make the exit status 1: once mended, they go to tests/fuzz_corpus/TARGET/, which the tests run through.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parent / "tests" / "fuzz_corpus"
TARGETS = {"lists": 0.3, "descriptions": 0.2, "description_text": 0.15, "checkpoints": 0.2, "checkpoint_bytes": 0.15}
sys.path[:0] = [str(HERE), str(HERE.parent)]  # not installed


def fuzz_one(name: str, options: list[str]) -> None:
    """Fuzzes a target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["a2video", "zipfile", "json", "csv"]):
        from fuzz_targets import Targets

    with tempfile.TemporaryDirectory() as folder:
        target = Targets(Path(folder)).by_name()[name]
        atheris.Setup([sys.argv[0], *options], target)
        atheris.Fuzz()


def run(name: str, seconds: int, out: Path) -> list[str]:
    """Fuzzes a target for so long; returns a row of the table."""
    inputs = out / name
    inputs.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", "-print_final_stats=1", "-rss_limit_mb=2048", "-timeout=20", "-seed=1"]
    options += ["-max_len=4096", f"-artifact_prefix={inputs}/find-", str(inputs), *map(str, CORPUS.glob(name))]
    command = [sys.executable, __file__, "--target", name, *options]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    (out / f"{name}.log").write_text(result.stdout + result.stderr, encoding="utf-8")
    finds = sorted(inputs.glob("find-*"))
    said = result.stdout + result.stderr
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", said))
    covered = re.findall(r"cov: (\d+) ft: (\d+)", said) or [("0", "0")]
    executions = int(stats.get("number_of_executed_units", 0))
    if result.returncode and not finds:
        print(f"{name} ended with status {result.returncode}: see {out / name}.log", file=sys.stderr)
    row = [name, f"{executions:,}", str(seconds), covered[0][0], covered[-1][0], stats.get("peak_rss_mb", "?")]
    return [*row, str(len(finds) or (1 if result.returncode else 0))]


def main() -> int:
    """Runs everything; returns the exit status."""
    if sys.argv[1:2] == ["--target"]:
        fuzz_one(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together (default 600)")
    parser.add_argument("--out", type=Path, required=True, help="what was tried and found")
    parser.add_argument("--only", choices=TARGETS, help="this target alone")
    parser.add_argument("--report", action="store_true", help="write benchmarks/results/fuzzing_inputs.md")
    given = parser.parse_args()
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("this needs atheris: pip install atheris (wheels for Linux), then again", file=sys.stderr)
        return 2
    shares = {given.only: 1.0} if given.only else TARGETS
    rows = [run(name, max(1, round(share * given.seconds)), given.out) for name, share in shares.items()]
    header = ["target", "executions", "seconds", "edges at first", "edges in the end", "most memory, MiB", "finds"]
    import report

    text = report.table(header, rows)
    print(text)
    if given.report:
        command = f"`python benchmarks/fuzz_inputs.py --seconds {given.seconds} --out fuzzed --report`"
        what = "Edges are branches of a2video, json, csv and zipfile; finds are anything but an InputError."
        packages = ("atheris", "torch", "safetensors", "numpy")
        report.write(
            "fuzzing_inputs", f"# Made-up inputs\n\n{command}\n\n{report.circumstances(packages)}\n\n{what}\n\n{text}"
        )
    return 1 if any(row[-1] != "0" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
