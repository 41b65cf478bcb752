"""The part of ablation.py that trains on generated motion: everywhere, and for as long as it takes to see something."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import gather_maps
import torch
from ablation_data import IN_MEMORY, MOTIONS, WAYS, Motion
from ablation_networks import BASE, BOTH, COMPARISONS, LOCAL_TWO, TWO, Comparison, Network
from ablation_runs import OfFit, Runs, finish_all, plan, pretrained, rows_of, seed_by_seed
from ablation_tables import Row, accuracies, against, draw
from gather_maps import Attending
from network import Line, seconds, step_of
from report import table
from torch import nn

from a2video.models import DoubleAttention
from a2video.models.catalog import count_multiply_adds, count_parameters

NUM_CLASSES = sum(map(len, MOTIONS.values()))


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        config: of the trainings.
        width: of the networks' first bottlenecks; the paper's is 32.
        first_motion: what networks without blocks are trained on.
        motion: what all rows are trained and tested on.
        short_side: of the videos, pixels.
        of_first: options of the first training.
        comparisons: what is trained.
        attending: networks whose gather maps are looked at; the last ones are drawn.
        options: further ones of `a2video fit` and `test`.
    """

    config: str
    width: int
    first_motion: Motion
    motion: Motion
    short_side: int
    of_first: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = COMPARISONS
    attending: tuple[Network, ...] = (TWO, LOCAL_TWO)
    options: tuple[str, ...] = IN_MEMORY

    def motion_of(self, network: Network) -> Motion:
        """What it is trained and tested on after the first training."""
        return self.first_motion if network.again else self.motion


SMALL = Size(
    "configs/motion/ablation.yaml",
    8,
    Motion("easy", 2016, 504),
    Motion("medium", 2016, 900),
    40,
    ("--trainer.max_epochs", "12", "--model.optimizer.init_args.lr", "0.006"),
)
LOCAL_TWO_SHORT = replace(LOCAL_TWO, of_fit=())
SIZES = {
    "small": SMALL,
    "paper": Size(
        "configs/motion/ablation_paper.yaml",
        32,
        Motion("medium", 20_160, 900),
        Motion("hard", 20_160, 1_800),
        112,
        ("--trainer.max_epochs", "30"),
        COMPARISONS[:2],
        (TWO,),
        options=(),
    ),
    "short": replace(
        SMALL,
        width=2,
        first_motion=Motion("easy", 18, 9),
        motion=Motion("easy", 18, 9),
        of_first=(),
        comparisons=(
            Comparison("Blocks or none", (BASE, TWO), 1, drawn="two objects", bases=(TWO,)),
            Comparison("Local", (LOCAL_TWO_SHORT,), 1),
        ),
        attending=(TWO, LOCAL_TWO_SHORT),
        options=(*IN_MEMORY, "--trainer.max_epochs", "1"),
    ),
}


@dataclass(frozen=True)
class Trained:
    """All trainings of a size.

    Attributes:
        size: of them.
        data: has a folder of videos for each kind of motion.
        first: of networks without blocks, by network and seed.
        runs: of all rows, which start from them.
    """

    size: Size
    data: Path
    first: Runs
    runs: Runs

    def attending(self, network: Network) -> Attending:
        """The trainings of a network, to look at its maps."""
        checkpoints = [run.checkpoint for run in self.runs[network].values()]
        return Attending(
            network.name,
            lambda: network.build(NUM_CLASSES, self.size.width),
            checkpoints,
            self.data / self.size.motion_of(network).difficulty,
        )


def train(out: Path, size: Size, pool: Executor) -> Trained:
    """Trains and tests what is missing."""
    starts: dict[Network, int] = {}  # numbers of seeds
    rows: dict[Network, int] = {}
    for comparison in size.comparisons:
        for network in comparison.networks:
            for counts, key in ((starts, network.start), (rows, network)):
                counts[key] = max(counts.get(key, 0), comparison.num_seeds)

    data = {motion: motion.make(out, size.short_side) for motion in {size.first_motion, size.motion}}

    def run_all(title: str, motion: Motion, counts: dict[Network, int], of_fit: OfFit) -> Runs:
        options = ["--config", size.config, *data[motion], *size.options]
        of_all = {network: options + network.options(NUM_CLASSES, size.width) for network in counts}
        runs = plan(out / title, of_all, counts, of_fit)
        finish_all(title, seed_by_seed(runs), pool)
        return runs

    first = run_all("first", size.first_motion, starts, lambda network, seed: [*size.of_first])
    runs: Runs = {}
    for title, motion in {"motion": size.motion, "again": size.first_motion}.items():
        counts = {network: count for network, count in rows.items() if network.again == (title == "again")}
        runs |= run_all(title, motion, counts, lambda network, seed: pretrained(first[network.start][seed]))
    return Trained(size, out / "data", first, runs)


