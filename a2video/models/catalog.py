"""Every builder with the input it was made for, its cost, and what the paper says of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from a2video.models import builders
from a2video.models.double_attention import DoubleAttention

CLIP_16, CLIP_8, IMAGE = (16, 112, 112), (8, 224, 224), (224, 224)


@dataclass(frozen=True)
class Entry:
    """A builder.

    Attributes:
        builder: takes num_classes first.
        size: (T, H, W) or (H, W) of the input its cost is counted for.
        num_classes: likewise.
        paper_millions: the paper's parameters in millions.
        paper_giga: the paper's multiply-adds in 10^9.
    """

    builder: Callable[..., nn.Module]
    size: tuple[int, ...]
    num_classes: int = 400
    paper_millions: float | None = None
    paper_giga: float | None = None

    @property
    def name(self) -> str:
        """The builder's name."""
        return self.builder.__name__


CATALOG = (
    Entry(builders.resnet26, CLIP_16, 400, 7.04, 8.3),
    Entry(builders.resnet29, CLIP_16, 400, 7.62, 9.2),
    Entry(builders.resnet50, CLIP_8, 400, 33.4),
    Entry(builders.resnet101, CLIP_8),
    Entry(builders.a2net_resnet26, CLIP_16),
    Entry(builders.a2net_resnet29, CLIP_16),
    Entry(builders.a2net_resnet50, CLIP_8, 400, 40.8, 40.8),
    Entry(builders.nonlocal_resnet26, CLIP_16),
    Entry(builders.nonlocal_resnet50, CLIP_8),
    Entry(builders.se_resnet26, CLIP_16),
    Entry(builders.resnet50_lite, CLIP_8),
    Entry(builders.slow_resnet50, CLIP_8),
    Entry(builders.slow_resnet50_v2, CLIP_8),
    Entry(builders.resnet50_2d, IMAGE, 1000),
    Entry(builders.resnet152_2d, IMAGE, 1000, 60.2, 11.3),
    Entry(builders.a2net_resnet50_2d, IMAGE, 1000, 33.0, 6.5),
    Entry(builders.a2net_tiny, (8, 64, 64)),
)


def count_parameters(model: nn.Module) -> int:
    """Parameters as the paper counts them: with the running mean and variance of batch norms."""
    running = sum(b.numel() for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var")))
    return sum(p.numel() for p in model.parameters()) + running


def count_multiply_adds(
    model: nn.Module, size: tuple[int, ...], form: Literal["auto", "reassociated", "textbook"] | None = None
) -> int:
    """Multiply-adds of convolutions, matrix products and the classifier for one input, counted by torch.

    Args:
        model: any; a copy of it on the device "meta" is counted, where nothing is computed.
        size: (T, H, W) or (H, W) of the input.
        form: of all double attention blocks, for the counting only; each one's own when None.
    """
    model = copy.deepcopy(model).to("meta").eval()
    for module in model.modules():
        if isinstance(module, DoubleAttention):
            module.form = form or module.form
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, *size, device="meta"))
    return int(counter.get_total_flops()) // 2


def costs(entries: Iterable[Entry] = CATALOG) -> list[dict[str, Any]]:
    """One row for each entry, see cost_row."""
    rows = []
    for entry in entries:
        with torch.device("meta"):
            model = entry.builder(entry.num_classes)
        computed, textbook = (count_multiply_adds(model, entry.size, form) for form in (None, "textbook"))
        rows.append(cost_row(entry, count_parameters(model), computed, textbook))
    return rows


def cost_row(entry: Entry, parameters: int, multiply_adds: int, textbook_multiply_adds: int) -> dict[str, Any]:
    """What a builder costs here and by the paper, and the difference in percent.

    Multiply-adds of double attention are given as computed here ("auto") and as the paper writes the block
    ("textbook"), which is what its values are compared with.
    """
    millions, giga, textbook = parameters / 1e6, multiply_adds / 1e9, textbook_multiply_adds / 1e9
    return {
        "builder": entry.name,
        "input": list(entry.size),
        "num_classes": entry.num_classes,
        "parameters_millions": round(millions, 3),
        "paper_parameters_millions": entry.paper_millions,
        "parameters_difference_percent": _percent(millions, entry.paper_millions),
        "multiply_adds_giga": round(giga, 3),
        "textbook_multiply_adds_giga": round(textbook, 3),
        "paper_multiply_adds_giga": entry.paper_giga,
        "multiply_adds_difference_percent": _percent(textbook, entry.paper_giga),
    }


def _percent(value: float, paper: float | None) -> float | None:
    return None if paper is None else round(100 * (value / paper - 1), 2)


def costs_table(rows: Iterable[dict[str, Any]]) -> str:
    """Rows of `costs` as a table in Markdown, which reads well in a terminal too."""

    def compared(value: float, paper: float | None, percent: float | None, unit: str) -> str:
        return f"{value:.2f} {unit}" if paper is None else f"{value:.2f} {unit} (paper {paper:g}, {percent:+.1f} %)"

    lines = [["builder", "input", "parameters", "multiply-adds as the paper writes it", "as computed here"]]
    for row in rows:
        parameters = compared(
            row["parameters_millions"], row["paper_parameters_millions"], row["parameters_difference_percent"], "M"
        )
        textbook = compared(
            row["textbook_multiply_adds_giga"],
            row["paper_multiply_adds_giga"],
            row["multiply_adds_difference_percent"],
            "G",
        )
        size = " x ".join(map(str, row["input"]))
        lines.append([f"`{row['builder']}`", size, parameters, textbook, f"{row['multiply_adds_giga']:.2f} G"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
