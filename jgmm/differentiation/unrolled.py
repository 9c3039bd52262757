"""Unrolled differentiation: derivatives through a fixed number of EM steps, for short runs.

``jgmm.differentiation.implicit`` differentiates the optimum. This module differentiates a fixed
number of steps of EM, also with respect to the start, whether they reach an optimum or not. Use it
for a fit that is stopped early on purpose, such as a layer of a few steps inside a larger model, or
where the optimum is singular. The derivative converges to that of the optimum at the rate at which
EM converges. Where EM is slow it needs many steps, and the implicit derivative costs far less.

References: Domke (2012), "Generic methods for optimization-based modeling"; Griewank (1992), for
checkpointing, which keeps only the ends of steps in memory.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jgmm._core.arguments import check_whole
from jgmm._core.compilation import jit
from jgmm._data.samples import Samples
from jgmm._data.standardization import standardize
from jgmm.differentiation.implicit import (
    Regularization,
    check_arguments,
    stop_missing_weights,
)
from jgmm.em.degeneracy import collapsed_components
from jgmm.em.e_step import accumulate
from jgmm.mixture.mixture import HasMixture, Mixture, to_original, to_standard


def run_unrolled(
    mixture: Mixture | HasMixture,
    x: Any,
    sample_weight: Any = None,
    ridge: Any = 0.0,
    prior: Any = None,
    *,
    n_steps: int,
) -> Mixture:
    """Take a fixed number of EM steps that can be differentiated.

    Args:
      mixture: the start, in the units of x.
      x: samples in rows, (N, D).
      sample_weight: how many times each sample counts, (N,). A row of weight zero is missing, and
        the derivative by its weight is zero.
      ridge, prior: as for ``jgmm.fit``; the ridge must be one number.
      n_steps: T, the number of steps.

    Returns:
      The mixture after T steps of EM, equal to ``jgmm.em_step`` applied T times. ``jax.grad``,
      ``jvp`` and ``vmap`` work on it, for all arguments that are numbers. Reverse mode computes
      every step a second time, so that memory holds one mixture for each step and the intermediate
      values of one E-step. If a component collapses in any step, the whole result is NaN.

    Raises:
      DataError: see ``as_samples``; a covariance model without free coordinates, whose M-step may
        iterate; or a negative number of steps.

    >>> import jax, jgmm
    >>> x = jax.numpy.asarray([[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]])
    >>> start = jgmm.m_step(x, [[1, 0]] * 3 + [[0, 1]] * 3, "tied")
    >>> slope = jax.grad(lambda x: run_unrolled(start, x, n_steps=5).means[1, 0])(x)
    >>> [f"{abs(each):.2f}" for each in slope[:, 0].tolist()]
    ['0.00', '0.00', '0.00', '0.33', '0.33', '0.33']
    """
    check_whole("n_steps", n_steps, 0)
    return _run(*check_arguments(mixture, x, sample_weight, ridge, prior), n_steps)


@partial(jit, static_argnums=3)
def _run(
    mixture: Mixture, samples: Samples, regularization: Regularization, n_steps: int
) -> Mixture:
    inside = standardize(stop_missing_weights(samples), mixture.model)

    @jax.checkpoint
    def step(before: Mixture, _: None) -> tuple[Mixture, Array]:
        updated = regularization.maximize(
            accumulate(before, inside), before.covariance, inside.frame
        )
        return updated, collapsed_components(updated, before, inside.frame).any()

    ended, broken = lax.scan(step, to_standard(mixture, inside.frame), length=n_steps)
    # A factor instead of a choice between values: it makes reverse-mode derivatives NaN as well.
    nan_factor = jnp.where(broken.any(), jnp.nan, 1).astype(inside.x.dtype)
    return to_original(jax.tree.map(lambda leaf: nan_factor * leaf, ended), inside.frame)
