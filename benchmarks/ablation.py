"""Does double attention earn its cost? Networks that differ in their blocks alone, trained alike, seed by seed.

    python benchmarks/ablation.py                 # `make ablation`: writes results/ablation.md and .png
    python benchmarks/ablation.py --size short    # does it run: a minute, on made-up data alone, writes to --out
    python benchmarks/ablation.py --size paper    # the paper's input and width, for a GPU: results/ablation_paper.md

For each seed a network without blocks is trained first. From its weights every row goes on, with its new blocks and
with all of its weights trained: the same clips in the same order, as many steps, the same rates. (From scratch, in what
a CPU can do in minutes, chance decides when a network begins to learn, and hides what the blocks do.) Every training is
one `a2video fit` and one `a2video test`, whose commands lie in the folder of the run; run again, only what is missing
or has changed is done. The last weights are tested, none are chosen. "step" is the time of forward pass, backward pass
and update as a share of that of the network without blocks, measured in turn in one process.

Accuracies are mean ± standard deviation over seeds in percent. Differences are of the same seed, in points, with the
95 % interval of their mean by Student's t; bold leaves out zero. There are many of them, so that a few bold ones are to
be expected by chance, and intervals over seeds say nothing of other test videos.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path

import gather_maps
import torch
from ablation_tables import Row, accuracies, against, draw, read_scores, spread
from network import Line, seconds, step_of
from report import RESULTS, circumstances, table, write
from torch import nn
from tqdm import tqdm

from a2video import cli, models
from a2video.models.catalog import count_multiply_adds, count_parameters

ROOT = Path(__file__).resolve().parents[1]
MOTIONS = {  # groups of classes of data_prep/motion.py
    "one object": ("right", "down", "left", "up", "clockwise", "counterclockwise"),
    "two objects": ("same_way", "opposite_ways", "follow"),
}
FIGHTS = ROOT.parent / "shared/data/surveillance_fights"
IN_MEMORY = ("--data.reader", "memory_reader.MemoryReader")
FIGHTS_OPTIONS = [  # smaller than the configuration's own, which fifty trainings must be
    *("--data.preprocessing.short_side", "56", "--data.preprocessing.crop_size", "48", "--data.train_short_side"),
    *("[56, 70]", "--data.preprocessing.num_crops", "1", "--data.num_workers", "0"),
    *IN_MEMORY,
]
FIGHT_CLASSES = {"mean recall": ("fight", "no_fight")}


@dataclass(frozen=True)
class Network:
    """A row: a builder of a2video.models, the places of its blocks, and the ratio of channels to inner channels.

    Main ones have all seeds, and are tried on real clips too; the others have the first three seeds.
    """

    name: str
    builder: str
    places: tuple[str, ...] = ()
    ratio: int = 4
    is_main: bool = False

    def arguments(self, num_classes: int, width: int) -> dict[str, object]:
        """Of the builder."""
        given: dict[str, object] = {"num_classes": num_classes, "width": width}
        return given | ({"places": list(self.places), "ratio": self.ratio} if self.places else {})

    def options(self, num_classes: int, width: int) -> list[str]:
        """The same for `a2video fit` and `test`."""
        given = ["--model.network", f"a2video.models.{self.builder}"]
        for name, value in self.arguments(num_classes, width).items():
            given += [f"--model.network.{name}", json.dumps(value)]
        return given

    def build(self, num_classes: int, width: int) -> nn.Module:
        """With random weights."""
        return models.BUILDERS[self.builder](**self.arguments(num_classes, width))

    @property
    def folder(self) -> str:
        """Of its runs."""
        return "-".join([self.builder, *self.places, f"r{self.ratio}"] if self.places else [self.builder])


CONV4, BOTH, FOUR = ("conv4.1",), ("conv3.1", "conv4.1"), ("conv3.1", "conv3.2", "conv4.1", "conv4.2")
BASE = Network("no block", "resnet26", is_main=True)
NETWORKS = (
    BASE,
    Network("squeeze-excitation, conv4, c/16", "se_resnet26", CONV4, 16),
    Network("1 non-local, conv4, c/4", "nonlocal_resnet26", CONV4, is_main=True),
    Network("1 double attention, conv4, c/4", "a2net_resnet26", CONV4, is_main=True),
    Network("1 double attention, conv4, c/2", "a2net_resnet26", CONV4, 2),
    Network("1 double attention, conv3, c/4", "a2net_resnet26", ("conv3.1",)),
    Network("2 double attention, conv3 and conv4, c/4", "a2net_resnet26", BOTH, is_main=True),
    Network("4 double attention, conv3 and conv4, c/4", "a2net_resnet26", FOUR, is_main=True),
)


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
        networks=(BASE, NETWORKS[3]),
        seeds=(0,),
        options=(*IN_MEMORY, "--trainer.max_epochs", "1"),
    ),
}


@dataclass(frozen=True)
class Run:
    """One training and its test: the folder they write to, the options of both, and those of the training alone."""

    folder: Path
    options: list[str]
    of_fit: list[str]

    @property
    def commands(self) -> list[list[str]]:
        """Arguments of `a2video`, one command after the other."""
        folder = ["--trainer.default_root_dir", str(self.folder)]
        return [
            ["fit", *self.options, *folder, *self.of_fit, "--overwrite", "true"],
            ["test", *self.options, *folder, "--ckpt_path", str(self.checkpoint)],
        ]

    @property
    def checkpoint(self) -> Path:
        """The last weights."""
        return self.folder / "last.ckpt"

    def finish(self) -> None:
        """Runs both, unless that has been done; RuntimeError with the last line of the one that fails."""
        record = self.folder / "commands.txt"
        text = "".join(f"PYTHONPATH=benchmarks a2video {shlex.join(command)}\n" for command in self.commands)
        if (self.folder / "results.json").exists() and record.exists() and record.read_text() == text:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("results.json", "scores.parquet"):
            (self.folder / name).unlink(missing_ok=True)
        record.write_text(text)
        with (self.folder / "log.txt").open("w+") as log, redirect_stdout(log), redirect_stderr(log):
            for command in self.commands:
                try:
                    cli.main(command)
                except SystemExit as end:
                    if end.code:
                        log.seek(0)
                        last = (log.read().strip() or "without a word").splitlines()[-1]
                        raise RuntimeError(
                            f"{self.folder}: a2video {command[0]} ended with status {end.code}: {last}"
                        ) from None


Runs = dict[Network, dict[int, Run]]  # by seed
OfFit = Callable[[Network, int], list[str]]  # options for a network and a seed


def pretrained(run: Run) -> list[str]:
    """Options of a training that starts from the weights of another."""
    return ["--model.pretrained", str(run.checkpoint)]


def plan(
    folder: Path, options: list[str], networks: Sequence[Network], num_classes: int, size: Size, of_fit: OfFit
) -> Runs:
    """A run for each network and seed; `of_fit` has further options of its training."""
    return {
        network: {
            seed: Run(
                folder / network.folder / str(seed),
                [*options, *network.options(num_classes, size.width)],
                ["--seed_everything", str(seed), *of_fit(network, seed)],
            )
            for seed in (size.seeds if network.is_main else size.seeds[:3])
        }
        for network in networks
    }


def finish_all(title: str, runs: Iterable[Run], pool: Executor) -> None:
    """Runs what is missing; when one fails the others go on, and its error comes last."""
    running = [pool.submit(Run.finish, run) for run in runs]
    for _ in tqdm(as_completed(running), desc=title, total=len(running), unit="run"):
        pass
    for run in running:
        run.result()


def seed_by_seed(runs: Runs) -> list[Run]:
    """So that all rows have as many seeds at any time."""
    of_rows = [list(of_row.values()) for of_row in runs.values()]
    return [run for of_seed in zip_longest(*of_rows) for run in of_seed if run is not None]


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
    first = plan(out / "first", options, [BASE], num_classes, size, lambda network, seed: [*size.of_first])
    finish_all("without blocks", first[BASE].values(), pool)
    options = ["--config", size.config, *make_motion(out, size.motion, size), *size.options]
    runs = plan(
        out / "motion", options, size.networks, num_classes, size, lambda network, seed: pretrained(first[BASE][seed])
    )
    finish_all("motion", seed_by_seed(runs), pool)
    before = spread(rows_of(first, MOTIONS)[0].scores["video"])
    results = json.loads((runs[BASE][size.seeds[0]].folder / "results.json").read_text())
    clip = (results["preprocessing"]["num_frames"], *[results["preprocessing"]["crop_size"]] * 2)
    networks = [network.build(num_classes, size.width) for network in size.networks]
    times = step_times(networks, clip, rounds=3 * len(size.seeds))
    rows = [
        replace(row, millions=count_parameters(net) / 1e6, mega=count_multiply_adds(net, clip) / 1e6, step=step)
        for row, net, step in zip(rows_of(runs, MOTIONS), networks, times, strict=True)
    ]
    return (
        runs,
        rows,
        [
            f"## Motion: {results['num_videos']} test videos, {results['protocol']}",
            f"`{size.config}`. First {size.first_motion.described}: without blocks, {before} % of its test videos are "
            f"classified right by then. From there {size.motion.described}:",
            table(*accuracies(rows, MOTIONS, with_costs=True)),
            "The same seed with and without:",
            table(*against(rows, rows[0], MOTIONS)),
        ],
    )


def on_fights(out: Path, size: Size, pool: Executor, motion: Runs) -> list[str]:
    """Trains and tests on real clips, from scratch and from the weights of the same seed on motion: a section."""
    lists = small_copies(FIGHTS, out / "fights", 72)
    networks = [network for network in size.networks if network.is_main]
    lines = ["## Surveillance fights"]
    recipes: dict[str, tuple[str, OfFit]] = {
        "from scratch": ("a2net_tiny", lambda network, seed: []),
        "from motion": ("finetune", lambda network, seed: pretrained(motion[network][seed])),
    }
    for title, (name, of_fit) in recipes.items():
        config = f"configs/surveillance_fights/{name}.yaml"
        options = ["--config", config, *lists, *FIGHTS_OPTIONS]
        runs = plan(out / title.replace(" ", "_"), options, networks, 2, size, of_fit)
        finish_all(title, seed_by_seed(runs), pool)
        results = json.loads((runs[BASE][0].folder / "results.json").read_text())
        rows = rows_of(runs, FIGHT_CLASSES)
        majority = dict.fromkeys(size.seeds, results["majority_baseline"])
        always = Row(
            "always fight", {"clip": majority, "video": majority, "mean recall": dict.fromkeys(size.seeds, 0.5)}
        )
        lines += [
            f"### {title.capitalize()}: `{config}`, {results['num_videos']} test videos, {results['protocol']}",
            table(*accuracies([always, *rows], FIGHT_CLASSES)),
            "The same seed, by the network without blocks, and by always saying `fight`:",
            table(*against(rows, rows[0], FIGHT_CLASSES)),
            table(*against(rows, always, FIGHT_CLASSES)),
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
    size, out = SIZES[given.size], (given.out or Path("runs") / name).resolve()
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
    attending = max(
        (n for n in runs if n.builder == "a2net_resnet26" and len(n.places) < 3), key=lambda n: len(n.places)
    )
    checkpoints = [run.checkpoint for run in runs[attending].values()]
    videos = out / "data" / size.motion.difficulty
    lines += gather_maps.section(checkpoints, videos, min(90, size.motion.num_test), results)
    write(name, "\n\n".join(lines), results)


if __name__ == "__main__":
    main()
