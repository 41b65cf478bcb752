"""Does double attention earn its cost? Networks that differ in their blocks alone, trained alike, seed by seed.

    python benchmarks/ablation.py                 # `make ablation`: writes results/ablation.md and .png
    python benchmarks/ablation.py --size short    # does it run: a minute, on made-up data alone, writes to --out
    python benchmarks/ablation.py --size paper    # the paper's input and width, for a GPU: results/ablation_paper.md

From scratch, in what a CPU can do in minutes, chance decides when a network begins to learn, and hides what blocks do.
So for each seed a network without blocks is trained first. From its weights every row goes on, with its new blocks and
with all of its weights trained: the same clips in the same order, as many steps, the same rates. Every training is one
`a2video fit` and one `a2video test`, whose commands lie in the folder of the run; run again, only what is missing or
has changed is done. The last weights are tested, none are chosen. "step" is the time of forward pass, backward pass and
update as a share of that of the network without blocks, measured in turn in one process.

Squeeze and excitation halves its input at first, all other blocks start as the identity.

Accuracies are mean ± standard deviation over seeds in percent. Differences are of the same seed, in points, with the
95 % interval of their mean by Student's t; bold leaves out zero. There are many of them, so that a few bold ones are to
be expected by chance, and intervals over seeds say nothing of other test videos.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import gather_maps
import torch
from ablation_networks import BASE, BOTH, NETWORKS, OTHERS, TWO, Network
from ablation_runs import OfFit, Run, Runs, finish_all, plan, pretrained, seed_by_seed
from ablation_tables import Row, accuracies, against, draw, read_scores, wilson
from network import Line, seconds, step_of
from report import RESULTS, circumstances, table, write
from torch import nn

from a2video.models.catalog import count_multiply_adds, count_parameters

ROOT = Path(__file__).resolve().parents[1]
MOTIONS = {  # groups of classes of data_prep/motion.py
    "one object": ("right", "down", "left", "up", "clockwise", "counterclockwise"),
    "two objects": ("same_way", "opposite_ways", "follow"),
}
FIGHTS = ROOT.parent / "shared/data/surveillance_fights"
IN_MEMORY = ("--data.reader", "memory_reader.MemoryReader")
FIGHTS_OPTIONS = [  # smaller than the configuration's own, which thirty trainings must be
    *("--data.preprocessing.short_side", "56", "--data.preprocessing.crop_size", "48", "--data.train_short_side"),
    *("[56, 70]", "--data.preprocessing.num_crops", "1", "--data.num_workers", "0"),
    *IN_MEMORY,
]
FIGHT_CLASSES = {"mean recall": ("fight", "no_fight")}


@dataclass(frozen=True)
class Motion:
    """Generated videos: see data_prep/motion.py for the difficulty."""

    difficulty: str
    num_train: int
    num_test: int

    @property
    def described(self) -> str:
        """In words."""
        return f"{self.num_train:,} videos of the {self.difficulty} kind"


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        config: of the trainings on motion.
        width: of the networks' first bottlenecks; the paper's is 32.
        first_motion: what the network without blocks is trained on.
        motion: what all rows are trained and tested on.
        short_side: of the motion videos, pixels.
        networks: the rows.
        others: more of them, with the first three seeds.
        seeds: of each row.
        of_first: options of the first training, of the network without blocks.
        options: further ones of `a2video fit` and `test`.
    """

    config: str
    width: int
    first_motion: Motion
    motion: Motion
    short_side: int
    of_first: tuple[str, ...]
    networks: tuple[Network, ...] = NETWORKS
    others: tuple[Network, ...] = OTHERS
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    options: tuple[str, ...] = IN_MEMORY


SMALL = Size(
    "configs/motion/ablation.yaml",
    8,
    Motion("easy", 2016, 504),
    Motion("medium", 2016, 900),
    40,
    ("--trainer.max_epochs", "12", "--model.optimizer.init_args.lr", "0.006"),
)
SIZES = {
    "small": SMALL,
    "paper": Size(
        "configs/motion/ablation_paper.yaml",
        32,
        Motion("medium", 20_160, 900),
        Motion("hard", 20_160, 1_800),
        112,
        ("--trainer.max_epochs", "30"),
        options=(),
    ),
    "short": replace(
        SMALL,
        width=2,
        first_motion=Motion("easy", 18, 9),
        motion=Motion("easy", 18, 9),
        of_first=(),
        networks=(BASE, TWO),
        others=OTHERS[-1:],
        seeds=(0,),
        options=(*IN_MEMORY, "--trainer.max_epochs", "1"),
    ),
}


