"""Options of a fit: one record that every way to fit takes, and what compiled code reads of it.

``Options`` holds the options as people give them. ``Control`` holds the numbers among them that a
compiled program reads: tolerances, ridge, prior and floor.

A function that fits takes ``options=``, a whole record, and every field as a keyword of its own.
``AcceptedOptions`` is the one place that puts both together, and that refuses the options which the
function cannot honour.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgmm._core.arguments import check_whole
from jgmm._core.compilation import Function
from jgmm._core.errors import DataError, shown, suggest
from jgmm._core.pytree import Leaf, is_traced
from jgmm._data.samples import Samples, Standardization
from jgmm.covariance.models import MODELS, CovarianceModel, model
from jgmm.mixture.mixture import Mixture
from jgmm.mixture.prior import Prior, as_prior

_COUNT = "n_components, the argument after the samples"
_KEY = "the key, which comes first: jax.random.key(0), or another number for other starts"
_START = "init, for example a Mixture made by jgmm.make_mixture"
# What other packages call an option: scikit-learn, mclust, and a few words that come to mind.
FOREIGN_NAMES = {
    "covariance_type": "covariance",
    "cov_type": "covariance",
    "model_names": "covariance",
    "modelNames": "covariance",
    "n_init": "n_restarts",
    "nstart": "n_restarts",
    "n_starts": "n_restarts",
    "random_state": _KEY,
    "seed": _KEY,
    "rng": _KEY,
    "max_iter": "max_steps",
    "n_iter": "max_steps",
    "itmax": "max_steps",
    "n_steps": "max_steps",
    "init_params": "init",
    "weights_init": _START,
    "means_init": _START,
    "precisions_init": _START,
    "warm_start": "init, to which the mixture of an earlier fit is given",
    "reg_covar": "ridge, a fraction of the data's variance",
    "min_covar": "floor, a fraction of the data's variance",
    "weights": "sample_weight",
    "sample_weights": "sample_weight",
    "verbose": "progress, a function that is called every few steps",
    "verbose_interval": "progress, a function that is called every few steps",
    "n_clusters": _COUNT,
    "k": _COUNT,
    "K": _COUNT,
    "G": _COUNT,
}


# Starts that are drawn where the caller names no number: three or four of each method of the
# portfolio. Small problems run eight starts side by side for the time of one.
DRAWN_STARTS = 16


@dataclass(frozen=True)
class Options:
    """All options of a fit by EM that do not belong to one data set.

    Every function that fits takes such a record as ``options=``, or its fields as keywords, or
    both: then the keywords replace fields of the record.

    Attributes:
      covariance: name of the covariance model, see ``jgmm.covariance``.
      n_restarts: number of starts R, run side by side in one program; None means 16 where starts
        are drawn, and as many as ``init`` gives where it gives them.
      init: "portfolio", all methods in turn, which finds more optima than each alone; or the name
        of one, a key of ``jgmm.initialization.STARTS``; or labels (N,), or a ``Mixture`` in the
        units of the samples, which with a leading axis of R is R starts.
      race: number of steps after which only the most promising quarter of the starts goes on
        (``jgmm.fitting.racing``); zero runs every start to its end.
      tol: a fit has converged when the mean log-likelihood per sample changes by less, in nats; by
        default 1e-8 in float64 and 1e-6 in float32.
      rtol: the same, relative to the mean log-likelihood; by default four times the machine
        epsilon.
      max_steps: maximal number of M-steps of a restart.
      ridge: added to every variance, as a fraction of the data's variance.
      equal_weights: give all components the same weight, which saves K - 1 parameters.
      prior: None, "conjugate", or a ``jgmm.mixture.Prior`` of the components.
      floor: lower bound of the variances in every direction, as a fraction of the data's variance,
        or None.
      accelerate: "anderson" or "squarem" extrapolate EM's steps (``jgmm.em.acceleration``); None is
        plain EM.

    >>> import jax, jgmm
    >>> x = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]]
    >>> options = jgmm.Options(covariance="tied", prior="conjugate", n_restarts=4)
    >>> result = jgmm.fit(jax.random.key(0), x, 2, options=options, init="points")
    >>> result.mixture.covariance
    'tied'
    """

    covariance: str = "full"
    n_restarts: int | None = None
    init: Any = "portfolio"
    race: int = 0
    tol: Any = None
    rtol: Any = None
    max_steps: int = 1000
    ridge: Any = 0.0
    equal_weights: bool = False
    prior: Any = None
    floor: Any = None
    accelerate: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers of restarts and steps, for every way to fit.

        Raises:
          DataError: one is no whole number, or too small.
        """
        if self.n_restarts is not None:
            check_whole("n_restarts", self.n_restarts, 1)
        check_whole("max_steps", self.max_steps, 0)

    @property
    def n_starts(self) -> int:
        """The number of starts, also where ``n_restarts`` is None."""
        return self.n_restarts or number_given(self.init) or DRAWN_STARTS

    @property
    def entry(self) -> CovarianceModel:
        """The covariance model.

        Raises:
          DataError: there is none of that name.
        """
        return model(self.covariance)

    def control(self, whole: Samples | Standardization, n_components: int) -> Control:
        """Return the numbers among the options that a compiled program reads.

        Args:
          whole: the samples, or the standardization in which they have the unit covariance.
          n_components: K.

        Raises:
          DataError: a number out of range, or a prior or a floor that does not fit.
        """
        check_floor(self.floor, self.entry)
        dtype = whole.shift.dtype if isinstance(whole, Standardization) else whole.x.dtype
        prior = as_prior(self.prior, whole, n_components)
        return make_control(dtype, self.tol, self.rtol, self.ridge, prior, self.floor)


