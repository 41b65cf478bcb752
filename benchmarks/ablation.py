"""Does double attention earn its cost? Networks that differ in their blocks alone, trained alike, seed by seed.

    python benchmarks/ablation.py                 # `make ablation`: writes results/ablation.md and pictures
    python benchmarks/ablation.py --size short    # does it run: a minute, on made-up data alone, writes to --out
    python benchmarks/ablation.py --size paper    # the paper's input and width, for a GPU: results/ablation_paper.md

From scratch, in what a CPU can do in minutes, chance decides when a network begins to learn, and hides what blocks do.
So for each seed a network without blocks is trained first. From its weights every row goes on, with its new blocks and
with all of its weights trained: the same clips in the same order, as many steps, and the same rates where a row does
not say otherwise. Every training is one `a2video fit` and one `a2video test`, whose commands lie in the folder of the
run. Run again, only what is missing is done, or has other options now, or starts from newer weights; after changes of
code or configurations, remove its folder. The last weights are tested, none are chosen. "step" is the time of forward
pass, backward pass and update (Sgd) as a share of that of the network without blocks, in turn in one process.

Squeeze and excitation halves its input at first; all other blocks start as the identity, unless a row says otherwise.
Accuracies are mean ± standard deviation over seeds in percent. Differences are of the same seed, in points, with the
95 % interval of their mean by Student's t; bold leaves out zero. There are many of them, so that a few bold ones are to
be expected by chance, and intervals over seeds say nothing of other test videos.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import ablation_fights
import ablation_motion
import gather_maps
from report import RESULTS, circumstances, write

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, help="folder of data and runs; default: runs/ablation or runs/ablation_SIZE"
    )
    parser.add_argument("--size", choices=ablation_motion.SIZES, default="small")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    given = parser.parse_args()
    name = "ablation" if given.size == "small" else f"ablation_{given.size}"
    size, out = ablation_motion.SIZES[given.size], (given.out or ROOT / "runs" / name).resolve()
    os.chdir(ROOT)
    lines = ["# Does double attention earn its cost?", circumstances(["torch", "lightning"])]
    lines.append(__doc__.split("\n\n", 2)[2].strip())
    results = out if given.size == "short" else RESULTS
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:  # each keeps the videos in memory
        trained = ablation_motion.train(out, size, pool)
        fights = []
        if given.size == "small":
            fights = ablation_fights.on_fights(out, size.width, pool, trained.runs)
    lines += [*ablation_motion.section(trained, results / name), *fights]
    attending = [trained.attending(network) for network in size.attending]
    lines += gather_maps.section(attending, min(90, size.motion.num_test), results / name)
    write(name, "\n\n".join(lines), results)


if __name__ == "__main__":
    main()
