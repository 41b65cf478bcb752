"""The command line: answers --help at once, imports what a command needs only when it runs."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from a2video import __version__
from a2video.errors import InputError, Interrupted
from a2video.processes import speaker

LIGHTNING_COMMANDS = {
    "fit": "train a network: a2video fit --config FILE.yaml",
    "validate": "score the validation list, one centre view of each video",
    "test": "score the test list at clip level and at video level, write results.json and pictures",
    "predict": "classify the videos of a list, write predictions.csv",
}

OPTIONS_OF_FIT = {  # commands of a module of their own that take the options of fit too
    "show-batch": "draw what the network gets in training: a2video show-batch --config FILE.yaml",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command; exits with status 2 and one sentence when the input is wrong, 1 when some videos failed.

    A fit that SIGTERM has ended, its checkpoint saved, exits with status 143.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        if args and args[0] in LIGHTNING_COMMANDS:
            from a2video.lightning_cli import run

            run(None if argv is None else args)
        elif args and args[0] == "show-batch":
            from a2video import show_batch

            show_batch.run(args[1:])
        elif args and args[0] == "doctor" and not {"-h", "--help"} & set(args):
            from a2video.doctor import run as doctor

            sys.exit(doctor(args[1:]))
        else:
            options = _parser().parse_args(args)
            sys.exit(options.run(options))
    except InputError as error:
        if (who := speaker()) is not None:
            print(f"a2video: error: {who}{one_sentence(error)}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as signalled:
        if message := str(signalled):
            print(f"a2video: {message}", file=sys.stderr)
        sys.exit(signalled.status)
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("a2video: interrupted", file=sys.stderr)
        sys.exit(130)


def one_sentence(error: Exception) -> str:
    """The message alone, where a data loader's worker put its traceback before it."""
    return re.sub(r"^a2video\.[\w.]+Error: ", "", str(error).strip().splitlines()[-1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="a2video", description="A²-Nets for video action recognition.")
    parser.add_argument("--version", action="version", version=f"a2video {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in (LIGHTNING_COMMANDS | OPTIONS_OF_FIT).items():
        commands.add_parser(name, help=summary)  # run() has the options; `a2video fit --help` lists them
    summary = "say what this machine is, what will be slow or wrong on it, and try a configuration out"
    usage = "a2video doctor [--json] [--config FILE.yaml and any other options of `a2video fit`]"
    doctor = commands.add_parser("doctor", help=summary, usage=usage, description=f"{summary}; status 1 if it is wrong")
    doctor.add_argument("--json", action="store_true", help="for machines")

    classify = commands.add_parser("classify", help="print the most probable classes of video files")
    classify.add_argument("checkpoint", type=Path, help="a .ckpt file that `a2video fit` wrote")
    classify.add_argument("videos", type=Path, nargs="+", metavar="video", help="video files")
    classify.add_argument("--json", action="store_true", help="one JSON object a line, all classes")
    classify.add_argument("--top", type=_positive, default=5, help="classes to print (default: 5)")
    classify.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    classify.set_defaults(run=_classify)

    models = commands.add_parser("models", help="list every network: parameters, multiply-adds, the paper's values")
    models.add_argument("--json", action="store_true", help="for machines")
    models.set_defaults(run=_models)

    compare = commands.add_parser("compare", help="print the numbers of several results.json side by side")
    compare.add_argument("results", type=Path, nargs="+", help="results.json files, or their folders")
    compare.set_defaults(run=_compare)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, found {text!r}")
    return int(text)


def _classify(options: argparse.Namespace) -> int:
    from a2video.data.readers import VideoError
    from a2video.inference import VideoClassifier

    classifier = VideoClassifier.load(options.checkpoint, options.device)
    num_failed = 0
    for path in options.videos:
        try:
            prediction = classifier(path)
        except VideoError as error:
            num_failed += 1
            if options.json:
                print(json.dumps({"path": str(path), "error": str(error)}, ensure_ascii=False), flush=True)
            print(f"a2video: error: {error}", file=sys.stderr, flush=True)
            continue
        if options.json:
            classes = [{"label": label, "probability": probability} for label, probability in prediction.ranked]
            print(json.dumps({"path": str(path), "predictions": classes}, ensure_ascii=False), flush=True)
        else:
            print(path)
            for label, probability in prediction.ranked[: options.top]:
                print(f"  {probability:7.2%}  {label}", flush=True)
    if num_failed:
        print(f"{num_failed} of {len(options.videos)} videos could not be read", file=sys.stderr)
    return int(num_failed > 0)


def _models(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from a2video.models import catalog

    rows = catalog.costs(tqdm(catalog.CATALOG, "counting", leave=False))
    print(json.dumps(rows, indent=2) if options.json else catalog.costs_table(rows))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from a2video.report import comparison_table

    print(comparison_table(options.results))
    return 0
