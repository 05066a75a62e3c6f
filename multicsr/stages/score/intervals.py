"""Intervals at 95% of what is measured on a sample."""

from math import atanh, sqrt, tanh

_Z = 1.959964
"""Quantile of the normal distribution for an interval of 95%."""


def wilson_interval(share: float, num_rows: int) -> tuple[float, float]:
    """Return the Wilson interval of a share of rows that were drawn at random."""
    n, p = num_rows, share
    centre, margin = p + _Z**2 / (2 * n), _Z * sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    return (centre - margin) / (1 + _Z**2 / n), (centre + margin) / (1 + _Z**2 / n)


def spearman_interval(rho: float, num_pairs: int) -> tuple[float, float]:
    """Return the interval of Spearman's rho, by Fisher's transform (Bonett and Wright 2000)."""
    rho = min(max(rho, -1 + 1e-9), 1 - 1e-9)
    margin = _Z * sqrt((1 + rho**2 / 2) / (num_pairs - 3))
    return tanh(atanh(rho) - margin), tanh(atanh(rho) + margin)