def rows_with_costs(trained: Trained, comparison: Comparison) -> list[Row]:
    """What came of the networks that are compared, and what they cost."""
    size, runs = trained.size, trained.runs
    seeds = range(comparison.num_seeds)
    runs = {network: {seed: runs[network][seed] for seed in seeds} for network in comparison.networks}
    preprocessing = runs[comparison.networks[0]][0].results["preprocessing"]
    clip = (preprocessing["num_frames"], preprocessing["crop_size"], preprocessing["crop_size"])
    built = [network.build(NUM_CLASSES, size.width) for network in runs]
    return [
        replace(row, millions=count_parameters(net) / 1e6, mega=count_multiply_adds(net, clip) / 1e6, step=step)
        for row, net, step in zip(rows_of(runs, comparison.groups), built, step_times(built, clip), strict=True)
    ]


def step_times(networks: Sequence[nn.Module], clip: tuple[int, ...], rounds: int = 9) -> list[float]:
    """The time of a training step by that of the first network in the same round: the median over rounds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    clips, labels = torch.randn(16, 3, *clip, device=device), torch.arange(16, device=device) % NUM_CLASSES
    line = Line("", "", bfloat16=device.type == "cuda", channels_last=True)
    steps = [step_of(line, network, clips, labels) for network in networks]
    for step in steps:
        step()
    times = [[seconds(step, device) for step in steps] for _ in range(rounds)]
    return [statistics.median(of_round[k] / of_round[0] for of_round in times) for k in range(len(steps))]


def section(trained: Trained, prefix: Path) -> list[str]:
    """Lines of the result: what came of each comparison. Pictures are written to files that begin with the prefix."""
    size = trained.size
    lines = [
        "## Motion",
        f"`{size.config}`, {trained.runs[BASE][0].results['protocol']}. First without blocks on "
        f"{size.first_motion.described}. Then seed by seed, on the test videos of that, in video top-1 and in the mean "
        "of same_way and opposite_ways:",
    ]
    for row in rows_of(trained.first, WAYS):
        scores = zip(row.scores["video"].values(), row.scores["same or opposite"].values(), strict=True)
        lines.append(f"- {row.name}: {', '.join(f'{top:.1%} and {ways:.1%}' for top, ways in scores)}")
    asleep: dict[Network, list[str]] = {}
    for comparison in size.comparisons:
        rows = rows_with_costs(trained, comparison)
        lines += [
            f"### {comparison.title}",
            f"{comparison.num_seeds} seeds; {_budget(trained, comparison)}:",
            *([comparison.note] if comparison.note else []),
            table(*accuracies(rows, comparison.groups, with_costs=True)),
            "Differences of the same seed:",
        ]
        for base in (comparison.networks[0], *comparison.bases):
            lines.append(table(*against(rows, rows[comparison.networks.index(base)], comparison.groups)))
        if comparison.drawn:
            picture = comparison.picture(prefix)
            draw(rows, comparison.drawn, picture)
            lines.append(f"![Gain in accuracy against multiply-adds]({picture.name})")
        attending = [network for network in comparison.networks if network.places == BOTH and _is_double(network)]
        asleep |= {network: _shares(trained.attending(network)) for network in attending}
    return [
        *lines,
        "### Do blocks whose norm starts at scale 0 stay asleep?",
        "What each block adds to its input in the end, by norm, without means over positions; mean size of the scale. "
        "Nine test videos, the first three seeds:",
        table(["network", *BOTH], list(asleep.values())),
    ]


def _budget(trained: Trained, comparison: Comparison) -> str:
    """What all rows of a comparison had, in words; RuntimeError if they had not the same."""
    runs = [run for network in comparison.networks for run in trained.runs[network].values()]
    updates = {torch.load(run.checkpoint, weights_only=True)["global_step"] for run in runs}
    motions = {trained.size.motion_of(network) for network in comparison.networks}
    if len(updates) != 1 or len(motions) != 1:
        raise RuntimeError(f"{comparison.title}: rows had {sorted(updates)} updates on {motions}, not the same")
    motion = motions.pop()
    return f"{updates.pop():,} updates on {motion.described}, {motion.num_test} test videos"


def _is_double(network: Network) -> bool:
    """Whether its blocks are double attention, or variants of it."""
    return any(isinstance(module, DoubleAttention) for module in network.build(NUM_CLASSES, SMALL.width).modules())


def _shares(network: Attending) -> list[str]:
    """Cells: what each block adds, and its scale, the mean over the first three seeds."""
    found = [
        gather_maps.shares_of_blocks(network.load(seed), network.data, 9)
        for seed in range(min(3, len(network.checkpoints)))
    ]
    means = [
        [statistics.mean(values) for values in zip(*of_block, strict=True)] for of_block in zip(*found, strict=True)
    ]
    return [network.name, *(f"{share:.1%}; {scale:.3f}" for share, scale in means)]
