"""Do the gather maps of double attention follow the objects? Told by where data_prep/motion.py drew these, and shown.

A map's weight near objects is the share of its weight on positions whose centre lies at most `NEAR` pixels from an
object's, by the share of such positions: 1 is what chance gives, and an even map. The mean over descriptors counts each
by how much of it positions receive. "The best" is the descriptor with the most weight near objects in every other
video; all values are of the videos between. A new block has random weights on the same trained features. Videos are
those that were drawn; training and tests had smaller copies of them.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from report import table
from torch import Tensor, nn

from a2video.inference.attention import Attention, BlockAttention, attention
from a2video.inference.attention_page import MIN_SCALE, coloured, heat
from a2video.inference.classifier import VideoClassifier
from a2video.models import DoubleAttention

sys.path.append(str(Path(__file__).resolve().parents[1] / "data_prep"))
import motion

NEAR = 20.0  # pixels of the video as it was drawn
SHOWN = ("left", "opposite_ways")  # the first test video of each of these classes


@dataclass(frozen=True)
class Follows:
    """How much more weight of a block lies near objects than chance gives.

    Attributes:
        weight: of each video and descriptor (videos, c_n).
        usage: likewise.
        most: what a descriptor would have whose weight is all near objects (videos,).
    """

    weight: Tensor
    usage: Tensor
    most: Tensor

    @property
    def mean(self) -> float:
        """Over descriptors, by usage."""
        usage = self.usage[1::2]
        return float((self.weight[1::2] * usage).sum() / usage.sum())

    @property
    def best(self) -> int:
        """The descriptor with the most weight near objects in every other video."""
        return int(self.weight[::2].mean(0).argmax())

    @property
    def of_best(self) -> float:
        """Its value."""
        return float(self.weight[1::2, self.best].mean())

    @property
    def at_most(self) -> float:
        """What a descriptor would have whose weight is all near objects."""
        return float(self.most[1::2].mean())


def objects(data: Path, index: int) -> Tensor:
    """Where both objects of a test video are in each of its frames: (T, 2 objects, x and y), in pixels."""
    settings = json.loads((data / "motion.json").read_text())
    seed, difficulty = settings["seed"], motion.DIFFICULTIES[settings["difficulty"]]
    label = motion.label_of(seed, "test", index)
    targets, camera = motion.draw_targets(label, motion.generator_of(seed, "test", index), difficulty)
    return torch.from_numpy(targets + camera).transpose(0, 1) % motion.SIZE


def near_objects(block: BlockAttention, found: Attention, where: Tensor) -> Tensor:
    """Whether each position (T', H', W') is near an object."""
    times, rows, columns = block.gather.shape[1:]
    frames = [round(second * motion.FRAME_RATE) for second in found.seconds]
    seen = where[frames][torch.arange(times) * len(frames) // times]  # (T', 2, 2)
    y, x = torch.meshgrid(
        torch.arange(rows) * motion.SIZE / rows, torch.arange(columns) * motion.SIZE / columns, indexing="ij"
    )
    apart = (torch.stack([x, y], -1)[None, None] - seen[:, :, None, None]).abs()  # (T', 2, H', W', 2)
    apart = torch.minimum(apart, motion.SIZE - apart)  # the scene is a torus
    return (apart.square().sum(-1) <= NEAR**2).any(1)


def follows(classifier: VideoClassifier, data: Path, num_videos: int) -> dict[str, Follows]:
    """By block, over the first test videos."""
    seen: dict[str, list[tuple[Tensor, Tensor, float]]] = {}
    for index in range(num_videos):
        found, where = attention(classifier, data / f"videos/test/{index:05d}.mp4"), objects(data, index)
        for block in found.blocks:
            near = near_objects(block, found, where)
            share = float(near.float().mean())
            seen.setdefault(block.name, []).append(
                ((block.gather * near).sum((1, 2, 3)) / share, block.usage, 1 / share)
            )
    return {
        name: Follows(
            torch.stack([s[0] for s in of]), torch.stack([s[1] for s in of]), torch.tensor([s[2] for s in of])
        )
        for name, of in seen.items()
    }


def with_new_blocks(classifier: VideoClassifier, seed: int) -> VideoClassifier:
    """The same network, with random weights where its blocks choose what to gather."""
    torch.manual_seed(seed)
    for module in classifier.network.modules():
        if isinstance(module, DoubleAttention):
            module.theta.reset_parameters()
            module.rho.reset_parameters()
    return classifier


def shares_of_blocks(classifier: VideoClassifier, data: Path, num_videos: int) -> list[tuple[float, float]]:
    """What each block adds to its input, as a share of it by norm, and the mean size of the scale of its last norm.

    Both without their means over positions, which a bias alone would give; the mean over the first test videos.
    """
    blocks = [module for module in classifier.network.modules() if isinstance(module, DoubleAttention)]
    shares: list[list[float]] = [[] for _ in blocks]

    def watch(number: int) -> Callable[..., None]:
        def see(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            added, given = (x - x.mean((2, 3, 4), keepdim=True) for x in (output - inputs[0], inputs[0]))
            shares[number].append(float(added.norm() / given.norm()))

        return see

    for number, block in enumerate(blocks):
        block.register_forward_hook(watch(number))
    for index in range(num_videos):
        classifier(data / f"videos/test/{index:05d}.mp4")
    scales = [float(block.norm.weight.detach().abs().mean()) for block in blocks]
    return [(statistics.mean(values), scale) for values, scale in zip(shares, scales, strict=True)]


@dataclass(frozen=True)
class Attending:
    """Trained networks that differ in their seed.

    Attributes:
        name: in the table.
        build: makes one with random weights.
        checkpoints: their weights.
        data: folder of the videos.
    """

    name: str
    build: Callable[[], nn.Module]
    checkpoints: Sequence[Path]
    data: Path

    def load(self, number: int) -> VideoClassifier:
        """One of them."""
        return VideoClassifier.load(self.checkpoints[number], device="cpu", network=self.build())

    def follows(self, num_videos: int, with_new: bool = False) -> list[dict[str, Follows]]:
        """What comes of each, by block; as they are, or with new blocks."""
        classifiers = [self.load(number) for number in range(len(self.checkpoints))]
        if with_new:
            classifiers = [with_new_blocks(classifier, seed) for seed, classifier in enumerate(classifiers)]
        return [follows(classifier, self.data, num_videos) for classifier in classifiers]


def section(networks: Sequence[Attending], num_videos: int, name: Path) -> list[str]:
    """Lines about the blocks of trained networks; the last are drawn, with their first seed, into files named so."""
    both = [(network.follows(num_videos), network.follows(num_videos, with_new=True)) for network in networks]
    rows = []
    for network, (trained, new) in zip(networks, both, strict=True):
        for block, found in trained[0].items():
            values = [[of_seed[block].mean for of_seed in of] for of in (trained, new)]
            values += [[of_seed[block].of_best for of_seed in of] for of in (trained, new)]
            cells = (f"{statistics.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in values)
            title = [network.name, block.removesuffix(".attention"), str(len(trained))]
            rows.append([*title, *cells, f"{found.at_most:.1f}"])
    shown, of_shown = networks[-1], both[-1][0][0]
    paths = {label: name.with_name(f"{name.name}_{label}.png") for label in SHOWN}
    drawn = [draw(shown.load(0), shown.data, label, of_shown, path) for label, path in paths.items()]
    of_trained = ("trained: mean", "new: mean", "trained: the best", "new: the best")
    return [
        "## Do gather maps follow the objects?",
        __doc__.split("\n\n", 1)[1].strip().replace("`NEAR`", f"{NEAR:.0f}"),
        f"The first {num_videos} test videos; mean (and range) over seeds.",
        table(["network", "block", "seeds", *of_trained, "at most"], rows),
        f"The first test video of two classes, {shown.name}, seed 0: for each block the descriptor that positions "
        "receive most of, and the best. Crosses: where the generator drew the objects.",
        *(f"![Gather maps: {path.stem.replace('_', ' ')}]({path.name})" for path in drawn),
    ]


def draw(classifier: VideoClassifier, data: Path, label: str, found: Mapping[str, Follows], path: Path) -> Path:
    """The first test video of a class, and under it maps of each block: the descriptor used most, and the best."""
    from matplotlib.figure import Figure

    seed = json.loads((data / "motion.json").read_text())["seed"]
    index = next(index for index in range(len(motion.CLASSES)) if motion.label_of(seed, "test", index) == label)
    seen, where = attention(classifier, data / f"videos/test/{index:05d}.mp4"), objects(data, index)
    rows = [(f"{label}\nsaid: {seen.of_video.label}", torch.zeros(1, 1, 1))]
    for block in seen.blocks:
        name, best = block.name.removesuffix(".attention"), found[block.name].best
        used = int(found[block.name].usage.mean(0).argmax())
        rows += [(f"{name}\nmost used", block.gather[used]), (f"{name}\nthe best", block.gather[best])]
    _, num_frames, side = seen.clip.shape[:3]
    figure = Figure(figsize=(1.5 * num_frames, 1.55 * len(rows)), layout="constrained")
    for line, (axes_row, (title, maps)) in enumerate(zip(figure.subplots(len(rows), num_frames), rows, strict=True)):
        scale = max(float(maps.max()), MIN_SCALE * float(maps.mean()), 1e-9)  # an even map is not to look bright
        values = heat(maps / scale, num_frames, side)
        for frame, axes in enumerate(axes_row):
            axes.imshow(seen.clip[:, frame].permute(1, 2, 0).numpy(), extent=(0, 1, 1, 0))
            axes.imshow(coloured(values[frame].numpy()), extent=(0, 1, 1, 0))
            if line == 0:
                x, y = where[round(seen.seconds[frame] * motion.FRAME_RATE)].T / motion.SIZE
                axes.plot(x, y, "w+", markersize=9)
            axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(1, 0))
        axes_row[0].set_ylabel(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    return path
