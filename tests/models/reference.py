"""Double attention written out from the paper's equations, one position and one descriptor at a time, in float64."""

from __future__ import annotations

import numpy as np


def double_attention(
    x: np.ndarray,
    phi: tuple[np.ndarray, np.ndarray],
    theta: tuple[np.ndarray, np.ndarray],
    rho: tuple[np.ndarray, np.ndarray],
    out: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """W_out Z + b_out, before normalisation and residual.

    Args:
        x: (B, c, L).
        phi, theta, rho, out: weight (rows, columns) and bias (rows,) of the four 1x1x1 convolutions.

    Returns:
        (B, c, L).
    """
    y = np.zeros(x.shape)
    for sample, features in enumerate(x.astype(np.float64)):
        positions = range(features.shape[1])
        a = [phi[0] @ features[:, i] + phi[1] for i in positions]
        b = np.stack([theta[0] @ features[:, i] + theta[1] for i in positions])  # (L, c_n)
        descriptors = []
        for j in range(b.shape[1]):
            weights = np.exp(b[:, j] - b[:, j].max())
            weights /= weights.sum()  # over positions
            descriptors.append(sum(weights[i] * a[i] for i in positions))
        for i in positions:
            v = rho[0] @ features[:, i] + rho[1]
            weights = np.exp(v - v.max())
            weights /= weights.sum()  # over descriptors
            z = sum(weights[j] * descriptors[j] for j in range(len(descriptors)))
            y[sample, :, i] = out[0] @ z + out[1]
    return y
