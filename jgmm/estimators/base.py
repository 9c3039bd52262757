"""Base of the scikit-learn estimators: reading data, precision, warnings, methods of mixtures.

The estimators are the only part of jgmm that needs scikit-learn, which is an extra.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from jgmm._core.errors import FitError
from jgmm._core.pytree import to_host
from jgmm._core.status import Status, describe
from jgmm._data.arrays import as_plain
from jgmm._data.dataframes import collected, is_table
from jgmm._data.samples import Samples, make_samples
from jgmm._data.validation import as_numbers
from jgmm.fitting.results import FitResult
from jgmm.mixture import density
from jgmm.mixture.conversion import from_sklearn, to_attributes
from jgmm.mixture.mixture import Mixture, n_parameters
from jgmm.selection.criteria import criteria, evidence

try:
    from sklearn.base import BaseEstimator, DensityMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_array, check_is_fitted, check_X_y, validate_data
except ImportError as error:
    raise ImportError('estimators need scikit-learn: pip install "jgmm[sklearn]"') from error


FLOATS = [np.float64, np.float32]  # kept as they are; other types become the first


class EstimatorError(FitError, ValueError):
    """No start ended in usable parameters: a ``FitError`` that is also a ValueError.

    scikit-learn raises a ValueError in this case.
    """


@contextmanager
def data_precision(dtype: Any) -> Iterator[None]:
    """Compute in the precision of the data, whatever JAX is set to.

    A ``FitError`` within becomes an ``EstimatorError``.

    Args:
      dtype: of the data; float64 switches double precision on, others switch it off.

    >>> import jax.numpy as jnp
    >>> with data_precision(np.float64):
    ...     print(jnp.ones(1).dtype)
    float64
    """
    try:
        with jax.enable_x64(dtype == np.float64):
            yield
    except FitError as error:
        raise EstimatorError(f"{error} (Here n_restarts is called n_init.)") from error


def read_samples(estimator: Any, X: Any, sample_weight: Any = None, **options: Any) -> Any:
    """Check samples with scikit-learn's ``validate_data`` and return them as a NumPy array.

    The estimator remembers the number of columns, and their names in a data frame.

    Args:
      estimator: the estimator that reads the samples.
      X: samples in rows, (N, D); float32 and float64 are kept, other types become float64.
      sample_weight: weights (N,) or None. With weights, values that are not finite are left to
        jgmm's own check, because a row of weight zero may hold any values.
      options: more arguments of ``validate_data``.
    """
    options = {"ensure_all_finite": sample_weight is None, "dtype": FLOATS, **options}
    if not is_table(X):
        # scikit-learn would not see masks, and take durations for numbers.
        return validate_data(estimator, as_plain(X, "X"), **options)
    # scikit-learn reads the names; it cannot read every frame, nor name the columns of text.
    names = {name: options.pop(name) for name in ("reset",) if name in options}
    labels = {"y": options.pop("y")} if "y" in options else {}
    frame = collected(X)
    validate_data(estimator, frame, skip_check_array=True, **names, **labels)
    check = check_X_y if labels else check_array
    return check(as_numbers(frame, "X"), **labels, estimator=estimator, **options)


def make_key(random_state: Any) -> Any:
    """Make a typed key from a seed, a ``RandomState``, or None, as scikit-learn's functions do.

    A ``RandomState`` is advanced, so that the next key differs.
    """
    return jax.random.key(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def warn_unless_converged(estimator: Any, status: Any) -> None:
    """Warn with scikit-learn's ``ConvergenceWarning`` if a fit has not converged."""
    ended = Status(int(status))
    if ended is Status.CONVERGED:
        return
    # The limit is the reason only where the steps ran out: a spike may end a fit after three.
    limit = f" with max_iter={estimator.max_iter}" if ended is Status.STEPS_RAN_OUT else ""
    text = f"{type(estimator).__name__} did not converge{limit}. {describe(ended)}"
    for name, here in (("max_steps", "max_iter"), ("n_restarts", "n_init")):
        text = text.replace(name, here)
    warnings.warn(text, ConvergenceWarning, stacklevel=3)


