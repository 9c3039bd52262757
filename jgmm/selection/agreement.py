"""The adjusted Rand index, which measures how far two partitions agree."""

from __future__ import annotations

from typing import Any

import numpy as np

from jgmm._core.errors import DataError
from jgmm._data.arrays import split_missing


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
      DataError: the two do not have one label for each sample, or a label is missing.

    Reference: Hubert & Arabie (1985).

    >>> adjusted_rand_index([0, 0, 1, 1], ["b", "b", "a", "a"])
    1.0
    """
    first, second = _labels(a, "a"), _labels(b, "b")
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


def _labels(labels: Any, name: str) -> np.ndarray:
    """Return the labels of a partition on the host, or say which one is missing."""
    values, missing = split_missing(labels, name)
    if missing.any():
        raise DataError(f"{name} has no label in row {int(np.argmax(missing.ravel()))}.")
    return np.asarray(values)


def _pairs(labels: np.ndarray) -> int:
    """Return the number of pairs of samples that share a label."""
    counts = np.unique(labels, return_counts=True)[1]
    return sum(n * (n - 1) // 2 for n in counts.tolist())
