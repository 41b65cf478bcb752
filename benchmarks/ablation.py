"""Does double attention earn its cost? Networks that differ in their blocks alone, trained alike, seed by seed.

    python benchmarks/ablation.py                 # `make ablation`: writes results/ablation.md and .png
    python benchmarks/ablation.py --size short    # does it run: a minute, on made-up data alone, writes to --out
    python benchmarks/ablation.py --size paper    # the paper's input and width, for a GPU: results/ablation_paper.md

Every training is one `a2video fit` and one `a2video test`; their commands lie in the folder of the run. Give the same
command again and only what is missing or has changed is run. Networks of one seed start from the same weights (blocks
are drawn after the rest), see the same clips in the same order, and take the same number of steps at the same rates.
The last weights are tested, none are chosen. "step" is the time of forward pass, backward pass and update as a share of
that of the network without blocks, measured in turn in one process.

Accuracies are mean ± standard deviation over seeds in percent. Differences are of the same seed, in points, with the
95 % interval of their mean by Student's t; bold leaves out zero. There are many of them, so that a few bold ones are to
be expected by chance, and intervals over seeds say nothing of other test videos.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from ablation_tables import Row, accuracies, against, draw, read_scores
from network import Line, seconds, step_of
from report import RESULTS, circumstances, table, write
from torch import nn
from tqdm import tqdm

from a2video import models
from a2video.models.catalog import count_multiply_adds, count_parameters

ROOT = Path(__file__).resolve().parents[1]
MOTIONS = {  # groups of classes of data_prep/motion.py
    "one object": ("right", "down", "left", "up", "clockwise", "counterclockwise"),
    "two objects": ("same_way", "opposite_ways", "follow"),
}
FIGHTS = ROOT.parent / "shared/data/surveillance_fights"
FIGHTS_OPTIONS = [  # smaller than the configuration's own, which fifty trainings must be
    *("--data.preprocessing.short_side", "56", "--data.preprocessing.crop_size", "48", "--data.train_short_side"),
    *("[56, 70]", "--data.preprocessing.num_crops", "1", "--data.num_workers", "0"),
]
FIGHT_CLASSES = {"mean recall": ("fight", "no_fight")}


@dataclass(frozen=True)
class Network:
    """A row: a builder of a2video.models, the places of its blocks, and the ratio of channels to inner channels."""

    name: str
    builder: str
    places: tuple[str, ...] = ()
    ratio: int = 4
    on_fights: bool = False

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
BASE = Network("no block", "resnet26", on_fights=True)
NETWORKS = (
    BASE,
    Network("squeeze-excitation, conv4, c/16", "se_resnet26", CONV4, 16),
    Network("1 non-local, conv4, c/4", "nonlocal_resnet26", CONV4, on_fights=True),
    Network("1 double attention, conv4, c/4", "a2net_resnet26", CONV4, on_fights=True),
    Network("1 double attention, conv4, c/2", "a2net_resnet26", CONV4, 2),
    Network("1 double attention, conv3, c/4", "a2net_resnet26", ("conv3.1",)),
    Network("2 double attention, conv3 and conv4, c/4", "a2net_resnet26", BOTH, on_fights=True),
    Network("4 double attention, conv3 and conv4, c/4", "a2net_resnet26", FOUR, on_fights=True),
)


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        config: of the trainings on motion.
        width: of the networks' first bottlenecks; the paper's is 32.
        difficulty: of the motion data, see data_prep/motion.py.
        num_videos: of motion to train on, and to test on.
        networks: the rows.
        seeds: of each row.
        of_fit: further options of `a2video fit`.
    """

    config: str
    width: int
    difficulty: str
    num_videos: tuple[int, int]
    networks: tuple[Network, ...] = NETWORKS
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    of_fit: tuple[str, ...] = ()


