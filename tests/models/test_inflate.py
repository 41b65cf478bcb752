"""Weights from elsewhere: independent 2D networks with other projects' names, inflated, must give the same features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import max_pool2d

from a2video.models import (
    DoubleAttention,
    ResNet,
    a2net_resnet50_2d,
    a2net_tiny,
    insert_blocks,
    load_pretrained,
    resnet50_lite,
    slow_resnet50,
    slow_resnet50_v2,
)

DEPTHS, WIDTHS = (3, 4, 6, 3), (64, 128, 256, 512)
NAMES = (
    Path(__file__).parent / "names"
)  # weight names and shapes of the real models, as torchvision, timm, ... give them


class PostActivation(nn.Module):
    """torchvision's bottleneck block, in its names."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        if inputs != 4 * width or stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn3(self.conv3(self.bn2(self.conv2(y)).relu()))
        return (y + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class TorchvisionNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, inputs = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), 64
        for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True), 1):
            blocks = []
            for block in range(depth):
                blocks.append(PostActivation(inputs, width, 2 if stage > 1 and block == 0 else 1))
                inputs = 4 * width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class PreActivation(nn.Module):
    """timm's resnetv2 bottleneck block, in its names."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, width, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm3, self.conv3 = nn.BatchNorm2d(width), nn.Conv2d(width, 4 * width, 1, bias=False)
        if inputs != 4 * width or stride > 1:
            self.downsample = nn.Module()
            self.downsample.conv = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.norm1(x).relu()
        y = self.conv3(self.norm3(self.conv2(self.norm2(self.conv1(activated)).relu())).relu())
        return y + (self.downsample.conv(activated) if hasattr(self, "downsample") else x)


class TimmV2Names(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, inputs = nn.Module(), 64
        self.stem.conv = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.stages = nn.ModuleList()
        for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
            self.stages.append(nn.Module())
            blocks = []
            for block in range(depth):
                blocks.append(PreActivation(inputs, width, 2 if stage > 0 and block == 0 else 1))
                inputs = 4 * width
            self.stages[-1].blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.BatchNorm2d(2048), nn.Module()
        self.head.fc = nn.Conv2d(2048, 1000, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = max_pool2d(self.stem.conv(x), 3, 2, 1)
        for stage in self.stages:
            x = stage.blocks(x)
        return self.norm(x).relu()


class BnReluConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs, eps=1e-4)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.bn(x).relu())


class LiteBlock(nn.Module):
    """The GloRe authors' 2D block, in their names."""

    def __init__(self, inputs: int, width: int, stride: int, is_first: bool) -> None:
        super().__init__()
        self.conv_m1, self.conv_m2 = BnReluConv(inputs, width), BnReluConv(width, width, 3, stride)
        self.conv_m3 = BnReluConv(width, 4 * width)
        if is_first:
            self.conv_w1 = BnReluConv(inputs, 4 * width, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_m3(self.conv_m2(self.conv_m1(x))) + (self.conv_w1(x) if hasattr(self, "conv_w1") else x)


class LiteNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, inputs = nn.Module(), 32
        self.conv1.conv, self.conv1.bn = nn.Conv2d(3, 32, 5, 2, 2, bias=False), nn.BatchNorm2d(32, eps=1e-4)
        for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True), 2):
            blocks = nn.Sequential()
            for block in range(depth):
                stride = 2 if stage > 2 and block == 0 else 1
                blocks.add_module(f"B{block + 1:02d}", LiteBlock(inputs, width, stride, block == 0))
                inputs = 4 * width
            self.add_module(f"conv{stage}", blocks)
        self.tail = nn.Module()
        self.tail.bn = nn.BatchNorm2d(2048, eps=1e-4)
        self.classifier = nn.Linear(2048, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = max_pool2d(self.conv1.bn(self.conv1.conv(x)).relu(), 3, 2, 1)
        return self.tail.bn(self.conv5(self.conv4(self.conv3(self.conv2(x))))).relu()


def randomized(network: nn.Module) -> nn.Module:
    """Random statistics and scales, so that a forgotten batch norm shows."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for tensor, low, high in (
                (module.weight, 0.3, 0.6), (module.bias, -0.2, 0.2), (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):  # fmt: skip
                nn.init.uniform_(tensor, low, high)
    return network.eval()


SOURCES = {
    "torchvision or timm resnet": (TorchvisionNames, slow_resnet50),
    "timm resnetv2": (TimmV2Names, slow_resnet50_v2),
    "GloRe's resnet50-lite": (LiteNames, resnet50_lite),
}


@pytest.mark.parametrize("inflate", ["center", "mean"])
@pytest.mark.parametrize("naming", SOURCES)
@torch.no_grad()
def test_inflated_network_sees_a_still_clip_as_the_2d_network_sees_the_frame(naming: str, inflate: str) -> None:
    source, builder = SOURCES[naming]
    flat, video = randomized(source()), builder(7).eval()
    report = load_pretrained(video, flat.state_dict(), inflate=inflate)
    assert report.naming == naming
    assert report.replaced == ["fc.weight", "fc.bias"]
    assert report.new == report.unused == []
    assert len(report.loaded) + len(report.inflated) + 2 == len(video.state_dict())
    assert len(report.inflated) > 50
    frame = torch.randn(1, 3, 64, 64)
    num_frames = 65 if inflate == "mean" else 8  # long enough for frames that no temporal border reaches
    expected = flat(frame)
    features = video.features(frame[:, :, None].expand(-1, -1, num_frames, -1, -1))
    inner = features if inflate == "center" else features[:, :, features.shape[2] // 2 : features.shape[2] // 2 + 1]
    if inflate == "mean":
        assert not torch.allclose(features[:, :, 0], expected, atol=1e-3)  # the border is reached
    for number in range(inner.shape[2]):
        assert (inner[:, :, number] - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("file", "builder"),
    [
        ("torchvision_resnet50.txt", slow_resnet50),  # timm's resnet50 has the same
        ("timm_resnetv2_50.txt", slow_resnet50_v2),
        ("pytorchvideo_slow_r50.txt", slow_resnet50),
    ],
)
def test_every_weight_of_the_real_models_finds_its_place(file: str, builder) -> None:
    lines = [line.split() for line in (NAMES / file).read_text().splitlines()]
    weights = {name: torch.zeros([int(n) for n in shape.split(",") if n]) for name, shape in lines}
    report = load_pretrained(builder(7), {"state_dict": {f"module.{k}": v for k, v in weights.items()}})
    assert report.unused == report.new == []
    assert report.replaced == ["fc.weight", "fc.bias"]


@torch.no_grad()
def test_our_image_network_inflates_into_a_video_network_with_its_blocks() -> None:
    places = ["conv3.1", "conv4.3"]
    flat = randomized(a2net_resnet50_2d(7, places=places))
    video = slow_resnet50(7, places=places).eval()
    report = load_pretrained(video, flat.state_dict())
    assert report.new == report.replaced == report.unused == []
    frame = torch.randn(1, 3, 64, 64)
    expected = flat(frame)
    actual = video(frame[:, :, None].expand(-1, -1, 4, -1, -1))
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_new_blocks_keep_the_output_of_pretrained_weights() -> None:
    plain = randomized(slow_resnet50(7))
    attended = slow_resnet50(7, places=["conv3.1", "conv4.5"]).eval()
    report = load_pretrained(attended, plain.state_dict())
    assert {name.split(".attention.")[0] for name in report.new} == {"conv3.1", "conv4.5"}
    x = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(attended(x), plain(x))


def test_foreign_networks_take_their_own_names() -> None:
    network = TorchvisionNames()
    insert_blocks(network, {"layer3.0": lambda c: DoubleAttention(c, dims=2)})
    report = load_pretrained(network, TorchvisionNames().state_dict())
    assert {name.split(".attention.")[0] for name in report.new} == {"layer3.0"}
    assert report.unused == report.inflated == report.replaced == []
    assert "weights loaded, 0 inflated" in str(report)


def test_files_and_checkpoints_of_ours(tmp_path: Path) -> None:
    source = randomized(a2net_tiny(5))
    torch.save(
        {"a2video": {}, "state_dict": {f"network.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "a.ckpt"
    )
    target = a2net_tiny(3)
    report = load_pretrained(target, tmp_path / "a.ckpt")
    assert report.replaced == ["fc.weight", "fc.bias"]
    assert torch.equal(target.conv1.weight, source.conv1.weight)


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    network: ResNet = a2net_tiny(5)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"weights": print}, tmp_path / "code.pth")
    for source, message in (
        (TorchvisionNames().state_dict(), r"do not fit this network: .* more; unused are .*: choose the network"),
        ({"conv1.weight": torch.zeros(16, 3, 3, 5, 5)}, r"conv2\.1\.bn1\.weight is missing"),
        ({"epoch": 3}, "hold no state dict"),
        (tmp_path / "none.pth", r"none\.pth does not exist"),
        (tmp_path / "text.pth", "holds no plain data"),
        (tmp_path / "code.pth", "holds no plain data"),
    ):
        with pytest.raises(ValueError, match=message):
            load_pretrained(network, source)
    with pytest.raises(ValueError, match="inflate must be center or mean, got 'repeat'"):
        load_pretrained(network, {}, inflate="repeat")
    assert all(torch.equal(before[name], weight) for name, weight in network.state_dict().items())