class OtherKeywords(TypedDict, total=False):
    """The fields of ``Options`` except ``covariance``, for functions with such a parameter."""

    n_restarts: int | None
    init: Any
    race: int
    tol: Any
    rtol: Any
    max_steps: int
    ridge: Any
    equal_weights: bool
    prior: Any
    floor: Any
    accelerate: str | None


class OptionKeywords(OtherKeywords, total=False):
    """The fields of ``Options`` as keywords, for type checkers; a test compares the two lists."""

    covariance: str


@dataclass(frozen=True)
class AcceptedOptions:
    """Which options a function takes, and their defaults there.

    Attributes:
      defaults: the options of a call that gives none.
      decided: options that something else decides, such as the covariance model of a mixture given,
        each with the reason. As a keyword such an option is an error; in a record, which may have
        served another function before, it has no effect.
      refused: options that the function cannot honour, each with the reason. Any value but the
        default is an error.
    """

    defaults: Options = field(default_factory=Options)
    decided: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def read(self, options: Options | None, keywords: Any) -> Options:
        """Put a record of options and keywords together.

        Args:
          options: the record given as ``options=``, or None for the defaults.
          keywords: fields given as keywords; they replace those of the record.

        Raises:
          TypeError: a keyword that is no field of ``Options``.
          DataError: an option that the function cannot honour, or a number out of range.
        """
        names = [each.name for each in fields(Options)]
        for name in keywords:
            if name not in names:
                raise TypeError(_unknown(name, names))
            if name in self.decided:
                raise DataError(f"{name} cannot be given here: {self.decided[name]}")
        given = replace(self.defaults if options is None else options, **keywords)
        for name, reason in self.refused.items():
            if _differs(getattr(given, name), getattr(self.defaults, name)):
                raise DataError(f"{name} cannot be used here: {reason}")
        return replace(given, **{name: getattr(self.defaults, name) for name in self.decided})

    def signature(self, function: Function) -> Function:
        """Show every accepted option, with its default, in the signature of a function.

        The function's own last parameter is ``**keywords``; the fields take its place, so that
        ``help`` and notebooks list them.
        """
        own = inspect.signature(function)
        *others, keywords = own.parameters.values()
        assert keywords.kind is inspect.Parameter.VAR_KEYWORD
        shown = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=getattr(self.defaults, each.name),
                annotation=each.type,
            )
            for each in fields(Options)
            if each.name not in {*self.decided, *self.refused}
        ]
        function.__signature__ = own.replace(parameters=[*others, *shown])  # type: ignore[attr-defined]
        return function


