"""Find the videos of a list that cannot be read, before training does, and note what there is to know of the others.

    python data_prep/verify.py --list train.csv --out data/verified

decodes the first, middle and last frame of each video, in processes of their own with a time limit, and writes
`list.csv` (the good videos with their labels, in the list's order), `bad_videos.csv` (path, reason) and
`metadata.sqlite`, the cache that saves readers from looking through a file again. No video is changed or deleted.
Run it again after it was stopped, or with more videos: what is in the cache and has not changed is not decoded again.
"""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median_low

from checks import Facts, check_video
from common import (
    Listed,
    add_common_options,
    make_folder,
    read_list,
    reason_of,
    run_program,
    why_unusable,
    write_list,
    write_reasons,
)
from jobs import Failure, run_jobs
from tqdm import tqdm

from a2video.data.metadata import MetadataCache

SPARSE = 48  # frames between keyframes beyond which decoding one clip takes much longer than its own frames
LARGE = 480  # pixels of the short side beyond which most of the decoded pixels are thrown away
MOST = 5  # values listed of each kind


def verify(given: argparse.Namespace) -> int:
    """Does all the work; returns the number of bad videos. Raises InputError."""
    make_folder(given.out, given.list)
    videos = read_list(given.list, given.root)
    reasons = {video.path: reason for video in videos if (reason := why_unusable(video.path))}
    cache = MetadataCache(given.out / "metadata.sqlite")
    facts = {} if given.again else _known(cache, videos)
    num_known = len(facts)
    waiting = [video.path for video in videos if video.path not in reasons and video.path not in facts]
    work = run_jobs(check_video, waiting, given.workers, given.time_limit)
    with closing(work), tqdm(work, total=len(waiting), unit="video") as bar:
        for path, result in bar:
            if isinstance(result, Failure):
                reasons[path] = reason_of(result.reason, path)
                bar.set_postfix(bad=len(reasons))
            elif isinstance(result, Facts):
                facts[path] = result
            else:
                cache.put(path, result)
                facts[path] = Facts.of(result)
    here = given.out.resolve()
    write_list(given.out, videos, {path: Path(os.path.relpath(path, here)).as_posix() for path in facts})
    write_reasons(given.out / "bad_videos.csv", videos, reasons)
    print(f"Good: {len(facts)} of {len(videos)} videos, {num_known} of them known from before; see {given.out}")
    in_order = [facts[video.path] for video in videos if video.path in facts]
    for line in (*_bad(reasons.values()), *_summary(in_order), *_advice(in_order, given.out)):
        print(line)
    return len(reasons)


def _known(cache: MetadataCache, videos: Iterable[Listed]) -> dict[Path, Facts]:
    """What the cache has of the videos as they are now."""
    if not cache.path.is_file():
        return {}
    records = ((video.path, cache.get(video.path)) for video in videos)
    return {path: Facts.of(record) for path, record in records if record is not None}


def _bad(reasons: Iterable[str]) -> list[str]:
    """How many are bad for which reasons, numbers left out."""
    counts = Counter(re.sub(r"(?<= )\d[\d.]*+(?! \(SIG)", "N", reason) for reason in reasons)
    return [f"Bad:  {counts.total()}", *(f"{count:9}  {reason}" for reason, count in counts.most_common())]


def _summary(facts: Sequence[Facts]) -> list[str]:
    if not facts:
        return []
    seconds = round(sum(fact.duration_seconds for fact in facts))
    gaps = [fact.keyframe_distance for fact in facts if fact.keyframe_distance is not None]
    return [
        f"duration   {seconds // 3600} h {seconds // 60 % 60} min {seconds % 60} s in all",
        f"frames     {_spread([fact.num_frames for fact in facts])}",
        f"fps        {_most_common(f'{fact.fps:.4g}' for fact in facts)}",
        f"size       {_most_common(f'{fact.size[0]}x{fact.size[1]}' for fact in facts)}",
        f"keyframes  {'longest distance ' + _spread(gaps) + ' frames' if gaps else 'unknown'}",
    ]


def _spread(values: Sequence[int]) -> str:
    return f"min {min(values)}, median {median_low(values)}, max {max(values)}"


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(values)
    listed = ", ".join(f"{value} ({count})" for value, count in counts.most_common(MOST))
    return listed + (f", {len(counts) - MOST} others" if len(counts) > MOST else "")


def _advice(facts: Sequence[Facts], out: Path) -> list[str]:
    """What would make training faster."""
    distances = [fact.keyframe_distance for fact in facts]
    found = {
        f"keyframes more than {SPARSE} frames apart, so that a clip decodes many frames in vain": sum(
            distance is not None and distance > SPARSE for distance in distances
        ),
        "no usable index, so that each clip is decoded from the beginning": distances.count(None),
        f"a short side above {LARGE} pixels, most of which are decoded in vain": sum(
            min(fact.size) > LARGE for fact in facts
        ),
    }
    lines = [f"Slow: {count} with {what}" for what, count in found.items() if count]
    command = f"python data_prep/transcode.py --list {out / 'list.csv'} --out FOLDER --short-side 256 --gop 12"
    return [*lines, f"To load them quickly: {command}"] if lines else []


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; exit status 1 if some videos are bad, 2 for wrong input."""
    parser = argparse.ArgumentParser(description="Find the videos of a list that cannot be read.")
    add_common_options(parser, time_limit_seconds=30)
    parser.add_argument("--again", action="store_true", help="decode even what the cache has")
    given = parser.parse_args(arguments)
    run_program(lambda: verify(given))


if __name__ == "__main__":
    main()
