"""Do the gather maps of double attention follow the objects? Told by where data_prep/motion.py drew these, and shown.

A map's weight near objects is the share of its weight on positions whose centre lies at most `NEAR` pixels from an
object's, by the share of such positions: 1 is what chance gives, and an even map. The mean over descriptors counts each
by how much of it positions receive; "the best" is the descriptor with the most weight near objects over all videos. A
new block has random weights on the same trained features.
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
from a2video.inference.attention_page import coloured, heat
from a2video.inference.classifier import VideoClassifier
from a2video.models import DoubleAttention

sys.path.append(str(Path(__file__).resolve().parents[1] / "data_prep"))
import motion

NEAR = 20.0  # pixels of the video as it was drawn
SHOWN = ("left", "opposite_ways")  # the first test video of each of these classes


@dataclass(frozen=True)
class Follows:
    """How much more weight lies near objects than chance gives: of each descriptor (c_n,), and their usage (c_n,)."""

    weight: Tensor
    usage: Tensor

    @property
    def mean(self) -> float:
        """Over descriptors, by usage."""
        return float((self.weight * self.usage).sum() / self.usage.sum())


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
    sums: dict[str, list[Tensor]] = {}
    for index in range(num_videos):
        found, where = attention(classifier, data / f"videos/test/{index:05d}.mp4"), objects(data, index)
        for block in found.blocks:
            near = near_objects(block, found, where)
            weight = (block.gather * near).sum((1, 2, 3)) / near.float().mean()
            total = sums.setdefault(block.name, [torch.zeros_like(weight), torch.zeros_like(weight)])
            total[0] += weight / num_videos
            total[1] += block.usage / num_videos
    return {name: Follows(*total) for name, total in sums.items()}


def with_new_blocks(classifier: VideoClassifier) -> VideoClassifier:
    """The same network, with random weights where its blocks choose what to gather."""
    torch.manual_seed(0)
    for module in classifier.network.modules():
        if isinstance(module, DoubleAttention):
            module.theta.reset_parameters()
            module.rho.reset_parameters()
    return classifier


def shares_of_blocks(checkpoint: Path, data: Path, num_videos: int) -> list[float]:
    """What each block adds to its input, as a share of it by norm: the mean over the first test videos."""
    classifier = VideoClassifier.load(checkpoint, device="cpu")
    blocks = [module for module in classifier.network.modules() if isinstance(module, DoubleAttention)]
    shares: list[list[float]] = [[] for _ in blocks]

    def watch(number: int) -> Callable[..., None]:
        def see(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            shares[number].append(float((output - inputs[0]).norm() / inputs[0].norm()))

        return see

    for number, block in enumerate(blocks):
        block.register_forward_hook(watch(number))
    for index in range(num_videos):
        classifier(data / f"videos/test/{index:05d}.mp4")
    return [statistics.mean(values) for values in shares]


def section(checkpoints: Sequence[Path], data: Path, num_videos: int, pictures: Path) -> list[str]:
    """Lines about the blocks of some trained networks, of which the first one is drawn into a folder."""
    trained = [follows(VideoClassifier.load(path, device="cpu"), data, num_videos) for path in checkpoints]
    new = [follows(with_new_blocks(VideoClassifier.load(path, device="cpu")), data, num_videos) for path in checkpoints]
    rows = []
    for name in trained[0]:
        values = [[of_seed[name].mean for of_seed in of] for of in (trained, new)]
        values += [[float(of_seed[name].weight.max()) for of_seed in of] for of in (trained, new)]
        rows.append([name, *(f"{statistics.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in values)])
    shown = VideoClassifier.load(checkpoints[0], device="cpu")
    drawn = [draw(shown, data, label, trained[0], pictures / f"gather_maps_{label}.png") for label in SHOWN]
    header = ["block", "trained: mean", "new: mean", "trained: the best", "new: the best"]
    return [
        "## Do gather maps follow the objects?",
        __doc__.split("\n\n", 1)[1].strip(),
        f"The first {num_videos} test videos; mean (and range) over {len(checkpoints)} seeds.",
        table(header, rows),
        "The first test video of two classes, by the first network: for each block the descriptor that positions "
        "receive most of, and the best. Crosses: where the generator drew the objects.",
        *(f"![{path.stem.replace('_', ' ')}]({path.name})" for path in drawn),
    ]


def draw(classifier: VideoClassifier, data: Path, label: str, found: Mapping[str, Follows], path: Path) -> Path:
    """The first test video of a class, and under it maps of each block: the descriptor used most, and the best."""
    from matplotlib.figure import Figure

    seed = json.loads((data / "motion.json").read_text())["seed"]
    index = next(index for index in range(len(motion.CLASSES)) if motion.label_of(seed, "test", index) == label)
    seen, where = attention(classifier, data / f"videos/test/{index:05d}.mp4"), objects(data, index)
    rows = [(f"{label}\nsaid: {seen.of_video.label}", torch.zeros(1, 1, 1))]
    for block in seen.blocks:
        name, best = block.name.removesuffix(".attention"), int(found[block.name].weight.argmax())
        used = int(found[block.name].usage.argmax())
        rows += [(f"{name}\nmost used", block.gather[used]), (f"{name}\nthe best", block.gather[best])]
    _, num_frames, side = seen.clip.shape[:3]
    figure = Figure(figsize=(1.5 * num_frames, 1.55 * len(rows)), layout="constrained")
    for line, (axes_row, (title, maps)) in enumerate(zip(figure.subplots(len(rows), num_frames), rows, strict=True)):
        values = heat(maps / maps.max().clamp(min=1e-9), num_frames, side)
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
