"""What climbs the log-likelihood: the objective, what one pass tells of it, and a step.

An optimiser is two functions, ``init`` and ``step``, see ``Optimizer``; one of optax is put behind
them by ``Optax``. Natural gradient and Newton-CG are others (``jgmm.gradient.natural_gradient``,
``jgmm.gradient.newton_cg``), and so can be a reader's own: ``jgmm.gradient.fit`` does the rest,
from starts and frames to stopping rules, many restarts and statuses.

The objective is minus the mean log-likelihood per sample. Its gradient costs one pass of the same
engine as EM's step: by Fisher's identity the gradient of log p(x) is that of the expected
complete-data log-likelihood, which depends on the samples only through ``Statistics``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import optax
from jaxtyping import Array

from jgmm._core.errors import DataError
from jgmm._data.samples import Samples
from jgmm.em.e_step import accumulate
from jgmm.em.statistics import Statistics, expected_log_likelihood
from jgmm.mixture.mixture import Mixture

Point = TypeVar("Point")
# From a point, a pytree of numbers without constraints, to the mixture it stands for.
ToMixture = Callable[[Any], Mixture]


def value_and_gradient(
    chart: ToMixture, point: Point, samples: Samples
) -> tuple[Array, Point, Statistics]:
    """The objective at a point, its gradient, and the statistics both come from: one pass.

    It can be differentiated once more, forwards, which gives Hessian-vector products.
    """
    total = samples.total_weight()
    statistics = accumulate(chart(point), samples)

    def complete(point: Point) -> Array:
        return -expected_log_likelihood(chart(point), statistics) / total

    return -statistics.log_likelihood / total, jax.grad(complete)(point), statistics


def objective(chart: ToMixture, samples: Samples) -> Callable[[Any], Array]:
    """Minus the mean log-likelihood per sample as a function of a point.

    Returns:
      A function whose value and reverse-mode gradient both come from one pass of the engine. It
      has no forward-mode derivative: asking for one is an error.
    """

    @jax.custom_vjp
    def loss(point: Any) -> Array:
        return -accumulate(chart(point), samples).log_likelihood / samples.total_weight()

    def forward(point: Any) -> tuple[Array, Any]:
        value, gradient, _ = value_and_gradient(chart, point, samples)
        return value, gradient

    def backward(gradient: Any, cotangent: Array) -> tuple[Any]:
        return (jax.tree.map(lambda leaf: cotangent * leaf, gradient),)

    loss.defvjp(forward, backward)
    return loss


@dataclass(frozen=True)
class Evaluation:
    """What one pass over the samples tells an optimiser of the point it is at.

    Attributes:
      point: numbers without constraints, a pytree.
      value: the objective, minus the mean log-likelihood per sample, ().
      gradient: of it, shaped like ``point``.
      mixture: what the point stands for, in the frame of the samples.
      statistics: of the E-step of that mixture, and its log-likelihood.
      samples: all of them, or the mini-batch of this step.
      chart: from a point to the mixture that is climbed there.
      point_of: from a mixture to its point.
    """

    point: Any
    value: Array
    gradient: Any
    mixture: Mixture
    statistics: Statistics
    samples: Samples
    chart: ToMixture
    point_of: Callable[[Mixture], Any]

    def loss(self, point: Any) -> Array:
        """The objective at another point, for one more pass; ``jax.grad`` goes through it."""
        return objective(self.chart, self.samples)(point)

    def curvature(self, direction: Any) -> Any:
        """Hessian of the objective at the point times a direction, for one more pass."""

        def gradient(point: Any) -> Any:
            return value_and_gradient(self.chart, point, self.samples)[1]

        return jax.jvp(gradient, (self.point,), (direction,))[1]


class Update(NamedTuple):
    """What an optimiser answers.

    Attributes:
      point: where to go.
      memory: what it wants to know there.
      n_passes: passes over the samples it has made besides the one it was told of.
    """

    point: Any
    memory: Any
    n_passes: Any = 0


@runtime_checkable
class Optimizer(Protocol):
    """What an optimiser must offer; static and hashable, such as a frozen dataclass.

    A step is compiled and runs under ``vmap``, one lane a restart: no Python ``if`` on numbers. One
    that finds nothing better may stay where it is. ``docs/extending.md`` has one of a few lines.
    """

    def init(self, point: Any) -> Any:
        """The memory before the first step, any pytree of arrays."""

    def step(self, memory: Any, here: Evaluation) -> Update:
        """Where to go from a point, and the memory there, of the same shapes and types."""


@dataclass(frozen=True)
class Optax:
    """A transformation of optax as an ``Optimizer``; a line search is given the objective."""

    transformation: optax.GradientTransformation

    def init(self, point: Any) -> Any:
        """The transformation's own state."""
        return self.transformation.init(point)

    def step(self, memory: Any, here: Evaluation) -> Update:
        """The transformation's update, with the extra arguments that those that take them need."""
        update = optax.with_extra_args_support(self.transformation).update
        # optax mixes dtypes inside, which strict users of JAX would otherwise see as an error of
        # ours.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, moved = update(
                here.gradient,
                memory,
                here.point,
                value=here.value,
                grad=here.gradient,
                value_fn=here.loss,
            )
            point = optax.apply_updates(here.point, updates)
        made = optax.tree_utils.tree_get(moved, "num_linesearch_steps")
        return Update(point, moved, 0 if made is None else made)


def as_optimizer(given: Any) -> Optimizer:
    """An optimiser as it is, or a transformation of optax behind its two functions.

    Raises:
      DataError: neither.
    """
    if isinstance(given, optax.GradientTransformation):
        return Optax(given)
    if not isinstance(given, Optimizer) or isinstance(given, type):
        raise DataError(
            f"optimizer must be a transformation of optax, such as optax.adam(1e-2), or have the "
            f"methods init and step (jgmm.optimizer.Optimizer); {given!r} is neither."
        )
    return given