def rows_of(runs: Runs, groups: Mapping[str, Sequence[str]]) -> list[Row]:
    """What came of them."""
    rows = []
    for network, of_row in runs.items():
        found = {seed: read_scores(run.folder, groups) for seed, run in of_row.items()}
        names = next(iter(found.values()))
        rows.append(Row(network.name, {name: {seed: of[name] for seed, of in found.items()} for name in names}))
    return rows


def prepare(script: str, *options: object) -> None:
    """Runs a script of data_prep/, which leaves alone what is there."""
    subprocess.run([sys.executable, f"data_prep/{script}", *map(str, options)], check=True)


def small_copies(lists: Path, out: Path, short_side: int) -> list[str]:
    """Copies of videos, as small as a training sees them; as options of `a2video fit`."""
    options = []
    for name in ("train", "test"):
        prepare("transcode.py", "--list", lists / f"{name}.csv", "--out", out / name, "--short-side", short_side)
        options += [f"--data.{name}_list", str(out / name / "list.csv")]
    return options


def make_motion(out: Path, data: Motion, size: Size) -> list[str]:
    """Videos of motion, made where they are missing, and small copies; as options of `a2video fit` and `test`."""
    folder = out / "data" / data.difficulty
    counts = ["--num-train", data.num_train, "--num-val", 0, "--num-test", data.num_test]
    prepare("motion.py", "--out", folder, "--difficulty", data.difficulty, *counts)
    return small_copies(folder, out / "small" / data.difficulty, size.short_side)