SMALL = Size("configs/motion/ablation.yaml", 8, "easy", (2016, 504))
SIZES = {
    "small": SMALL,
    "paper": Size("configs/motion/ablation_paper.yaml", 32, "hard", (20_160, 1_800)),
    "short": replace(
        SMALL,
        width=2,
        num_videos=(18, 9),
        networks=(BASE, NETWORKS[3]),
        seeds=(0,),
        of_fit=("--trainer.max_epochs", "1"),
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
        """What is run, one after the other."""
        program, folder = [sys.executable, "-m", "a2video"], ["--trainer.default_root_dir", str(self.folder)]
        return [
            [*program, "fit", *self.options, *folder, *self.of_fit, "--overwrite", "true"],
            [*program, "test", *self.options, *folder, "--ckpt_path", str(self.checkpoint)],
        ]

    @property
    def checkpoint(self) -> Path:
        """The last weights."""
        return self.folder / "last.ckpt"

    def finish(self) -> None:
        """Runs both, unless that has been done; RuntimeError with the last line of the one that fails."""
        record, text = self.folder / "commands.txt", "\n".join(map(shlex.join, self.commands)) + "\n"
        if (self.folder / "results.json").exists() and record.exists() and record.read_text() == text:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("results.json", "scores.parquet"):
            (self.folder / name).unlink(missing_ok=True)
        record.write_text(text)
        with (self.folder / "log.txt").open("w+") as log:
            for command in self.commands:
                done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False)
                if done.returncode:
                    log.seek(0)
                    last = (log.read().strip() or "without a word").splitlines()[-1]
                    raise RuntimeError(f"{shlex.join(command)} ended with status {done.returncode}: {last}")


Runs = dict[Network, dict[int, Run]]  # by seed


def plan(
    folder: Path, config: str, networks: Sequence[Network], num_classes: int, lists: list[str], size: Size
) -> Runs:
    """A run for each network and seed."""
    return {
        network: {
            seed: Run(
                folder / network.folder / str(seed),
                ["--config", config, *network.options(num_classes, size.width), *lists],
                ["--seed_everything", str(seed), *size.of_fit],
            )
            for seed in size.seeds
        }
        for network in networks
    }


def finish_all(title: str, runs: Runs, jobs: int) -> None:
    """Runs what is missing, some at a time, seed by seed; when one fails the others go on, and its error comes last."""
    in_order = sorted((seed, number) for number, of_row in enumerate(runs.values()) for seed in of_row)
    rows = list(runs.values())
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(rows[number][seed].finish) for seed, number in in_order]
        for _ in tqdm(as_completed(running), desc=title, total=len(running), unit="run"):
            pass
    for run in running:
        run.result()


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
    subprocess.run([sys.executable, f"data_prep/{script}", *map(str, options)], cwd=ROOT, check=True)


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


def on_motion(out: Path, size: Size, jobs: int) -> tuple[Runs, list[Row], list[str]]:
    """Trains and tests on motion: the runs, what came of them, and the lines of a section."""
    num_train, num_test = size.num_videos
    counts = ["--num-train", num_train, "--num-val", 0, "--num-test", num_test]
    prepare("motion.py", "--out", out / "data", "--difficulty", size.difficulty, *counts)
    lists = ["--data.train_list", str(out / "data/train.csv"), "--data.test_list", str(out / "data/test.csv")]
    num_classes = sum(map(len, MOTIONS.values()))
    runs = plan(out / "motion", size.config, size.networks, num_classes, lists, size)
    finish_all("motion", runs, jobs)
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
            f"{num_train} videos to train on, `--difficulty {size.difficulty}`, `{size.config}`.",
            table(*accuracies(rows, MOTIONS, with_costs=True)),
            "The same seed with and without:",
            table(*against(rows, rows[0], MOTIONS)),
        ],
    )


def on_fights(out: Path, size: Size, jobs: int, motion: Runs) -> list[str]:
    """Trains and tests on real clips, from scratch and from the weights of the same seed on motion: a section."""
    lists = [*FIGHTS_OPTIONS]
    for name in ("train", "test"):  # small copies, or decoding would take most of the time
        prepare("transcode.py", "--list", FIGHTS / f"{name}.csv", "--out", out / "fights" / name, "--short-side", 72)
        lists += [f"--data.{name}_list", str(out / "fights" / name / "list.csv")]
    lines = ["## Surveillance fights"]
    networks = [network for network in size.networks if network.on_fights]
    for title, config in (("from scratch", "a2net_tiny"), ("from motion", "finetune")):
        config = f"configs/surveillance_fights/{config}.yaml"
        runs = plan(out / title.replace(" ", "_"), config, networks, len(FIGHT_CLASSES["mean recall"]), lists, size)
        if title == "from motion":
            for network, of_row in runs.items():
                for seed, run in of_row.items():
                    run.of_fit.extend(["--model.pretrained", str(motion[network][seed].checkpoint)])
        finish_all(title, runs, jobs)
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
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder of data and runs")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    given = parser.parse_args()
    size, out = SIZES[given.size], given.out.resolve()
    runs, rows, motion = on_motion(out, size, given.jobs)
    name = {"small": "ablation", "paper": "ablation_paper"}.get(given.size)
    lines = ["# Does double attention earn its cost?", circumstances(["torch", "lightning"])]
    lines += [__doc__.split("\n\n", 2)[2].strip(), *motion]
    picture = RESULTS / f"{name}.png" if name else out / "ablation.png"
    draw(rows, "two objects", picture)
    lines.append(f"![Accuracy against multiply-adds]({picture.name})")
    if given.size == "small" and FIGHTS.exists():
        lines += on_fights(out, size, given.jobs, runs)
    text = "\n\n".join(lines)
    if name:
        write(name, text)
    else:
        (out / "ablation.md").write_text(text + "\n")
    print(f"Wrote {picture}" if name else f"Wrote {out / 'ablation.md'} and {picture}")


if __name__ == "__main__":
    main()
