"""Label switching: reorder the components of refitted mixtures to match a reference mixture.

The order of a mixture's components is arbitrary, so a refit may return them in another order. Two
components match if the same samples belong to them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from jgmm._data.samples import Samples, fold
from jgmm.em.e_step import block_rows
from jgmm.mixture.density import e_step
from jgmm.mixture.mixture import Mixture


def overlaps(first: Mixture, second: Mixture, samples: Samples) -> Float[Array, "K K"]:
    """Compute the overlap of components j of one mixture and k of another, Σₙ wₙ γₙⱼ γ'ₙₖ.

    It is the expected number of samples that belong to both.

    Args:
      first, second: two mixtures of the same samples.
      samples: in the units of both.

    Returns:
      Total weights, (K, K), the components of ``first`` in rows.

    >>> import jgmm
    >>> from jgmm._data.samples import make_samples
    >>> one = jgmm.make_mixture([0.5, 0.5], [[-9.0], [9.0]], [1.0, 1.0], "spherical")
    >>> other = jgmm.make_mixture([0.5, 0.5], [[8.0], [-8.0]], [1.0, 1.0], "spherical")
    >>> overlaps(one, other, make_samples([[-9.0], [-8.0], [9.0]])).tolist()
    [[0.0, 2.0], [1.0, 0.0]]
    """

    def body(x: Array, weights: Array, rows: Array) -> Array:
        del rows
        both = (jnp.exp(e_step(mixture, x).log_resp) for mixture in (first, second))
        first_resp, second_resp = both
        return (weights[:, None] * first_resp).T @ second_resp

    return fold(samples, block_rows(samples, first.means.size * first.means.dtype.itemsize), body)


def relabel(mixtures: Mixture, overlap: np.ndarray) -> Mixture:
    """Reorder the components of mixtures by their overlap with a reference mixture.

    Of all K! orders, the one with the largest total overlap is found by the Hungarian method (Kuhn
    1955).

    Args:
      mixtures: leading axis B.
      overlap: (B, K, K), components of the reference in rows, see ``overlaps``. For a mixture
        without usable parameters it is NaN, and the order is left unchanged.

    >>> import jax, jgmm
    >>> two = jgmm.make_mixture([0.25, 0.75], [[-3.0], [3.0]], [1.0, 1.0], "spherical")
    >>> batch = jax.tree.map(lambda leaf: leaf[None], two)
    >>> relabel(batch, np.asarray([[[0.0, 9.0], [8.0, 1.0]]])).means.tolist()
    [[[3.0], [-3.0]]]
    """
    n, k = overlap.shape[:2]
    known = np.where(np.isfinite(overlap).all(axis=(1, 2), keepdims=True), overlap, np.eye(k))
    order = np.stack([linear_sum_assignment(each, maximize=True)[1] for each in known])

    def permuted(leaf: Any) -> Array:
        return jnp.asarray(np.asarray(leaf)[np.arange(n)[:, None], order])

    return replace(
        mixtures,
        log_weights=permuted(mixtures.log_weights),
        means=permuted(mixtures.means),
        scale=jnp.asarray(mixtures.scale) if mixtures.model.shared else permuted(mixtures.scale),
    )
