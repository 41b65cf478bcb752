"""`a2video doctor`: says what this machine is, what will be slow or wrong on it, and tries a configuration out."""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict

from a2video.doctor_checks import Finding, check_machine
from a2video.errors import InputError
from a2video.machine import this_machine

MARKS = {"ok": "  ok     ", "note": "  note   ", "warning": "! warning", "error": "X error  "}


def run(args: Sequence[str]) -> int:
    """Checks the machine, and with options of `a2video fit` the experiment that they describe. Changes nothing.

    Args:
        args: `--json` and any options of `a2video fit`.

    Returns:
        The exit status: 1 if there is an error, otherwise 0.
    """
    options = [arg for arg in args if arg != "--json"]
    said = io.StringIO()  # of Lightning and our own callbacks: there is one list to read
    with redirect_stdout(said), tempfile.TemporaryDirectory(prefix="a2video_doctor_") as scratch:
        findings = examine(options, scratch) if options else check_machine(this_machine("."))
    counts = {level: sum(finding.level == level for finding in findings) for level in MARKS}
    if len(options) < len(args):
        print(json.dumps({"findings": [asdict(finding) for finding in findings], "counts": counts}, indent=2))
    else:
        for finding in findings:
            print(f"{MARKS[finding.level]}  {finding.text}")
            if finding.advice:
                print(f"{'':11}{finding.advice}")
        print(f"{_count(counts['warning'], 'warning')}, {_count(counts['error'], 'error')}")
    return int(counts["error"] > 0)


def examine(options: Sequence[str], scratch: str) -> list[Finding]:
    """Findings about the machine and the experiment; whatever a trial writes goes to the folder `scratch`."""
    bare = check_machine(this_machine("."))
    if any(finding.level == "error" for finding in bare):  # nothing of what follows would load
        return bare
    from a2video.doctor_lists import check_lists
    from a2video.doctor_trial import configured, suggest_workers, try_decoding, try_steps

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    try:
        patient = configured(options, scratch)
    except InputError as error:
        return [*bare, Finding("error", f"the configuration is refused: {error}")]
    machine = this_machine(patient.folder, patient.sources())
    plan = patient.plan(machine)
    findings = check_machine(machine, plan)
    of_lists, lists = check_lists(patient.data)
    findings += of_lists
    if "train" not in lists:
        return [*findings, Finding("note", "nothing was decoded or trained, because the training list is of no use")]
    present = lists["train"].present()
    decoding, seconds = try_decoding(patient.data, present)
    findings += decoding
    steps, videos_per_second = try_steps(patient, machine, len(present))
    findings += steps
    if seconds and videos_per_second:
        findings.append(suggest_workers(seconds * videos_per_second, plan, machine.num_cores))
    return findings


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
