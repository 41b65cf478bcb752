"""`a2video classify`: many videos, long ones, and live ones."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from a2video.atomic import write_text
from a2video.data.dataset import EpochSampler, VideoDataset
from a2video.data.limits import share_of_memory
from a2video.data.readers import VideoError
from a2video.data.video_list import NO_LABEL, VideoList
from a2video.data.views import even_views
from a2video.data.watched_loader import WatchedLoader
from a2video.errors import InputError, Interrupted
from a2video.inference.annotate import annotate, check_name
from a2video.inference.classifier import Prediction, VideoClassifier
from a2video.inference.description import FILES, beside
from a2video.inference.formats import Csv, Format, Json, SegmentCsv, Text, live_json, live_text, srt
from a2video.inference.live_source import is_live
from a2video.inference.outputs import Results
from a2video.inference.sources import Source, find_videos
from a2video.inference.streams import LivePrediction, watch
from a2video.inference.timeline import Timeline, timeline
from a2video.printable import shown
from a2video.provenance import file_sha256

T = TypeVar("T")

NUM_SHOWN = 5  # from this many videos on, a progress bar


def run(options: Namespace) -> int:
    """The command; its status is 1 where some videos could not be read."""
    _check(options)
    if any(map(is_live, options.videos)):
        return _live(options)
    sources = find_videos(options.videos, options.shard)
    if options.annotate is not None and len(sources) != 1:
        raise InputError(f"--annotate writes one video, but {len(sources)} were given: give one")
    if options.srt is not None and options.srt.exists() and not options.srt.is_dir():
        raise InputError(f"--srt {options.srt} is a file: give a folder for NAME.srt")
    classifier = _load(options)
    results = _results(options)
    try:
        to_do = [source for source in sources if _lacks(options, source, results)]
        _keep_what_is_there(options, to_do, results)
        num_failed = (_timelines if _along_time(options) else _predictions)(options, classifier, to_do, results)
    except KeyboardInterrupt:
        again = ""
        if options.out is not None:
            again = f": {len(results.done):,} of {len(sources):,} videos are in {options.out}, the same command goes on"
        raise Interrupted(f"interrupted{again}", 130) from None
    finally:
        results.close()
    return _conclude(options, results, len(sources), len(to_do), num_failed)


def _load(options: Namespace) -> VideoClassifier:
    o = options
    return VideoClassifier.load(o.checkpoint, o.device, backend=o.backend, num_threads=o.num_threads)


def _live(options: Namespace) -> int:
    if len(options.videos) > 1:
        raise InputError(f"{len(options.videos)} videos were given, and one is a camera or a stream: give it alone")
    unfit = {"csv": False, "out": None, "srt": None, "annotate": None, "timeline": False, "num_workers": None}
    for name, default in {**unfit, "shard": (1, 1)}.items():
        if getattr(options, name) != default:
            raise InputError(f"--{name.replace('_', '-')} is for files: a live video gives text or --json")
    every = 1.0 if options.every_seconds is None else options.every_seconds
    classifier = _load(options)
    show = live_json if options.json else live_text

    def write(prediction: LivePrediction) -> None:
        print(show(prediction, options.top), flush=True)

    summary = watch(classifier, options.videos[0], show=write, every_seconds=every)
    print(summary, file=sys.stderr)
    return int(summary.num_clips == 0)


def _along_time(options: Namespace) -> bool:
    return bool(options.timeline or options.annotate is not None or options.srt is not None)


def _check(options: Namespace) -> None:
    if options.num_workers is not None and _along_time(options):
        raise InputError("--num-workers is not for timelines, which are scored while they are decoded: leave it out")
    if options.time_limit_seconds is not None and options.num_workers is None:
        raise InputError("--time-limit-seconds is for workers: add --num-workers 1, or more")
    if options.stride_seconds is not None and not _along_time(options):
        raise InputError("--stride-seconds is the stride of a timeline: add --timeline")
    if options.every_seconds is not None and not any(map(is_live, options.videos)):
        raise InputError("--every-seconds is for cameras and streams: leave it out")
    if options.annotate is not None:
        check_name(options.annotate)
    if options.out is not None:
        for given in (options.checkpoint, *options.videos):
            if options.out.exists() and os.path.exists(given) and options.out.samefile(given):  # noqa: PTH110
                raise InputError(f"--out {options.out} is to be read too, and would be changed: choose another file")
    if options.overwrite and options.out is None and options.srt is None and options.annotate is None:
        raise InputError("--overwrite replaces what is in --out, --srt or --annotate: give one of them")


def _format(options: Namespace) -> Format:
    if options.csv:
        return SegmentCsv() if _along_time(options) else Csv(options.top)
    if options.json or options.out is not None:
        return Json(options.top, _along_time(options))
    return Text(options.top)


def _results(options: Namespace) -> Results:
    if options.out is None:
        return Results(_format(options))
    if options.out.suffix not in (".json", ".jsonl", ".csv"):
        raise InputError(f"--out {options.out}: results go to a file that ends in .jsonl or .csv")
    options.csv, options.json = options.out.suffix == ".csv", options.out.suffix != ".csv"
    identity = options.checkpoint  # or what stands beside an exported network, with the checksums of all its files
    identity = beside(identity) if identity.suffix in FILES else identity
    model = f"{options.checkpoint.name} {file_sha256(identity)[:12]}"
    return Results(_format(options), options.out, model, options.overwrite)


def _predictions(options: Namespace, classifier: VideoClassifier, sources: Sequence[Source], results: Results) -> int:
    num_failed = 0
    for path, prediction in _progress(predict_all(classifier, sources, options), len(sources)):
        if isinstance(prediction, Prediction):
            results.prediction(prediction)
        else:
            num_failed += 1
            _report(results, path, prediction)
    return num_failed


def predict_all(
    classifier: VideoClassifier, sources: Sequence[Source], options: Namespace
) -> Iterator[tuple[str, Prediction | str]]:
    """The path of each video with what becomes of it: a prediction, or why it could not be read."""
    if not sources:
        return
    paths = tuple(source.path for source in sources)
    videos = VideoList("the command line", paths, (NO_LABEL,) * len(paths), classifier.class_names)
    dataset = VideoDataset(videos, *even_views(classifier.preprocessing), timed=True)
    sampler = EpochSampler(len(dataset), shuffle=False)
    limit = options.time_limit_seconds or 60.0
    num_workers = options.num_workers or 0
    memory = share_of_memory(num_workers)
    loader = WatchedLoader(
        dataset, sampler, 1, num_workers=num_workers, time_limit_seconds=limit, max_worker_bytes=memory
    )
    try:
        for path, batch in zip(paths, loader, strict=True):
            if batch["errors"]:
                yield path, batch["errors"][0][1]
            else:
                yield path, classifier.predict(path, batch["clips"][0], batch["views"][0])
    finally:
        loader.close()


def _timelines(options: Namespace, classifier: VideoClassifier, sources: Sequence[Source], results: Results) -> int:
    num_failed = 0
    for source in _progress(sources, len(sources)):
        try:
            with _share("scoring") as show:
                line = timeline(classifier, source.path, options.stride_seconds, show)
            _write(options, source, line, results)
        except VideoError as error:
            num_failed += 1
            _report(results, source.path, str(error))
    return num_failed


def _write(options: Namespace, source: Source, line: Timeline, results: Results) -> None:
    if _copy_is_due(options):
        with _share("writing") as show:
            annotate(line, options.annotate, show)
    if options.srt is not None:
        write_text(_srt_file(options.srt, source), srt(line))
    if (options.srt is None or options.out is not None) and not results.is_done(source.path):
        results.timeline(line)


def _lacks(options: Namespace, source: Source, results: Results) -> bool:
    """Whether something that is asked for is not there yet."""
    if not results.is_done(source.path):
        return True
    if options.srt is not None and not _srt_file(options.srt, source).exists():
        return True
    return _copy_is_due(options)


def _copy_is_due(options: Namespace) -> bool:
    return options.annotate is not None and (options.overwrite or not options.annotate.exists())


def _keep_what_is_there(options: Namespace, to_do: Sequence[Source], results: Results) -> None:
    """Raises InputError where files would be replaced that are not of this run, as far as one can tell."""
    files: list[Path] = []
    if options.annotate is not None and not all(results.is_done(source.path) for source in to_do):
        files.append(options.annotate)
    if options.srt is not None:
        of_videos = _srt_files(options.srt, to_do).values()
        files += [] if results.done else of_videos  # a run that goes on may have written the next one already
    for file in files:
        if file.exists() and not options.overwrite:
            raise InputError(f"{file} exists: choose another place, or replace it by --overwrite")


def _srt_files(folder: Path, sources: Sequence[Source]) -> dict[Source, Path]:
    owners: dict[Path, Source] = {}
    for source in sources:
        file = _srt_file(folder, source)
        if (other := owners.setdefault(file, source)) is not source:
            raise InputError(f"the subtitles of {other.path} and {source.path} would both be {file}: give one of them")
    return {source: file for file, source in owners.items()}


def _srt_file(folder: Path, source: Source) -> Path:
    """Beside others as the videos are beside each other; ".." of a list's paths leads nowhere else."""
    name = Path(source.name)
    return folder.joinpath(*(step for step in name.parts if step not in ("..", name.anchor))).with_suffix(".srt")


