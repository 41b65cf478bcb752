"""The double attention block of A²-Nets (Chen et al., NeurIPS 2018, arXiv 1810.11579, section 3)."""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from a2video.models.dims import BATCH_NORMS, CONVOLUTIONS
from a2video.models.fused_attention import NormalizedAttention, evaluated

Form = Literal["auto", "reassociated", "textbook"]


def double_attention(
    x: Tensor,
    gather_scores: Tensor,
    distribute_scores: Tensor,
    w_phi: Tensor,
    b_phi: Tensor,
    w_out: Tensor,
    textbook: bool = False,
) -> Tensor:
    """W_out Z, the heart of the block: gather c_n descriptors over all positions, hand each position a mixture.

        A = W_phi X + b_phi             (c_m x L)
        G = A · softmax_L(B)^T          (c_m x c_n)     gather: each descriptor is a mean over positions
        Z = G · softmax_n(V)            (c_m x L)       distribute: each position gets a mean of descriptors
        returned: W_out Z               (c x L)

    W_phi and W_out are linear and gather weights sum to one, so unless `textbook` neither A nor Z is formed:

        D = X · softmax_L(B)^T (c x c_n)    G = W_phi D + b_phi    E = W_out G (c x c_n)    W_out Z = E · softmax_n(V)

    which is the same function. Multiply-adds: 2 (c c_n L + c c_m c_n) instead of 2 (c c_m L + c_m c_n L): fewer, and
    less kept for backward, where there are more positions than channels.

    Args:
        x: X (B, c, L).
        gather_scores: B = θ(X) (B, c_n, L).
        distribute_scores: V = ρ(X) (B, c_n, L).
        w_phi: (c_m, c).
        b_phi: (c_m,).
        w_out: (c, c_m).
        textbook: form A and Z.

    Returns:
        (B, c, L).
    """
    gather = _softmax(gather_scores, dim=2)  # (B, c_n, L), rows sum to 1
    distribute = _softmax(distribute_scores, dim=1)  # (B, c_n, L), columns sum to 1
    if textbook:
        features = w_phi.expand(len(x), -1, -1) @ x + b_phi[:, None]  # (c_m, c) (B, c, L) -> (B, c_m, L)
        descriptors = features @ gather.transpose(1, 2)  # (B, c_m, L) (B, L, c_n) -> (B, c_m, c_n)
        return w_out.expand(len(x), -1, -1) @ (descriptors @ distribute)  # (c, c_m) (B, c_m, L) -> (B, c, L)
    mixtures = x @ gather.transpose(1, 2)  # (B, c, L) (B, L, c_n) -> (B, c, c_n)
    descriptors = w_phi @ mixtures + b_phi[:, None]  # (B, c_m, c_n)
    return (w_out @ descriptors) @ distribute  # (B, c, c_n) (B, c_n, L) -> (B, c, L)


def _softmax(scores: Tensor, dim: int) -> Tensor:
    """Softmax computed in at least float32 and returned in the dtype of `scores`."""
    at_least_float32 = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(dim, dtype=at_least_float32).to(scores.dtype)


