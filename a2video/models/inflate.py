"""Starts a network from weights that exist: other projects' names are translated, 2D kernels inflated to 3D."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from a2video.models.insert import BLOCK_NAME
from a2video.models.resnet import ResNet

Inflation = Literal["center", "mean"]
Translation = list[tuple[str, str | Callable[[re.Match[str]], str]]]


def _block(match: re.Match[str], first_stage: int) -> str:
    """conv<stage>.<block>. from a stage that counts from `first_stage` and a block that counts from zero."""
    return f"conv{int(match[1]) - first_stage + 2}.{int(match[2]) + 1}."


# Patterns of other projects' names, each replaced in turn; a project is recognised by its first pattern.
TRANSLATIONS: dict[str, Translation] = {
    "torchvision or timm resnet": [
        (r"^layer(\d)\.(\d+)\.", lambda m: _block(m, 1)),
        (r"\.downsample\.0\.", ".shortcut."),
        (r"\.downsample\.1\.", ".shortcut_bn."),
    ],
    "timm resnetv2": [
        (r"^stages\.(\d)\.blocks\.(\d+)\.", lambda m: _block(m, 0)),
        (r"\.norm(\d)\.", r".bn\1."),
        (r"\.downsample\.conv\.", ".shortcut."),
        (r"^stem\.conv\.", "conv1."),
        (r"^norm\.", "bn."),
        (r"^head\.fc\.", "fc."),
    ],
    "GloRe's resnet50-lite": [
        (r"^conv(\d)\.B(\d\d)\.", lambda m: f"conv{m[1]}.{int(m[2])}."),
        (r"\.conv_m(\d)\.bn\.", r".bn\1."),
        (r"\.conv_m(\d)\.conv\.", r".conv\1."),
        (r"\.conv_w1\.bn\.", ".shortcut_bn."),
        (r"\.conv_w1\.conv\.", ".shortcut."),
        (r"^conv1\.conv\.", "conv1."),
        (r"^conv1\.bn\.", "bn1."),
        (r"^tail\.bn\.", "bn."),
        (r"^classifier\.", "fc."),
    ],
    "pytorchvideo resnet": [
        (r"^blocks\.(\d)\.res_blocks\.(\d+)\.", lambda m: _block(m, 1)),
        (r"\.branch2\.conv_([abc])\.", lambda m: f".conv{'abc'.index(m[1]) + 1}."),
        (r"\.branch2\.norm_([abc])\.", lambda m: f".bn{'abc'.index(m[1]) + 1}."),
        (r"\.branch1_conv\.", ".shortcut."),
        (r"\.branch1_norm\.", ".shortcut_bn."),
        (r"^blocks\.0\.conv\.", "conv1."),
        (r"^blocks\.0\.norm\.", "bn1."),
        (r"^blocks\.5\.proj\.", "fc."),
    ],
}  # fmt: skip


@dataclass
class LoadReport:
    """What `load_pretrained` did, by names of the model's weights.

    Attributes:
        naming: whose names the source had.
        loaded: copied as they were.
        inflated: copied from a 2D kernel.
        replaced: left as they were because the number of classes differs.
        new: left as they were because the source has no such block.
        unused: names in the source that the model has no place for.
    """

    naming: str
    loaded: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} weights loaded", f"{len(self.inflated)} inflated"]
        for names, what in (
            (self.replaced, "of another number of classes left new"),
            (self.new, "of new blocks left new"),
            (self.unused, "of the source unused"),
        ):
            if names:
                parts.append(f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
        return f"{self.naming}: " + ", ".join(parts)


def load_pretrained(
    model: nn.Module, source: str | Path | Mapping[str, Any], inflate: Inflation = "center"
) -> LoadReport:
    """Copies existing weights into a network, in place.

    Networks of a2video take weights under the names of torchvision or timm ResNets, timm's resnetv2, the GloRe
    authors' files, pytorchvideo's Kinetics checkpoints, and our own (2D into 3D too). Other networks take their own
    names. The classifier keeps its new weights when the number of classes differs, and so do blocks that the source
    does not have (children named `attention`); any other weight that is missing or of another shape is an error.

    Args:
        model: the network.
        source: a checkpoint file, loaded with weights_only=True; a URL, through torch.hub; or a loaded dict.
        inflate: how a 2D kernel fills T frames: "center" puts it into the middle one, "mean" into each, divided by T.
            Both keep the features of a clip that repeats one frame; "mean" not at the temporal border.

    Raises:
        ValueError: the source cannot be read or does not fit; the model is left unchanged.
    """
    if inflate not in ("center", "mean"):
        raise ValueError(f"inflate must be center or mean, got {inflate!r}")
    naming, weights = _translate(_state_dict(source), isinstance(model, ResNet))
    report = LoadReport(naming)
    head = next((name for name, m in reversed(list(model.named_modules())) if isinstance(m, nn.Linear)), "")
    fitted: dict[str, Tensor] = {}
    wrong: list[str] = []
    for name, target in model.state_dict().items():
        weight = weights.pop(name, None)
        is_head = name.rpartition(".")[0] == head
        if weight is None:
            if f".{BLOCK_NAME}." in name:
                report.new.append(name)
            elif not name.endswith("num_batches_tracked"):
                wrong.append(f"{name} is missing")
            continue
        if is_head and weight.ndim > 2:  # a classifier written as a 1x1 convolution
            weight = weight.flatten(1)
        if weight.shape == target.shape:
            report.loaded.append(name)
        elif weight.ndim == 4 and target.ndim == 5 and weight.shape == target.shape[:2] + target.shape[3:]:
            weight = _inflate(weight, target.shape[2], inflate)
            report.inflated.append(name)
        elif is_head and weight.shape[1:] == target.shape[1:]:
            report.replaced.append(name)
            continue
        else:
            wrong.append(f"{name} has shape {tuple(weight.shape)} instead of {tuple(target.shape)}")
            continue
        fitted[name] = weight
    report.unused = list(weights)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"the weights ({naming}) do not fit this network: {'; '.join(wrong[:3])}{more}; unused are "
            f"{', '.join(report.unused[:3]) or 'none'}: choose the network they were made for"
        )
    model.load_state_dict(fitted, strict=False)
    return report


def _inflate(kernel: Tensor, num_frames: int, how: Inflation) -> Tensor:
    """(out, in, H, W) -> (out, in, num_frames, H, W)."""
    if how == "mean":
        return kernel[:, :, None].repeat(1, 1, num_frames, 1, 1) / num_frames
    inflated = kernel.new_zeros(*kernel.shape[:2], num_frames, *kernel.shape[2:])
    inflated[:, :, num_frames // 2] = kernel
    return inflated


def read_torch_file(path: str | Path) -> Any:
    """The plain data and tensors of a file of torch.save, executing nothing in it.

    Raises:
        ValueError: there is no such file, or it holds anything else.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} {'is not a file' if Path(path).exists() else 'does not exist'}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file can make the unpickler raise anything
        raise ValueError(f"{path} holds no plain data and tensors of torch.save") from None


def _state_dict(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights by name, out of the usual wrappings."""
    if isinstance(source, str) and source.startswith(("https://", "http://")):
        try:
            content: Any = torch.hub.load_state_dict_from_url(source, map_location="cpu", weights_only=True)
        except OSError as error:
            raise ValueError(f"{source} cannot be fetched ({error}): download it and give its path") from error
    elif isinstance(source, Mapping):
        content = source
    else:
        content = read_torch_file(source)
    for wrapping in ("state_dict", "model_state", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"weights {source if isinstance(source, (str, Path)) else 'given'} hold no state dict")
    weights = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "network."):
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _translate(weights: dict[str, Tensor], is_ours: bool) -> tuple[str, dict[str, Tensor]]:
    """Whose names these are, and the weights under ours."""
    if is_ours:
        for naming, rules in TRANSLATIONS.items():
            if any(re.search(rules[0][0], name) for name in weights):
                return naming, {_renamed(name, rules): weight for name, weight in weights.items()}
    return "own names", dict(weights)


def _renamed(name: str, rules: Translation) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
