"""One run of EM from a given mixture, without restarts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jgmm._core.compilation import jit, without_debug_nans
from jgmm._core.status import Status
from jgmm._data.samples import Samples
from jgmm._data.standardization import standardize
from jgmm.em.acceleration import accelerated
from jgmm.em.algorithm import EM
from jgmm.em.e_step import check_inputs
from jgmm.em.options import AcceptedOptions, Control, OptionKeywords, Options
from jgmm.fitting.algorithm import AdditiveAlgorithm, Algorithm
from jgmm.fitting.results import FitResult, evaluate_returned, to_result
from jgmm.mixture.mixture import HasMixture, Mixture, to_standard


def algorithm_for(options: Options) -> AdditiveAlgorithm:
    """Return EM, or accelerated EM if the options name an acceleration.

    Raises:
      DataError: an unknown acceleration.
    """
    return accelerated(EM(options.max_steps, options.equal_weights), options.accelerate)


GIVEN = "the run starts from the mixture given."
ACCEPTED = AcceptedOptions(
    decided={
        "covariance": "the covariance model is that of the mixture given.",
        "n_restarts": GIVEN,
        "init": GIVEN,
        "race": GIVEN,
    }
)


@without_debug_nans
@ACCEPTED.signature
def run_em(
    mixture: Mixture | HasMixture,
    x: Any,
    sample_weight: Any = None,
    *,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> FitResult:
    """Run EM from a given mixture until it converges.

    Args:
      mixture: the start, in the units of x; its covariance model is kept.
      x: samples in rows, (N, D).
      sample_weight: how many times each sample counts, (N,).
      options, **keywords: see ``jgmm.Options``; with ``max_steps=0`` the mixture is only evaluated.

    Returns:
      A ``FitResult``; read its status. Works inside ``jit`` and under ``vmap``.

    Raises:
      DataError: see ``as_samples``; or another number of columns than the mixture's, or an unknown
        acceleration.

    >>> import jgmm
    >>> start = jgmm.make_mixture([0.5, 0.5], [[0.0], [5.0]], [1.0, 1.0], "spherical")
    >>> result = jgmm.fitting.run_em(start, [[0.0], [0.2], [5.0], [5.4]])
    >>> [round(float(mean), 2) for mean in result.mixture.means[:, 0]]
    [0.1, 5.2]
    """
    mixture, samples = check_inputs(mixture, x, sample_weight)
    options = replace(ACCEPTED.read(options, keywords), covariance=mixture.covariance)
    control = options.control(samples, mixture.n_components)
    result = run_em_unchecked(mixture, samples, control, algorithm_for(options))
    return evaluate_returned(result, samples)


@partial(jit, static_argnums=3)
def run_em_unchecked(
    mixture: Mixture, samples: Samples, control: Control, algorithm: Algorithm
) -> FitResult:
    """Run EM as ``run_em`` does, on samples and options that have been checked.

    Args:
      mixture: the start, in the units of the samples.
      samples: N samples in the identity frame.
      control: tolerances, ridge, prior and floor.
      algorithm: EM, plain or accelerated.
    """
    standardized = standardize(samples, mixture.model)
    start = algorithm.init(to_standard(mixture, standardized.frame))
    history = jnp.full(algorithm.max_steps + 1, jnp.nan, standardized.x.dtype)

    def step(carry: tuple[Any, Array]) -> tuple[Any, Array]:
        states, history = carry  # a batch of one run
        stepped = algorithm.step(states, standardized, control)
        return stepped, history.at[states.n_steps[0]].set(stepped.log_likelihood[0])

    final, history = lax.while_loop(
        lambda carry: carry[0].status[0] == Status.RUNNING,
        step,
        (jax.tree.map(lambda leaf: leaf[None], start), history),
    )
    state = jax.tree.map(lambda leaf: leaf[0], final)
    log_likelihood = state.log_likelihood
    return to_result(
        state.mixture, log_likelihood, state, history, None, standardized, control.prior
    )