def step_times(networks: Sequence[nn.Module], clip: tuple[int, ...], rounds: int) -> list[float]:
    """The time of a training step by that of the first network in the same round: the median over rounds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    clips, labels = torch.randn(16, 3, *clip, device=device), torch.arange(16, device=device) % 9
    line = Line("", "", bfloat16=device.type == "cuda", channels_last=True)
    steps = [step_of(line, network, clips, labels) for network in networks]
    for step in steps:
        step()
    times = [[seconds(step, device) for step in steps] for _ in range(rounds)]
    return [statistics.median(of_round[k] / of_round[0] for of_round in times) for k in range(len(steps))]


def on_motion(out: Path, size: Size, pool: Executor) -> tuple[Runs, list[Row], list[str]]:
    """Trains and tests on motion: the runs, what came of them, and the lines of a section."""
    num_classes = sum(map(len, MOTIONS.values()))
    options = ["--config", size.config, *make_motion(out, size.first_motion, size), *size.options]
    of_base = {BASE: options + BASE.options(num_classes, size.width)}
    first = plan(out / "first", of_base, size.seeds, lambda network, seed: [*size.of_first])
    finish_all("from scratch", seed_by_seed(first), pool)
    options = ["--config", size.config, *make_motion(out, size.motion, size), *size.options]

    def planned(networks: Sequence[Network], seeds: Sequence[int]) -> Runs:
        of_all = {network: options + network.options(num_classes, size.width) for network in networks}
        return plan(out / "motion", of_all, seeds, lambda network, seed: pretrained(first[BASE][seed]))

    runs = planned(size.networks, size.seeds) | planned(size.others, size.seeds[:3])
    finish_all("motion", seed_by_seed(runs), pool)
    before = rows_of(first, MOTIONS)[0].scores["video"].values()
    results = json.loads((runs[BASE][size.seeds[0]].folder / "results.json").read_text())
    clip = (results["preprocessing"]["num_frames"], *[results["preprocessing"]["crop_size"]] * 2)
    built = [network.build(num_classes, size.width) for network in runs]
    times = step_times(built, clip, rounds=3 * len(size.seeds))
    rows = [
        replace(row, millions=count_parameters(net) / 1e6, mega=count_multiply_adds(net, clip) / 1e6, step=step)
        for row, net, step in zip(rows_of(runs, MOTIONS), built, times, strict=True)
    ]
    main_rows, first_seeds = rows[: len(size.networks)], size.seeds[:3]
    compared = [row.only(first_seeds) for row in (rows[0], main_rows[list(runs).index(TWO)], *rows[len(main_rows) :])]
    lines = [
        f"## Motion: {results['num_videos']} test videos, {results['protocol']}",
        f"`{size.config}`. First without blocks on {size.first_motion.described}, of whose test videos these shares "
        f"are classified right then, seed by seed: {', '.join(f'{top:.1%}' for top in before)}.",
        f"From there on {size.motion.described}:",
        table(*accuracies(main_rows, MOTIONS, with_costs=True)),
        "The same seed with and without:",
        table(*against(main_rows, main_rows[0], MOTIONS)),
        f"Other blocks and places, a higher rate for blocks, or blocks awake from the start; {len(first_seeds)} seeds:",
        table(*accuracies(compared, MOTIONS, with_costs=True)),
        table(*against(compared, compared[0], MOTIONS)),
        "## Do blocks whose norm starts at scale 0 stay asleep?",
        "What each block adds to its input in the end, by norm, without means over positions; mean size of the scale:",
        table(
            ["network", *BOTH],
            [asleep(network, of, out, size) for network, of in runs.items() if network.places == BOTH],
        ),
    ]
    return runs, rows, lines


def asleep(network: Network, runs: Mapping[int, Run], out: Path, size: Size) -> list[str]:
    """Cells: what each block adds, and its scale, the mean over the first three seeds."""
    videos = out / "data" / size.motion.difficulty
    found = [gather_maps.shares_of_blocks(runs[seed].checkpoint, videos, 9) for seed in size.seeds[:3]]
    means = [
        [statistics.mean(values) for values in zip(*of_block, strict=True)] for of_block in zip(*found, strict=True)
    ]
    return [network.name, *(f"{share:.1%}; {scale:.3f}" for share, scale in means)]


def on_fights(out: Path, size: Size, pool: Executor, motion: Runs) -> list[str]:
    """Trains and tests on real clips, from scratch and from the weights of the same seed on motion: a section."""
    lists = small_copies(FIGHTS, out / "fights", 72)
    seeds = size.seeds[:3]
    lines = [
        "## Surveillance fights",
        "The interval of the share of test videos that always saying `fight` gets right is that of Wilson for so many "
        "videos: whatever lies within cannot be told from it, by however many seeds.",
    ]
    recipes: dict[str, tuple[str, OfFit]] = {
        "from scratch": ("a2net_tiny", lambda network, seed: []),
        "from motion": ("finetune", lambda network, seed: pretrained(motion[network][seed])),
    }
    for title, (name, of_fit) in recipes.items():
        config = f"configs/surveillance_fights/{name}.yaml"
        options = ["--config", config, *lists, *FIGHTS_OPTIONS]
        no_dropout = ["--model.network.dropout", "0"]  # new blocks draw random weights: masks would differ after them
        of_all = {network: options + network.options(2, size.width) + no_dropout for network in size.networks}
        runs = plan(out / title.replace(" ", "_"), of_all, seeds, of_fit)
        finish_all(title, seed_by_seed(runs), pool)
        results = json.loads((runs[BASE][seeds[0]].folder / "results.json").read_text())
        rows = rows_of(runs, FIGHT_CLASSES)
        majority = dict.fromkeys(seeds, results["majority_baseline"])
        low, high = wilson(results["majority_baseline"], results["num_videos"])
        name = f"always `fight` (95 %: {100 * low:.0f} to {100 * high:.0f})"
        always = Row(name, {"clip": majority, "video": majority, "mean recall": dict.fromkeys(seeds, 0.5)})
        lines += [
            f"### {title.capitalize()}: `{config}`, {results['num_videos']} test videos, {results['protocol']}",
            table(*accuracies([always, *rows], FIGHT_CLASSES)),
            "The same seed, with and without:",
            table(*against(rows, rows[0], FIGHT_CLASSES)),
        ]
    return lines


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, help="folder of data and runs; default: runs/ablation or runs/ablation_SIZE"
    )
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    given = parser.parse_args()
    name = "ablation" if given.size == "small" else f"ablation_{given.size}"
    size, out = SIZES[given.size], (given.out or ROOT / "runs" / name).resolve()
    os.chdir(ROOT)
    lines = ["# Does double attention earn its cost?", circumstances(["torch", "lightning"])]
    lines.append(__doc__.split("\n\n", 2)[2].strip())
    results = out if given.size == "short" else RESULTS
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:  # each keeps the videos in memory
        runs, rows, motion = on_motion(out, size, pool)
        draw(rows, "two objects", results / f"{name}.png")
        lines += [*motion, f"![Accuracy against multiply-adds]({name}.png)"]
        if given.size == "small" and FIGHTS.exists():
            lines += on_fights(out, size, pool, runs)
    attending = runs.get(TWO, list(runs.values())[-1])
    checkpoints = [run.checkpoint for run in attending.values()]
    videos = out / "data" / size.motion.difficulty
    lines += gather_maps.section(checkpoints, videos, min(90, size.motion.num_test), results / name)
    write(name, "\n\n".join(lines), results)


if __name__ == "__main__":
    main()