def _report(results: Results, path: str, message: str) -> None:
    results.error(path, message)
    tqdm.write(f"a2video: error: {shown(message)}", file=sys.stderr)


def _progress(items: Iterable[T], total: int) -> Iterable[T]:
    bar: Iterable[T] = tqdm(items, "classify", total, unit="video", disable=total < NUM_SHOWN or None, file=sys.stderr)
    return bar


@contextmanager
def _share(what: str) -> Iterator[Callable[[float], None]]:
    """A bar for one video, in percent."""
    with tqdm(total=100, desc=what, unit="%", leave=False, disable=None, delay=2, file=sys.stderr) as bar:
        yield lambda share: bar.update(int(100 * share) - bar.n)


def _conclude(options: Namespace, results: Results, num_sources: int, num_done: int, num_failed: int) -> int:
    files = [str(path) for path in (options.out, options.srt, options.annotate) if path is not None and path.exists()]
    if num_done == 0 and num_sources:
        unreadable = f", {results.num_errors} of them not readable (delete their lines to try again)"
        has = f"{options.out} has {'it' if num_sources == 1 else f'all {num_sources:,} videos'}"
        print(f"nothing to do: {has}{unreadable if results.num_errors else ''}", file=sys.stderr)
    elif num_sources == 0:
        k, n = options.shard
        print(f"part {k} of {n} has no video", file=sys.stderr)
    elif files or num_done >= NUM_SHOWN:
        before = num_sources - num_done
        kept = f", {before} were done before" if before else ""
        if results.num_errors:
            kept += f" ({results.num_errors} of them not readable; delete their lines to try again)"
        where = f"; results are in {', '.join(files)}" if files else ""
        print(f"{num_done - num_failed} of {num_done} videos classified{kept}{where}", file=sys.stderr)
    if num_failed:
        print(f"{num_failed} of {num_done} videos could not be read", file=sys.stderr)
    return int(num_failed > 0)
