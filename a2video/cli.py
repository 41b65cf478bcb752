"""The command line: answers --help at once, imports what a command needs only when it runs."""

from __future__ import annotations

import argparse
import errno
import io
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from a2video import __version__
from a2video.errors import InputError, Interrupted
from a2video.printable import shown
from a2video.processes import speaker

LIGHTNING_COMMANDS = {
    "fit": "train a network: a2video fit --config FILE.yaml",
    "validate": "score the validation list, one centre view of each video",
    "test": "score the test list at clip level and at video level, write results.json and report.html",
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal's encoding does not have
    try:
        try:
            _run(args, argv is None)
        finally:
            _flush()  # while a failure of it can still be said
    except InputError as error:
        if (who := speaker()) is not None:
            print(f"a2video: error: {who}{one_sentence(error)}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as signalled:
        if message := str(signalled):
            print(f"a2video: {message}", file=sys.stderr)
        sys.exit(signalled.status)
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        _forget_output()
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _forget_output()
        what = error.filename or "the output"
        print(f"a2video: error: {what} cannot be written ({error.strerror}): make room for it", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("a2video: interrupted", file=sys.stderr)
        sys.exit(130)


def _run(args: list[str], is_program: bool) -> None:
    if args and args[0] in LIGHTNING_COMMANDS:
        from a2video.lightning_cli import run

        run(None if is_program else args)
    elif args and args[0] == "show-batch":
        from a2video import show_batch

        show_batch.run(args[1:])
    elif args and args[0] == "doctor" and not {"-h", "--help"} & set(args):
        from a2video.doctor import run as doctor

        sys.exit(doctor(args[1:]))
    else:
        end = args.index("--") if args[:1] == ["splits"] and "--" in args else len(args)
        options = _parser().parse_args(args[:end])
        options.command = args[end + 1 :]
        sys.exit(options.run(options))


def _flush() -> None:
    if sys.stdout is not None:  # as after `>&-`
        sys.stdout.flush()


def _forget_output() -> None:
    """Lets Python end without another try to write what could not be written."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_sentence(error: Exception) -> str:
    """The message alone, where a data loader's worker put its traceback before it, as a terminal may show it."""
    return shown(re.sub(r"^a2video\.[\w.]+Error: ", "", str(error).strip().splitlines()[-1]))


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

    _add_classify(commands.add_parser("classify", help="print the most probable classes of videos, long or many"))

    attend = commands.add_parser("attend", help="show where the double attention blocks look in a video: one HTML page")
    attend.add_argument("checkpoint", type=Path, help="a .ckpt file that `a2video fit` wrote")
    attend.add_argument("video", type=Path, help="a video file, or a picture")
    attend.add_argument("--out", type=Path, required=True, metavar="FILE.html", help="the page; it needs no network")
    attend.add_argument(
        "--top", type=_positive, default=4, help="descriptors of each block, the most used (default: 4)"
    )
    attend.add_argument("--at", type=float, metavar="SECONDS", help="the clip around then; the centre one if not given")
    attend.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    attend.set_defaults(run=_attend)

    serve = commands.add_parser("serve", help="a page on this machine where videos can be dropped and are classified")
    serve.add_argument("checkpoint", type=Path, help="a .ckpt file that `a2video fit` wrote")
    serve.add_argument("--port", type=_port, default=7860, help="7860 when not given; 0 takes a free one")
    serve.add_argument("--host", default="127.0.0.1", help="127.0.0.1, this machine only, when not given")
    serve.add_argument("--max-megabytes", type=_positive, default=200, help="of a video (default: 200)")
    serve.add_argument("--max-seconds", type=_positive, default=600, help="that a video may last (default: 600)")
    serve.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    serve.set_defaults(run=_serve)
    _add_export(commands.add_parser("export", help="write a trained network for OpenVINO, ONNX Runtime or torch alone"))

    models = commands.add_parser("models", help="list every network: parameters, multiply-adds, the paper's values")
    models.add_argument("--json", action="store_true", help="for machines")
    models.set_defaults(run=_models)

    compare = commands.add_parser("compare", help="print the numbers of several results.json side by side")
    compare.add_argument("results", type=Path, nargs="+", help="results.json files, or their folders")
    compare.add_argument("--mean", action="store_true", help="and their mean, as over the splits of UCF-101")
    compare.set_defaults(run=_compare)

    rescore = commands.add_parser("rescore", help="other numbers from scores.parquet, without touching a video")
    rescore.add_argument(
        "scores", type=Path, nargs="+", help="scores.parquet files or their folders; several are fused"
    )
    rescore.add_argument("--protocol", metavar="center|NxM", help="the one centre view, or N clips of M crops")
    rescore.add_argument("--average", choices=["probs", "logits"], help="of the views; as tested when not given")
    rescore.add_argument("--classes", metavar="NAMES|FILE.txt", help="decide among these classes only, a,b,c")
    rescore.add_argument("--weights", type=float, nargs="+", metavar="W", help="of the files in late fusion")
    rescore.add_argument("--out", type=Path, required=True, help="folder for results.json and the tables")
    rescore.add_argument("--overwrite", action="store_true", help="replace results in that folder")
    rescore.set_defaults(run=_rescore)

    report = commands.add_parser("report", help="report.html from scores.parquet: one page that needs no network")
    report.add_argument("scores", type=Path, help="a scores.parquet file, or its folder")
    report.add_argument("--out", type=Path, metavar="FILE.html", help="report.html beside the scores when not given")
    report.set_defaults(run=_report)

    splits = commands.add_parser("splits", help="one command for each split, then the mean: splits 1 2 3 -- test ...")
    splits.add_argument("splits", nargs="+", metavar="split", help="what takes the place of {split} in the options")
    splits.set_defaults(run=_splits)
    return parser


def _add_classify(classify: argparse.ArgumentParser) -> None:
    add, form = classify.add_argument, classify.add_mutually_exclusive_group()
    add(
        "checkpoint",
        type=Path,
        help="a .ckpt file of `a2video fit`, or what `a2video export` wrote",
    )
    sources = (
        "files, folders, patterns ('clips/**/*.mp4'), lists (.txt, .csv); or one camera (0) or stream (rtsp://...)"
    )
    add("videos", nargs="+", metavar="video", help=sources)
    form.add_argument("--json", action="store_true", help="a JSON object a line: all classes, and each clip's best")
    form.add_argument("--csv", action="store_true", help="a table")
    form.add_argument("--out", type=Path, metavar="FILE", help=".jsonl or .csv, appended to: what it has is not redone")
    add("--overwrite", action="store_true", help="replace what is in --out, --srt or --annotate")
    add("--top", type=_positive, metavar="K", help="classes to print (default: 5; all in JSON)")
    add("--shard", type=_shard, default=(1, 1), metavar="K/N", help="only the K-th of N parts, such as 3/16")
    add("--num-workers", type=_positive, metavar="N", help="processes that decode; one that hangs or dies is replaced")
    add("--time-limit-seconds", type=_positive, metavar="S", help="for a worker to read one video (default: 60)")
    add("--timeline", action="store_true", help="what happens when: segments with start, end, class and confidence")
    add("--stride-seconds", type=_seconds, metavar="S", help="between a timeline's windows (default: half a window)")
    add("--srt", type=Path, metavar="FOLDER", help="the timelines as subtitles NAME.srt, for video players")
    add("--annotate", type=Path, metavar="FILE.mp4", help="the one video with the three best classes drawn on it")
    add("--every-seconds", type=_seconds, metavar="S", help="between the answers to a live video (default: 1)")
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    add("--backend", default="auto", help="auto (by the file's suffix), torch, onnxruntime or openvino")
    add("--num-threads", type=_positive, metavar="N", help="of the network on a CPU (default: as OMP_NUM_THREADS says)")
    classify.set_defaults(run=_classify)


def _shard(text: str) -> tuple[int, int]:
    """`3/16` as (3, 16)."""
    number, slash, total = text.partition("/")
    if not (slash and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise argparse.ArgumentTypeError(f"expected K/N with K from 1 to N, such as 3/16, found {text!r}")
    return int(number), int(total)


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument("checkpoint", type=Path, help="a .ckpt file that `a2video fit` wrote")
    export.add_argument("--to", required=True, choices=["torch", "onnx", "openvino"], help="what is to compute it")
    export.add_argument("--out", type=Path, required=True, help="FILE.safetensors, FILE.onnx or FILE.xml")
    export.add_argument("--precision", choices=["float32", "bfloat16", "int8"], default="float32", help="of OpenVINO")
    for name, purpose in (
        ("--check", "compare with torch on these; on random clips when not given"),
        ("--calibrate", "for int8: what the network will see, such as its training list"),
    ):
        export.add_argument(name, nargs="+", default=[], metavar="LIST|VIDEO", help=purpose)
    export.add_argument("--overwrite", action="store_true", help="replace files that exist")
    export.set_defaults(run=_export)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, such as 0.5, found {text!r}")
    return seconds


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, found {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535, found {text!r}")
    return int(text)


def _classify(options: argparse.Namespace) -> int:
    from a2video.inference.classify import run

    return run(options)


def _attend(options: argparse.Namespace) -> int:
    from a2video.inference.attention_page import check_page, write_attention_page
    from a2video.inference.classifier import VideoClassifier

    check_page(options.out, options.top)
    classifier = VideoClassifier.load(options.checkpoint, options.device)
    page = write_attention_page(
        classifier, options.video, options.out, options.top, options.at, checkpoint=options.checkpoint
    )
    print(f"Wrote {page} ({page.stat().st_size / 1000:.0f} kB): open it in a browser, it needs no network")
    return 0


def _serve(options: argparse.Namespace) -> int:
    try:
        from a2video.inference.serve import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        from a2video.inference.packages import missing

        raise InputError(missing(error.name, "web")) from error

    o = options
    serve(o.checkpoint, o.host, o.port, o.max_megabytes, o.max_seconds, o.device)
    return 0


def _export(options: argparse.Namespace) -> int:
    from a2video.inference.export import export

    o = options
    comparison, files = export(o.checkpoint, o.to, o.out, o.precision, o.check, o.calibrate, o.overwrite)
    print(comparison)
    print("Wrote " + ", ".join(f"{file} ({file.stat().st_size / 1e6:.1f} MB)" for file in files))
    return 0


def _models(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from a2video.models import catalog

    rows = catalog.costs(tqdm(catalog.CATALOG, "counting", leave=False))
    print(json.dumps(rows, indent=2) if options.json else catalog.costs_table(rows))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from a2video.comparison import comparison_table

    print(comparison_table(options.results, options.mean))
    return 0


def _rescore(options: argparse.Namespace) -> int:
    from a2video.comparison import comparison_table
    from a2video.report import write_tables
    from a2video.rescore import choose_views, class_choice, fuse, with_average, with_classes
    from a2video.score_files import read_scores, write_scores

    results, ours = options.out / "results.json", options.out / "scores.parquet"
    if ours.resolve() in [(path / ours.name if path.is_dir() else path).resolve() for path in options.scores]:
        raise InputError(f"{ours} is one of the scores to be read, and would be replaced: choose another --out")
    for written in (results, ours):
        if written.exists() and not options.overwrite:
            raise InputError(f"{written} exists: choose another --out, or replace it by --overwrite")
    several = []
    for path in options.scores:
        scores = read_scores(path)
        scores = scores if options.protocol is None else choose_views(scores, options.protocol)
        scores = scores if options.average is None else with_average(scores, options.average)
        several.append(scores if options.classes is None else with_classes(scores, class_choice(options.classes)))
    scores = fuse(several, options.weights) if len(several) > 1 or options.weights else several[0]
    (options.out / "report.html").unlink(missing_ok=True)  # of what was there before; `a2video report` makes it anew
    files = [*write_tables(scores, options.out), write_scores(scores, ours)]
    print(comparison_table(files[:1]))
    print("Wrote " + ", ".join(map(str, files)))
    return 0


def _report(options: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from a2video.html_report import write_html_report
    from a2video.score_files import read_scores

    scores_file = options.scores / "scores.parquet" if options.scores.is_dir() else options.scores
    out = options.out or scores_file.with_name("report.html")
    if out.suffix != ".html":
        raise InputError(f"--out {out}: the page is a file that ends in .html")
    scores = read_scores(scores_file)
    scored_at = datetime.fromtimestamp(scores_file.stat().st_mtime, UTC)
    print(f"Wrote {write_html_report(scores, out, scored_at)}")
    return 0


def _splits(options: argparse.Namespace) -> int:
    from a2video.splits import run_splits

    return run_splits(options.splits, options.command)
