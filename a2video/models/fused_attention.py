"""Double attention with its batch norm and residual sum as one function: fewer passes over memory, less kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


class NormalizedAttention(Function):
    """Y = X + norm(W_out Z + b_out) in training on a CPU, for the reassociated form of `double_attention`.

    Sample by sample: P = softmax_L(W_θ X), Q = softmax_n(W_ρ X + b_ρ), D = X P^T, E = W_out (W_φ D + b_φ), and E Q.
    Kept for the backward pass are X, P, Q and small matrices; E Q, the largest tensor of all, is computed again, which
    is one of 13 matrix products of its size. As the columns of Q sum to one, the mean of E Q is subtracted from E.
    b_θ and b_out change nothing but the mean: the softmax over positions takes away the one, batch norm the other.

    Args (of apply):
        x: X (B, c, L), in any memory layout, float32 or float64.
        weights: W_θ above W_ρ (2 c_n, c).
        b_theta, b_rho: (c_n,) each.
        w_phi, b_phi: (c_m, c) and (c_m,).
        w_out, b_out: (c, c_m) and (c,).
        gamma, beta, eps: of batch norm, (c,), (c,) and a number.

    Returns:
        Y (B, c, L) in the layout of X, and mean and biased variance of W_out Z + b_out over the batch (c,).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Tensor,
        b_theta: Tensor,
        b_rho: Tensor,
        w_phi: Tensor,
        b_phi: Tensor,
        w_out: Tensor,
        b_out: Tensor,
        gamma: Tensor,
        beta: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        gather, distribute, mixtures = attend(x, weights, b_rho)
        descriptors = w_phi @ mixtures + b_phi[:, None]
        values = w_out @ descriptors
        mean = (values @ distribute.mean(2, keepdim=True)).mean(0)[:, 0]
        values -= mean[:, None]  # from here on E Q has no mean
        y = _mixed(values, distribute, x)
        variance = torch.linalg.vector_norm(y, dim=2).square_().sum(0) / (x.shape[0] * x.shape[2])
        inverse = (variance + eps).rsqrt()
        torch.addcmul(x, y, (gamma * inverse)[:, None], out=y).add_(beta[:, None])
        ctx.save_for_backward(
            x, gather, distribute, mixtures, descriptors, values, weights, w_phi, w_out, gamma, inverse
        )
        mean = mean + b_out
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of everything but eps."""
        x, gather, distribute, mixtures, descriptors, values, weights, w_phi, w_out, gamma, inverse = ctx.saved_tensors
        y = _mixed(values, distribute, x)
        no_mean = torch.zeros_like(inverse)
        d_y, d_gamma, d_beta = torch.ops.aten.native_batch_norm_backward(
            grad, y, gamma, None, None, no_mean, inverse, True, 0.0, [True, True, True]
        )
        del y
        d_values = torch.empty_like(values)
        for i, d_sample in enumerate(d_y):
            torch.mm(d_sample, distribute[i].T, out=d_values[i])
        d_descriptors = w_out.T @ d_values
        d_mixtures = w_phi.T @ d_descriptors
        shifts = -(mixtures * d_mixtures).sum(1)[:, :, None]  # the sum of P dP over positions is that of D dD

        c_n = len(weights) // 2
        d_scores = x.new_empty(2 * c_n, x.shape[2])
        d_theta, d_rho = d_scores[:c_n], d_scores[c_n:]
        d_distribute = torch.empty_like(d_rho)
        d_x, d_weights, d_b_rho = torch.empty_like(x), torch.zeros_like(weights), x.new_zeros(c_n)
        for i in range(len(x)):
            torch.addmm(shifts[i], d_mixtures[i].T, x[i], out=d_theta).mul_(gather[i])
            torch.mm(values[i].T, d_y[i], out=d_distribute)
            torch.ops.aten._softmax_backward_data.out(d_distribute, distribute[i], 0, x.dtype, grad_input=d_rho)
            torch.addmm(grad[i], d_mixtures[i], gather[i], out=d_x[i]).addmm_(weights.T, d_scores)
            d_weights.addmm_(d_scores, x[i].T)
            d_b_rho += d_rho.sum(1)
        d_w_phi = (d_descriptors @ mixtures.mT).sum(0)
        d_w_out = (d_values @ descriptors.mT).sum(0)
        d_b_theta, d_b_out = torch.zeros_like(d_b_rho), no_mean
        d_b_phi = d_descriptors.sum((0, 2))
        return d_x, d_weights, d_b_theta, d_b_rho, d_w_phi, d_b_phi, d_w_out, d_b_out, d_gamma, d_beta, None


def evaluated(
    x: Tensor,
    weights: Tensor,
    b_rho: Tensor,
    w_phi: Tensor,
    b_phi: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    norm: BatchNorm,
) -> Tensor:
    """Y of a block in evaluation, without gradients: batch norm goes into E, the sum with X into the last product."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    _, distribute, mixtures = attend(x, weights, b_rho)
    values = w_out @ (w_phi @ mixtures + b_phi[:, None]) + (b_out - norm.running_mean)[:, None]
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    values = torch.addcmul(norm.bias[:, None], values, scale[:, None])
    y = torch.empty_like(x)
    for i, out in enumerate(y):
        torch.addmm(x[i], values[i], distribute[i], out=out)
    return y


def attend(x: Tensor, weights: Tensor, b_rho: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """P (B, c_n, L), Q (B, c_n, L) and D (B, c, c_n) of NormalizedAttention."""
    c_n = len(b_rho)
    scores = x.new_empty(2 * c_n, x.shape[2])
    gather, distribute = (x.new_empty(x.shape[0], c_n, x.shape[2]) for _ in range(2))
    mixtures = x.new_empty(*x.shape[:2], c_n)
    for i, sample in enumerate(x):
        torch.mm(weights, sample, out=scores)
        torch.softmax(scores[:c_n], 1, out=gather[i])
        torch.softmax(scores[c_n:].add_(b_rho[:, None]), 0, out=distribute[i])
        torch.mm(sample, gather[i].T, out=mixtures[i])
    return gather, distribute, mixtures


def _mixed(values: Tensor, distribute: Tensor, x: Tensor) -> Tensor:
    """E Q, in the layout of x."""
    y = torch.empty_like(x)
    for i, out in enumerate(y):
        torch.mm(values[i], distribute[i], out=out)
    return y
