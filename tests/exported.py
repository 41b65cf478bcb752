"""A small network as a checkpoint, and where it is exported to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from a2video.data.transforms import Preprocessing
from a2video.inference import converters
from a2video.inference.export import export
from a2video.models import a2net_tiny

FILES = {"torch": "net.safetensors", "onnx": "net.onnx", "openvino": "net.xml"}
NAMES = ["left", "right"]
CLIPS = Preprocessing(num_frames=4, frame_stride=2, short_side=32, crop_size=24, num_clips=3, num_crops=3)


def save_checkpoint(path: Path, network: nn.Module, preprocessing: Preprocessing) -> Path:
    """As `a2video fit` writes it, with attention blocks that do something."""
    for name, parameter in network.named_parameters():
        if name.endswith("attention.norm.weight"):
            nn.init.ones_(parameter)
        if name == "fc.weight":
            nn.init.normal_(parameter, std=0.1)  # probabilities that differ
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    about = {"network": network.description, "class_names": NAMES, "preprocessing": preprocessing.to_dict()}
    torch.save({"a2video": about, "state_dict": state}, path)
    return path


def make_checkpoint(folder: Path) -> Path:
    torch.manual_seed(0)
    return save_checkpoint(folder / "best.ckpt", a2net_tiny(2), CLIPS)


def make_exports(checkpoint: Path, check: Path, folder: Path) -> Path:
    """A folder with the same network for each target, in a folder of that name."""
    for target, name in FILES.items():
        with pytest.MonkeyPatch.context() as patch:
            if target == "openvino":  # which begins with the same ONNX file; torch takes long to write one
                patch.setattr(converters, "write_onnx", lambda _, path: shutil.copy(folder / "onnx/net.onnx", path))
            export(checkpoint, target, folder / target / name, check=[check])
    return folder
