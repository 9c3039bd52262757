"""Optimizer protocol: the objective and its gradient, ``Evaluation``, ``Optimizer``, ``Update``.

An optimiser has two methods, ``init`` and ``step``, see ``Optimizer``. ``Optax`` wraps a
transformation of optax in them. Natural gradient and Newton-CG implement them as well
(``jgmm.gradient.natural_gradient``, ``jgmm.gradient.newton_cg``), and so can an optimiser of your
own. ``jgmm.gradient.fit`` does the rest: starts, standardization, stopping rules, many restarts and
statuses.

The objective is minus the mean log-likelihood per sample. Its gradient costs one pass over the
samples, by the same code as EM's step: by Fisher's identity the gradient of log p(x) equals that of
the expected complete-data log-likelihood, which depends on the samples only through ``Statistics``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import optax
from jaxtyping import Array

from jgmm._core.errors import DataError, shown
from jgmm._data.samples import Samples
from jgmm.em.e_step import accumulate
from jgmm.em.statistics import Statistics, expected_log_likelihood
from jgmm.mixture.mixture import Mixture

Point = TypeVar("Point")
# Maps a point, a pytree of numbers without constraints, to the mixture it stands for.
ToMixture = Callable[[Any], Mixture]


def value_and_gradient(
    to_mixture: ToMixture, point: Point, samples: Samples
) -> tuple[Array, Point, Statistics]:
    """Compute the objective at a point, its gradient and the statistics, in one pass.

    The function can be differentiated once more in forward mode, which gives Hessian-vector
    products.

    Args:
      to_mixture: maps a point to its mixture.
      point: a pytree of numbers without constraints.
      samples: in the frame of the mixture.

    Returns:
      Minus the mean log-likelihood per sample, in nats, (); its gradient, shaped like the point;
      and the statistics of the E-step, from which both are computed.
    """
    total = samples.total_weight()
    statistics = accumulate(to_mixture(point), samples)

    def complete_data_loss(point: Point) -> Array:
        return -expected_log_likelihood(to_mixture(point), statistics) / total

    return -statistics.log_likelihood / total, jax.grad(complete_data_loss)(point), statistics


def objective(to_mixture: ToMixture, samples: Samples) -> Callable[[Any], Array]:
    """Return the objective, minus the mean log-likelihood per sample, as a function of a point.

    Returns:
      A function whose value and reverse-mode gradient both come from one pass over the samples. It
      has no forward-mode derivative: asking for one is an error.
    """

    @jax.custom_vjp
    def loss(point: Any) -> Array:
        return -accumulate(to_mixture(point), samples).log_likelihood / samples.total_weight()

    def forward(point: Any) -> tuple[Array, Any]:
        value, gradient, _ = value_and_gradient(to_mixture, point, samples)
        return value, gradient

    def backward(gradient: Any, cotangent: Array) -> tuple[Any]:
        return (jax.tree.map(lambda leaf: cotangent * leaf, gradient),)

    loss.defvjp(forward, backward)
    return loss


@dataclass(frozen=True)
class Evaluation:
    """The objective, its gradient and the statistics at a point: one pass over the samples.

    Attributes:
      point: numbers without constraints, a pytree.
      value: the objective, minus the mean log-likelihood per sample, in nats, ().
      gradient: gradient of the objective, shaped like ``point``.
      mixture: the mixture of the point, in the frame of the samples, with normalised weights.
      statistics: statistics of the E-step of that mixture, and its log-likelihood.
      samples: all samples, or the mini-batch of this step.
      to_mixture: maps a point to the mixture whose log-likelihood is maximised.
      to_point: maps a mixture to its point.
    """

    point: Any
    value: Array
    gradient: Any
    mixture: Mixture
    statistics: Statistics
    samples: Samples
    to_mixture: ToMixture
    to_point: Callable[[Mixture], Any]

    def loss(self, point: Any) -> Array:
        """Compute the objective at another point, by one more pass; ``jax.grad`` works on it."""
        return objective(self.to_mixture, self.samples)(point)

    def curvature(self, direction: Any) -> Any:
        """Compute a Hessian-vector product of the objective at the point, by one more pass."""

        def gradient(point: Any) -> Any:
            return value_and_gradient(self.to_mixture, point, self.samples)[1]

        return jax.jvp(gradient, (self.point,), (direction,))[1]


class Update(NamedTuple):
    """The next point and the next state, which an optimiser's step returns.

    Attributes:
      point: the next point, shaped like the last one.
      state: the optimiser's state at that point.
      n_passes: passes over the samples that the step made, in addition to the one of the
        ``Evaluation`` it was given.
    """

    point: Any
    state: Any
    n_passes: Any = 0


@runtime_checkable
class Optimizer(Protocol):
    """Protocol of an optimiser; static and hashable, such as a frozen dataclass.

    A step is compiled and runs under ``vmap`` over restarts: no Python ``if`` on numbers. A step
    that finds no better point may return the same point. ``docs/extending.md`` has an example of a
    few lines.
    """

    def init(self, point: Any) -> Any:
        """Return the state before the first step, any pytree of arrays."""

    def step(self, state: Any, evaluation: Evaluation) -> Update:
        """Return the next point and the next state, of the same shapes and types."""


@dataclass(frozen=True)
class Optax:
    """A transformation of optax as an ``Optimizer``; line searches can evaluate the objective."""

    transformation: optax.GradientTransformation

    def init(self, point: Any) -> Any:
        """Return the initial state of the transformation."""
        return self.transformation.init(point)

    def step(self, state: Any, evaluation: Evaluation) -> Update:
        """Apply the transformation's update, with the extra arguments that line searches need."""
        update = optax.with_extra_args_support(self.transformation).update
        # optax mixes dtypes inside; under strict dtype promotion that would raise an error.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, new_state = update(
                evaluation.gradient,
                state,
                evaluation.point,
                value=evaluation.value,
                grad=evaluation.gradient,
                value_fn=evaluation.loss,
            )
            point = optax.apply_updates(evaluation.point, updates)
        n_passes = optax.tree_utils.tree_get(new_state, "num_linesearch_steps")
        return Update(point, new_state, 0 if n_passes is None else n_passes)


def as_optimizer(given: Any) -> Optimizer:
    """Return an optimiser unchanged, or a transformation of optax wrapped as an ``Optimizer``.

    Raises:
      DataError: an object that is neither.

    >>> import optax
    >>> type(as_optimizer(optax.adam(1e-2))).__name__
    'Optax'
    """
    if isinstance(given, optax.GradientTransformation):
        return Optax(given)
    if not isinstance(given, Optimizer) or isinstance(given, type):
        raise DataError(
            f"optimizer must be a transformation of optax, such as optax.adam(1e-2), or have the "
            f"methods init and step (jgmm.gradient.Optimizer); {shown(given)} is neither."
        )
    return given