def number_given(init: Any) -> int:
    """Return the number of starts that ``init`` gives; zero where it names a method to draw them.

    >>> number_given("kmeans"), number_given([0, 0, 1])
    (0, 1)
    """
    if isinstance(init, str):
        return 0
    several = isinstance(init, Mixture) and init.means.ndim == 3
    return len(init.means) if several else 1


def _unknown(name: str, known: list[str]) -> str:
    """Say that an option is not known, and what it is called here where that is known."""
    if name in FOREIGN_NAMES:
        return f"there is no option {name!r}; here it is {FOREIGN_NAMES[name]}."
    return f"unknown option {name!r}.{suggest(name, known)} Known: {', '.join(known)}."


def _differs(value: Any, default: Any) -> bool:
    """Whether an option has another value than its default; arrays always have."""
    plain = (bool, int, float, str, type(None))
    if isinstance(value, plain) and isinstance(default, plain):
        return value != default
    return value is not default


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Control:
    """When to stop, and how much to regularise; leaves, so that changing them compiles nothing.

    A fit has converged when the mean log-likelihood per sample changes by at most
    ``tol + rtol * |mean log-likelihood|`` in a step. ``ridge`` is added to every variance, as a
    fraction of the data's: one number, or one a column, (D,), where the frame scales by column.
    No variance in any direction is below ``floor``, as a fraction of the data's, or None.
    ``prior`` is that of the components, in the units of the data, or None.
    """

    tol: Leaf
    rtol: Leaf
    ridge: Leaf
    prior: Prior | None = None
    floor: Leaf | None = None

    def floor_in(self, frame: Standardization) -> Array | None:
        """The covariance in a frame that bounds all others from below, (D, D), or None."""
        return None if self.floor is None else frame.unit_variances(self.floor)

    def prior_in(self, frame: Standardization) -> Prior | None:
        """The prior in a frame, or None."""
        return None if self.prior is None else self.prior.standardize(frame)


def make_control(
    dtype: Any,
    tol: Any,
    rtol: Any,
    ridge: Any,
    prior: Prior | None = None,
    floor: Any = None,
) -> Control:
    """Fill in defaults by dtype: tol 1e-8 in float64 and 1e-6 in float32, rtol 4 times epsilon.

    Raises:
      DataError: a tolerance or a ridge is below zero, or a floor is not between zero and one.
    """
    eps = float(jnp.finfo(dtype).eps)
    default = 1e-8 if eps < 1e-10 else 1e-6
    values = {
        "tol": default if tol is None else tol,
        "rtol": 4 * eps if rtol is None else rtol,
        "ridge": ridge,
    }
    for name, value in values.items():
        if not is_traced(value) and not np.all(np.asarray(value) >= 0):
            raise DataError(f"{name} must be at least zero; it is {shown(value)}.")
    if floor is not None and not is_traced(floor) and not 0 < floor < 1:
        raise DataError(f"floor must be a fraction of the data's variance, not {shown(floor)}.")
    leaves = {name: jnp.asarray(value, dtype) for name, value in values.items()}
    floor = None if floor is None else jnp.asarray(floor, dtype)
    return Control(**leaves, prior=prior, floor=floor)


def check_floor(floor: Any, entry: CovarianceModel) -> None:
    """Refuse a floor for a model that does not support one.

    The covariances of such a model share properties, which they would lose if each of them were
    raised to the floor.

    Raises:
      DataError: with the models that support a floor.
    """
    if floor is not None and not entry.supports_floor:
        known = ", ".join(each.name for each in MODELS.values() if each.supports_floor)
        raise DataError(
            f"{entry.name} takes no floor: raised one by one, its covariances would lose what they "
            f"share. These take one: {known}. Or give a ridge or a prior."
        )
