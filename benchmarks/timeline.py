"""How well `--timeline` finds where one action ends and the next begins, in long videos whose actions are known.

    python benchmarks/timeline.py runs/demo/best.ckpt        # a checkpoint of `make demo`; writes results/timeline.md

Each video is one motion scene (data_prep/motion.py, easy) in which three different actions follow one another without
a cut, 4 seconds each; the next begins where the last has left things. 30 videos, each with three strides: a half (the
default), a third and a quarter of a window. Right means: three segments with the right classes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from report import circumstances, table, write

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from a2video.data.samplers import span
from a2video.inference.classifier import VideoClassifier
from a2video.inference.timeline import timeline
from data_prep import motion

EACH = 120  # frames of an action
NUM_VIDEOS = 30


def long_video(path: Path, labels: list[str], seed: int) -> Path:
    """One scene in which the actions follow one another."""
    positions_of, num_frames = motion.target_positions, motion.NUM_FRAMES

    def chained(_: str, start: motion.Array, course: motion.Course, times: motion.Array, beats: bool) -> motion.Array:
        parts = []
        for label in labels:
            positions = positions_of(label, start, course, np.arange(EACH + 1.0), beats)
            parts.append(positions[:, :-1])
            start = positions[:, -1]
        return np.concatenate(parts, 1)

    try:
        motion.target_positions, motion.NUM_FRAMES = chained, EACH * len(labels)
        frames = motion.render("", np.random.default_rng(seed), motion.DIFFICULTIES["easy"])
    finally:
        motion.target_positions, motion.NUM_FRAMES = positions_of, num_frames
    motion.encode(path, frames)
    return path


def main() -> None:
    """Makes the videos and measures."""
    torch.set_num_threads(1)
    classifier = VideoClassifier.load(sys.argv[1], "cpu")
    window = span(classifier.preprocessing.num_frames, classifier.preprocessing.frame_stride)
    errors: dict[int, list[float]] = {2: [], 3: [], 4: []}  # of boundaries, in seconds, by windows over each moment
    num_right = dict.fromkeys(errors, 0)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(NUM_VIDEOS):
            labels = [motion.CLASSES[i] for i in rng.choice(len(motion.CLASSES), 3, replace=False)]
            video = long_video(Path(folder) / "long.mp4", labels, seed)
            for part in errors:
                segments = timeline(classifier, video, window // part / motion.FRAME_RATE).segments
                if [segment.label for segment in segments] != labels:
                    print(labels, part, segments)
                    continue
                num_right[part] += 1
                for number, segment in enumerate(segments[:-1], 1):
                    errors[part].append(abs(segment.end_seconds - number * EACH / motion.FRAME_RATE))
    rows = []
    for part, found in errors.items():
        stride = window // part / motion.FRAME_RATE
        within = np.mean(np.array(found) <= stride + 1e-6)
        rows.append(
            [f"1/{part} of a window", f"{stride:.3f}", f"{num_right[part]} of {NUM_VIDEOS}", f"{np.mean(found):.3f}",
             f"{max(found):.3f}", f"{within:.1%}"]
        )  # fmt: skip
    header = ["stride", "seconds", "right", "mean error of boundaries, s", "largest", "within a stride"]
    about = f"The network has seen clips of {window / motion.FRAME_RATE:.2f} seconds of single actions only."
    parts = ["# Timeline", circumstances(["torch", "av"]), (__doc__ or "").split("\n\n", 2)[2].strip(), about]
    write("timeline", "\n\n".join([*parts, table(header, rows)]))


if __name__ == "__main__":
    main()
