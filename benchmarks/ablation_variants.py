"""Networks of ablation.py that a2video does not have: they answer questions, and are not what one would train."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fvcore.nn.squeeze_excitation import SqueezeExcitation
from torch import Tensor, nn

from a2video.models import DoubleAttention, ResNet3d, Stage, Stem, insert_blocks, non_local, resnet26

POINT, TEMPORAL, CUBE = (1, 1, 1), (3, 1, 1), (3, 3, 3)


class _Products(DoubleAttention):
    """Without its two softmaxes: scores are weights as they are, those of gathering by the number of positions."""

    def forward(self, x: Tensor) -> Tensor:
        gather, distribute = self.theta(x).flatten(2), self.rho(x).flatten(2)
        descriptors = self.phi(x).flatten(2) @ gather.transpose(1, 2) / x.shape[2:].numel()
        added: Tensor = self.norm(self.out((descriptors @ distribute).unflatten(2, x.shape[2:])))
        return x + added


def _double(channels: int, inner: int) -> nn.Module:
    return DoubleAttention(channels, inner, inner)


def _awake(channels: int, inner: int, kind: type[DoubleAttention] = DoubleAttention) -> DoubleAttention:
    block = kind(channels, inner, inner)
    nn.init.ones_(block.norm.weight)
    return block


def _group_norm(channels: int, inner: int) -> nn.Module:
    block = DoubleAttention(channels, inner, inner)
    block.norm = nn.GroupNorm(8, channels)  # type: ignore[assignment]
    return block


def _put_in(
    network: ResNet3d, places: Sequence[str], ratio: int, make_block: Callable[[int, int], nn.Module]
) -> ResNet3d:
    insert_blocks(network, dict.fromkeys(places, lambda channels: make_block(channels, channels // ratio)))
    return network


def awake(num_classes: int, places: Sequence[str], ratio: int, width: int) -> ResNet3d:
    """a2net_resnet26 whose blocks take part from the start: the scale of their norm begins at 1, not at 0."""
    return _put_in(resnet26(num_classes, width=width), places, ratio, _awake)


def group_norm(num_classes: int, places: Sequence[str], ratio: int, width: int) -> ResNet3d:
    """The same with a group norm in each block, of one clip alone, where a batch norm is."""
    return _put_in(resnet26(num_classes, width=width), places, ratio, _group_norm)


def products(num_classes: int, places: Sequence[str], ratio: int, width: int) -> ResNet3d:
    """Awake, and without the softmaxes."""
    return _put_in(resnet26(num_classes, width=width), places, ratio, lambda *sizes: _awake(*sizes, _Products))


def local(num_classes: int, width: int) -> ResNet3d:
    """resnet26 but for its reach: after conv2 no kernel sees neighbours in space, so a position knows 13 x 13 pixels.

    conv4 and conv5 keep the resolution of conv3. The rest of a frame is seen by blocks that are put in, or by nothing
    but the average before the classifier.
    """
    stages = [
        Stage(width * times, ((POINT, middle),) * 2, stride)
        for times, middle, stride in (
            (1, CUBE, (2, 1, 1)),
            (2, TEMPORAL, (1, 2, 2)),
            (4, TEMPORAL, POINT),
            (8, TEMPORAL, POINT),
        )
    ]
    return ResNet3d(Stem(16, (3, 5, 5), (1, 2, 2)), stages, num_classes)


def local_double_attention(num_classes: int, places: Sequence[str], ratio: int, width: int) -> ResNet3d:
    """The same with double attention."""
    return _put_in(local(num_classes, width), places, ratio, _double)


def local_non_local(num_classes: int, places: Sequence[str], ratio: int, width: int) -> ResNet3d:
    """The same with non-local blocks."""
    return _put_in(local(num_classes, width), places, ratio, non_local)


def local_squeeze_excitation(num_classes: int, places: Sequence[str], ratio: int, width: int) -> ResNet3d:
    """The same with squeeze and excitation, which tells every position the mean over all alone."""
    return _put_in(local(num_classes, width), places, ratio, lambda *sizes: SqueezeExcitation(*sizes, is_3d=True))
