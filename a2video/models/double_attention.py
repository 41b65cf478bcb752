"""The double attention block of A²-Nets (Chen et al., NeurIPS 2018, arXiv 1810.11579, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS: dict[int, type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]] = {
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


def softmax(scores: Tensor, dim: int) -> Tensor:
    """Softmax computed in at least float32 and returned in the dtype of `scores`."""
    at_least_float32 = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(dim, dtype=at_least_float32).to(scores.dtype)


class DoubleAttention(nn.Module):
    """Gathers `c_n` global descriptors from all positions, then hands each position its own mixture of them.

    With X (c x L) the features at the L = T*H*W positions of one sample:

        A = φ(X) (c_m x L)      B = θ(X) (c_n x L)      V = ρ(X) (c_n x L)      1x1x1 convolutions
        gather      G = A · softmax over positions (B)^T        (c_m x c_n)
        distribute  Z = G · softmax over descriptors (V)        (c_m x L)
        output      Y = X + norm(W_out · Z + b_out)

    The scale of `norm` starts at zero, so a new block is the identity and can be put into a trained network.
    φ and W_out are linear and the gather weights sum to one, so by default neither A nor Z is ever formed:

        D = X · softmax(B)^T (c x c_n)    G = W_φ D + b_φ    E = W_out G (c x c_n)    W_out Z = E · softmax(V)

    which is the same function with fewer multiply-adds and no c_m x L activation to keep for backward.

    Args:
        channels: c, the channels of input and output.
        c_m: channels of the gathered features (the paper's m); channels // 2 when None.
        c_n: number of descriptors (the paper's n); channels // 2 when None.
        dims: 1, 2 or 3: sequences (B, c, T), images (B, c, H, W) or clips (B, c, T, H, W).
        textbook: compute A and Z as the paper writes them; for comparison, slower.

    Raises:
        ValueError: a count is not positive, or `dims` is none of 1, 2, 3.
    """

    def __init__(
        self,
        channels: int,
        c_m: int | None = None,
        c_n: int | None = None,
        dims: int = 3,
        textbook: bool = False,
    ) -> None:
        super().__init__()
        c_m = channels // 2 if c_m is None else c_m
        c_n = channels // 2 if c_n is None else c_n
        if min(channels, c_m, c_n) < 1:
            raise ValueError(f"channels, c_m and c_n must be at least 1, got {channels}, {c_m} and {c_n}")
        if dims not in CONVOLUTIONS:
            raise ValueError(f"dims must be 1, 2 or 3, got {dims}")
        convolution = CONVOLUTIONS[dims]
        self.phi = convolution(channels, c_m, kernel_size=1)
        self.theta = convolution(channels, c_n, kernel_size=1)
        self.rho = convolution(channels, c_n, kernel_size=1)
        self.out = convolution(c_m, channels, kernel_size=1)
        self.norm = BATCH_NORMS[dims](channels)
        nn.init.zeros_(self.norm.weight)
        self.dims = dims
        self.textbook = textbook

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block.

        Args:
            x: (B, c, *positions) floating point, `dims` position dimensions of any size.

        Returns:
            A tensor like x. A sample's output depends on its batch mates through batch norm in training only.
        """
        attend = self._attend_textbook if self.textbook else self._attend
        y: Tensor = x + self.norm(attend(x))
        return y

    def _weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gather weights (each descriptor over positions) and distribute weights (each position over descriptors)."""
        gather = softmax(self.theta(x).flatten(2), dim=2)  # (B, c_n, L), rows sum to 1
        distribute = softmax(self.rho(x).flatten(2), dim=1)  # (B, c_n, L), columns sum to 1
        return gather, distribute

    def _attend(self, x: Tensor) -> Tensor:
        gather, distribute = self._weights(x)
        w_phi, w_out = self.phi.weight.flatten(1), self.out.weight.flatten(1)  # (c_m, c), (c, c_m)
        assert self.phi.bias is not None
        assert self.out.bias is not None
        mixtures = x.flatten(2) @ gather.transpose(1, 2)  # (B, c, L) (B, L, c_n) -> (B, c, c_n)
        descriptors = w_phi @ mixtures + self.phi.bias[:, None]  # (B, c_m, c_n)
        values = w_out @ descriptors  # (B, c, c_n)
        y = values @ distribute  # (B, c, c_n) (B, c_n, L) -> (B, c, L)
        return y.view(x.shape) + self.out.bias.view(-1, *[1] * self.dims)

    def _attend_textbook(self, x: Tensor) -> Tensor:
        gather, distribute = self._weights(x)
        features = self.phi(x).flatten(2)  # (B, c_m, L)
        descriptors = features @ gather.transpose(1, 2)  # (B, c_m, L) (B, L, c_n) -> (B, c_m, c_n)
        received = descriptors @ distribute  # (B, c_m, c_n) (B, c_n, L) -> (B, c_m, L)
        y: Tensor = self.out(received.view(*received.shape[:2], *x.shape[2:]))
        return y
