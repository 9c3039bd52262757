"""Derivatives of a fit through its steps, one after the other: for short runs.

What ``jgmm.differentiation.implicit`` gives is the derivative of the optimum. This is that of a
fixed number of steps of EM, by the start as well, whether they get to an optimum or not: for a fit
that is cut short on purpose, such as a layer of a few steps inside a larger model, or where the
optimum is singular. It tends to the derivative of the optimum as fast as EM does to the optimum.
Where that is slow it takes many steps, and the implicit derivative costs far less.

References: Domke (2012), "Generic methods for optimization-based modeling"; Griewank (1992), for
memory that holds the ends of steps only.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._data.samples import Samples
from jgmm._data.standardization import standardize
from jgmm.differentiation.implicit import Regularization, counted, make_regularization
from jgmm.em.degeneracy import collapsed_components
from jgmm.em.e_step import accumulate, check_inputs
from jgmm.mixture.mixture import Mixture, to_original, to_standard
from jgmm.mixture.unconstrained import check_free


def run_unrolled(
    mixture: Mixture,
    x: Any,
    sample_weight: Any = None,
    ridge: Any = 0.0,
    prior: Any = None,
    *,
    n_steps: int,
) -> Mixture:
    """Take so many steps of EM, in a way that can be differentiated.

    Args:
      mixture: where to start, in the units of x.
      x: samples in rows, (N, D).
      sample_weight: how many times each sample counts, (N,). A row of weight zero is missing, and
        the derivative by its weight is zero.
      ridge, prior: as for ``jgmm.fit``; of the ridge one number.
      n_steps: T.

    Returns:
      The mixture after T steps of EM, that of ``jgmm.em_step`` T times.
      ``jax.grad``, ``jvp`` and ``vmap`` go through it, by all arguments that are numbers. Backwards
      every step is taken a second time, so that memory holds one mixture a step, and the E-step's
      own of one. A component that collapses on the way makes everything NaN.

    Raises:
      DataError: see ``as_samples``; a covariance model without free coordinates, whose M-step may
        iterate; or a negative number of steps.

    >>> import jax, jgmm >>> x = jax.numpy.asarray([[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]]) >>>
    start = jgmm.m_step(x, [[1, 0]] * 3 + [[0, 1]] * 3, "tied") >>> slope = jax.grad(lambda x:
    jgmm.differentiation.run_unrolled(start, x, n_steps=5).means[1, 0])(x) >>> [f"{abs(each):.2f}"
    for each in slope[:, 0].tolist()] ['0.00', '0.00', '0.00', '0.33', '0.33', '0.33']
    """
    mixture, samples = check_inputs(mixture, x, sample_weight)
    check_free(mixture.model, mixture.n_components, mixture.n_features)
    if n_steps < 0:
        raise DataError(f"n_steps must be at least zero; it is {n_steps}.")
    return _run(mixture, samples, make_regularization(samples, mixture, ridge, prior), n_steps)


@partial(jit, static_argnums=3)
def _run(
    mixture: Mixture, samples: Samples, regularization: Regularization, n_steps: int
) -> Mixture:
    inside = standardize(counted(samples), mixture.model)

    @jax.checkpoint
    def step(before: Mixture, _: None) -> tuple[Mixture, Array]:
        updated = regularization.maximize(
            accumulate(before, inside), before.covariance, inside.frame
        )
        return updated, collapsed_components(updated, before, inside.frame).any()

    ended, broken = lax.scan(step, to_standard(mixture, inside.frame), length=n_steps)
    # A factor, and no choice between values: it also spoils what goes backwards.
    spoil = jnp.where(broken.any(), jnp.nan, 1).astype(inside.x.dtype)
    return to_original(jax.tree.map(lambda leaf: spoil * leaf, ended), inside.frame)
