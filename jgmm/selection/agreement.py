"""The adjusted Rand index, which measures how far two partitions agree."""

from __future__ import annotations

from typing import Any

import numpy as np

from jgmm._core.errors import DataError


def adjusted_rand_index(a: Any, b: Any) -> float:
    """Compute the adjusted Rand index: the agreement of two partitions, corrected for chance.

    With n_ij samples in cluster i of one and j of the other, and C(n) = n (n - 1) / 2 pairs,

        (Σ_ij C(n_ij) - m) / ((Σ_i C(n_i.) + Σ_j C(n_.j)) / 2 - m),
        m = Σ_i C(n_i.) Σ_j C(n_.j) / C(n)

    Args:
      a, b: labels, (N,) each: numbers or names, which need not be the same in both.

    Returns:
      1 for equal partitions, about 0 for independent ones, below 0 for worse than chance.

    Raises:
      DataError: the two do not have one label for each sample.

    Reference: Hubert & Arabie (1985).

    >>> adjusted_rand_index([0, 0, 1, 1], ["b", "b", "a", "a"])
    1.0
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise DataError(
            "both partitions must have one label a sample; their shapes are "
            f"{first.shape} and {second.shape}."
        )
    i = np.unique(first, return_inverse=True)[1]
    j = np.unique(second, return_inverse=True)[1]
    both = _pairs(i * (j.max() + 1) + j)
    of_a, of_b, all_pairs = _pairs(i), _pairs(j), _pairs(np.zeros_like(i))
    # Equal partitions; also where all samples, or none, share a label, so that the index is 0 / 0.
    if of_a == of_b == both:
        return 1.0
    # Numerator and denominator are multiplied by the number of pairs: then they are whole numbers,
    # and only the last division rounds.
    by_chance = of_a * of_b
    return 2 * (both * all_pairs - by_chance) / ((of_a + of_b) * all_pairs - 2 * by_chance)


def _pairs(labels: np.ndarray) -> int:
    """Return the number of pairs of samples that share a label."""
    counts = np.unique(labels, return_counts=True)[1]
    return sum(n * (n - 1) // 2 for n in counts.tolist())