class DoubleAttention(nn.Module):
    """Y = X + norm(W_out Z + b_out) with Z of `double_attention`; φ, θ, ρ and W_out are 1x1x1 convolutions.

    The scale of `norm` (batch norm) starts at zero, so a new block is the identity and can be put into a trained
    network. Takes and gives (B, c, *positions); a sample's output does not depend on its batch mates in evaluation
    (in training it does, through batch norm).

    Args:
        channels: c, the channels of input and output.
        c_m: channels of the gathered features (the paper's m); channels // 2 when None.
        c_n: number of descriptors (the paper's n); channels // 2 when None.
        dims: 1, 2 or 3: sequences (B, c, T), images (B, c, H, W) or clips (B, c, T, H, W).
        form: "textbook" as the paper writes it, "reassociated" without any c_m x L tensor, "auto" that with fewer
            multiply-adds: with c_m = c_n, reassociated where there are at least as many positions as channels. All are
            the same function. While torch.export traces, "auto" is reassociated, which leaves every size dynamic. On a
            CPU "auto" takes `fused_attention` for it, which has no second derivatives and is not for torch.func.

    Raises:
        ValueError: a count is not positive, or `dims` or `form` is none of those named.
    """

    def __init__(
        self,
        channels: int,
        c_m: int | None = None,
        c_n: int | None = None,
        dims: int = 3,
        form: Form = "auto",
    ) -> None:
        super().__init__()
        c_m = channels // 2 if c_m is None else c_m
        c_n = channels // 2 if c_n is None else c_n
        if min(channels, c_m, c_n) < 1:
            raise ValueError(f"channels, c_m and c_n must be at least 1, got {channels}, {c_m} and {c_n}")
        if dims not in CONVOLUTIONS:
            raise ValueError(f"dims must be 1, 2 or 3, got {dims}")
        if form not in ("auto", "reassociated", "textbook"):
            raise ValueError(f"form must be auto, reassociated or textbook, got {form!r}")
        convolution = CONVOLUTIONS[dims]
        self.phi = convolution(channels, c_m, kernel_size=1)
        self.theta = convolution(channels, c_n, kernel_size=1)
        self.rho = convolution(channels, c_n, kernel_size=1)
        self.out = convolution(c_m, channels, kernel_size=1)
        self.norm = BATCH_NORMS[dims](channels)
        nn.init.zeros_(self.norm.weight)
        self.dims = dims
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, *positions) -> the same shape; ValueError for another number of dimensions or channels."""
        if x.ndim != self.dims + 2 or x.shape[1] != self.phi.in_channels:
            raise ValueError(
                f"expected (B, {self.phi.in_channels}, then {self.dims} position dimensions: dims={self.dims}), "
                f"got {tuple(x.shape)}"
            )
        if self._can_fuse(x):
            return self._fused(x)
        assert self.phi.bias is not None
        assert self.out.bias is not None
        y = double_attention(
            x.flatten(2),
            self.theta(x).flatten(2),
            self.rho(x).flatten(2),
            self.phi.weight.flatten(1),
            self.phi.bias,
            self.out.weight.flatten(1),
            self._use_textbook(x),
        )
        y = y.view(x.shape) + self.out.bias.to(y.dtype).view(-1, *[1] * self.dims)
        residual: Tensor = x + self.norm(y)
        return residual

    def _can_fuse(self, x: Tensor) -> bool:
        """Whether `fused_attention` computes this; its layers must be torch's own, with nobody watching them."""
        layers = (self.phi, self.theta, self.rho, self.out)
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return (
            self.form == "auto"
            and not self._use_textbook(x)
            and x.device.type == "cpu"
            and x.dtype == self.phi.weight.dtype
            and x.dtype in (torch.float32, torch.float64)
            and x.shape[0] * prod(x.shape[2:]) > 1
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and all(type(layer) is CONVOLUTIONS[self.dims] and layer.bias is not None for layer in layers)
            and type(self.norm) is BATCH_NORMS[self.dims]
            and self.norm.affine
            and self.norm.track_running_stats == (self.norm.num_batches_tracked is not None)
            and not any(getattr(layer, hook) for layer in (*layers, self.norm) for hook in hooks)
            and (self.norm.training or (not torch.is_grad_enabled() and self.norm.running_mean is not None))
        )

    def _fused(self, x: Tensor) -> Tensor:
        norm, flat, weights = self.norm, x.flatten(2), torch.cat([self.theta.weight, self.rho.weight]).flatten(1)
        rest = self.rho.bias, self.phi.weight.flatten(1), self.phi.bias, self.out.weight.flatten(1), self.out.bias
        if not norm.training:
            return evaluated(flat, weights, *rest, norm).view(x.shape)  # type: ignore[arg-type]
        y: Tensor
        y, mean, variance = NormalizedAttention.apply(  # type: ignore[no-untyped-call]
            flat, weights, self.theta.bias, *rest, norm.weight, norm.bias, norm.eps
        )
        if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
            norm.num_batches_tracked += 1
            share = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
            count = y.shape[0] * y.shape[2]
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance * (count / (count - 1)), share)
        return y.view(x.shape)

    def _use_textbook(self, x: Tensor) -> bool:
        if self.form != "auto":
            return self.form == "textbook"
        if torch.compiler.is_exporting():
            return False
        c, c_m, c_n, positions = x.shape[1], self.phi.out_channels, self.theta.out_channels, prod(x.shape[2:])
        return c_m * positions * (c + c_n) < c * c_n * (positions + c_m)
