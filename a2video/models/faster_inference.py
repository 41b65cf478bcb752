"""What makes a network quicker once it no longer trains."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from a2video.models.resnet import Bottleneck, PostActivationBottleneck, ResNet

FOLLOWED = {  # convolution: the batch norm that its output goes to, and nothing else
    Bottleneck: {"conv1": "bn2", "conv2": "bn3"},
    PostActivationBottleneck: {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3", "shortcut": "shortcut_bn"},
    ResNet: {"conv1": "bn1"},
}


def prepare_for_inference(network: ResNet, device: torch.device) -> None:
    """Puts batch norms into the convolutions before them and writes ReLUs and sums over their inputs.

    On a CPU it also takes the layout channels_last. The network is changed in place; it stays the same function, within
    rounding, but can no longer be trained, and hooks on its layers may see what was written over.

    Args:
        network: in evaluation mode.
        device: where it is.
    """
    for part in network.modules():
        if isinstance(part, tuple(FOLLOWED)):
            part.in_place = True  # type: ignore[assignment]
        pairs = next((pairs for kind, pairs in FOLLOWED.items() if isinstance(part, kind)), {})
        for name, norm_name in pairs.items():
            convolution, norm = getattr(part, name), getattr(part, norm_name)
            if isinstance(norm, _BatchNorm):
                setattr(part, name, fuse_conv_bn_eval(convolution, norm).requires_grad_(False))
                setattr(part, norm_name, nn.Identity())
    if device.type == "cpu":
        layout = torch.channels_last_3d if network.dims == 3 else torch.channels_last
        nn.Module.to(network, memory_format=layout)  # type: ignore[call-overload]