class FittedMixture(DensityMixin, BaseEstimator):
    """Methods of a fitted mixture: prediction, density, criteria, sampling.

    All results are NumPy arrays or floats.
    """

    random_state: Any
    means_: np.ndarray

    @property
    def mixture_(self) -> Mixture:
        """The parameters as jgmm's own ``Mixture``, in JAX's current precision."""
        check_is_fitted(self)
        return from_sklearn(self)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable component of each sample, (N,)."""
        return self._evaluate(density.predict, X).astype(int)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the posterior probability of each component for each sample, (N, K)."""
        return self._evaluate(density.responsibilities, X)

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log density of each sample, (N,), in nats."""
        return self._evaluate(density.log_prob, X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the mean log density of the samples, in nats."""
        return self._score_and_criteria(X, sample_weight)[0]

    def aic(self, X: Any, sample_weight: Any = None) -> float:
        """Return Akaike's information criterion; lower is better."""
        return float(self._score_and_criteria(X, sample_weight)[1]["aic"])

    def bic(self, X: Any, sample_weight: Any = None) -> float:
        """Return the Bayesian information criterion; lower is better."""
        return float(self._score_and_criteria(X, sample_weight)[1]["bic"])

    def icl(self, X: Any, sample_weight: Any = None) -> float:
        """Return the integrated completed likelihood (ICL); lower is better.

        It is BIC plus a penalty for components that overlap: for samples that cannot be assigned to
        one component with certainty.
        """
        return float(self._score_and_criteria(X, sample_weight)[1]["icl"])

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw samples, (n_samples, D), and return also the component of each, (n_samples,).

        Samples are in the order in which they were drawn, not sorted by component.
        """
        check_is_fitted(self)
        with data_precision(self.means_.dtype):
            drawn = density.sample(make_key(self.random_state), from_sklearn(self), n_samples)
            x, labels = to_host(drawn)
        return x, labels.astype(int)

    def _evaluate(self, function: Callable[[Mixture, Any], Any], X: Any, weight: Any = None) -> Any:
        """Return ``function(mixture, X)`` on the host, in the precision of data and parameters."""
        check_is_fitted(self)
        X = read_samples(self, X, weight, reset=False)
        dtype = np.result_type(X, self.means_)
        with data_precision(dtype):
            mixture = from_sklearn(self, dtype)
            return to_host(function(mixture, X.astype(dtype, copy=False)))

    def _score_and_criteria(self, X: Any, weight: Any) -> tuple[float, dict[str, Any]]:
        """Compute the mean log density, and the criteria by name."""

        def compute(mixture: Mixture, x: Any) -> tuple[Any, dict[str, Any]]:
            samples = make_samples(x, weight)
            (ell, entropy), total = evidence(mixture, samples), samples.total_weight()
            return ell / total, criteria(ell, entropy, total, n_parameters(mixture))

        score, values = self._evaluate(compute, X, weight)
        return float(score), values

    def _n_parameters(self) -> int:
        return n_parameters(self.mixture_)

    def _set_attributes(self, result: FitResult, samples: Samples) -> None:
        """Set the fitted attributes: parameters, and how the fit ended."""
        for name, array in to_attributes(result.mixture).items():
            setattr(self, f"{name}_", array)
        total, table = float(samples.total_weight()), result.restarts
        assert table is not None  # also with one start
        self.status_ = Status(int(result.status)).name
        self.converged_ = self.status_ == Status.CONVERGED.name
        self.n_iter_ = int(result.n_steps)
        self.lower_bound_ = float(result.log_likelihood) / total
        history = np.asarray(result.history, np.float64)
        self.lower_bounds_ = (history[1 : self.n_iter_ + 1] / total).tolist()
        self.restarts_ = {
            "log_likelihood": np.array(table.log_likelihood),
            "status": np.asarray([Status(code).name for code in table.status.tolist()]),
            "n_iter": np.array(table.n_steps),
        }
