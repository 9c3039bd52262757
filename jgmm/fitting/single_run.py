"""One run of EM from a given mixture."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jgmm._core.compilation import jit
from jgmm._core.status import Status
from jgmm._data.samples import Samples
from jgmm._data.standardization import standardize
from jgmm.em.acceleration import accelerated
from jgmm.em.algorithm import EM
from jgmm.em.e_step import check_inputs
from jgmm.em.options import Control, Options
from jgmm.fitting.algorithm import AdditiveAlgorithm, Algorithm
from jgmm.fitting.results import FitResult, to_result
from jgmm.mixture.mixture import Mixture, to_standard


def algorithm_for(options: Options) -> AdditiveAlgorithm:
    """EM, accelerated where that is wished for.

    Raises:
      DataError: an unknown acceleration.
    """
    return accelerated(EM(options.max_steps, options.equal_weights), options.accelerate)


def run_em(
    mixture: Mixture,
    x: Any,
    sample_weight: Any = None,
    *,
    tol: Any = None,
    rtol: Any = None,
    max_steps: int = 1000,
    ridge: Any = 0.0,
    equal_weights: bool = False,
    prior: Any = None,
    floor: Any = None,
    accelerate: str | None = None,
) -> FitResult:
    """Run EM from a given mixture until it converges.

    Args:
      mixture: where to start, in the units of x; its covariance model is kept.
      x: samples in rows, (N, D).
      sample_weight: how many times each sample counts, (N,).
      tol: stop when the mean log-likelihood per sample changes by less, in nats.
      rtol: the same relative to the mean log-likelihood; see ``Control``.
      max_steps: M-steps at most; zero evaluates the mixture.
      ridge: added to every variance, as a fraction of the data's.
      equal_weights: give all components the same weight, from the start on.
      prior, floor: of the components, see ``jgmm.fit``.
      accelerate: a name in ``jgmm.em.SCHEMES``; None for EM as it is.

    Returns:
      A ``FitResult``; read its status. Works inside ``jit`` and under ``vmap``.

    Raises:
      DataError: see ``as_samples``; or another number of columns than the mixture's, or an unknown
        acceleration.
    """
    mixture, samples = check_inputs(mixture, x, sample_weight)
    options = Options(
        covariance=mixture.covariance,
        tol=tol,
        rtol=rtol,
        max_steps=max_steps,
        ridge=ridge,
        equal_weights=equal_weights,
        prior=prior,
        floor=floor,
        accelerate=accelerate,
    )
    control = options.control(samples, mixture.n_components)
    return _run_em(mixture, samples, control, algorithm_for(options))


@partial(jit, static_argnums=3)
def _run_em(mixture: Mixture, samples: Samples, control: Control, method: Algorithm) -> FitResult:
    inside = standardize(samples, mixture.model)
    start = method.init(to_standard(mixture, inside.frame))
    history = jnp.full(method.max_steps + 1, jnp.nan, inside.x.dtype)

    def turn(carry: tuple[Any, Array]) -> tuple[Any, Array]:
        states, history = carry
        stepped = method.step(states, inside, control)
        return stepped, history.at[states.n_steps[0]].set(stepped.log_likelihood[0])

    ended, history = lax.while_loop(
        lambda carry: carry[0].status[0] == Status.RUNNING,
        turn,
        (jax.tree.map(lambda leaf: leaf[None], start), history),
    )
    state = jax.tree.map(lambda leaf: leaf[0], ended)
    ended_at = state.log_likelihood
    return to_result(state.mixture, ended_at, state, history, None, inside, control.prior)
