"""What all estimators share: how they read data, compute and warn; and what a mixture can be asked.

The one place where jgmm needs scikit-learn, which is an extra.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from jgmm._core.errors import DataError, FitError
from jgmm._core.pytree import to_host
from jgmm._core.status import Status, describe
from jgmm._data.dataframes import as_array, is_table
from jgmm._data.samples import Samples, make_samples
from jgmm.fitting.results import FitResult
from jgmm.mixture import density
from jgmm.mixture.conversion import from_sklearn, to_attributes
from jgmm.mixture.mixture import Mixture, n_parameters
from jgmm.selection.criteria import criteria, evidence

try:
    from sklearn.base import BaseEstimator, DensityMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError('estimators need scikit-learn: pip install "jgmm[sklearn]"') from error


class EstimatorError(FitError, ValueError):
    """No start ended in usable parameters: a ``FitError`` that is a ValueError, as theirs is."""


@contextmanager
def computing(dtype: Any) -> Iterator[None]:
    """In the precision of the data, whatever JAX is set to; a failed fit is a ValueError."""
    try:
        with jax.enable_x64(dtype == np.float64):
            yield
    except FitError as error:
        raise EstimatorError(f"{error} (Here n_restarts is called n_init.)") from error


def read_samples(estimator: Any, X: Any, sample_weight: Any = None, **options: Any) -> Any:
    """Samples as a NumPy array that scikit-learn has checked, with the names of a data frame."""
    if is_table(X):
        as_array(X, "X")  # scikit-learn would not name the columns that do not hold numbers
    # A row of weight zero may hold anything, so with weights the check is left to jgmm.
    options = {"ensure_all_finite": sample_weight is None, **options}
    return validate_data(estimator, X, dtype=[np.float64, np.float32], **options)


def make_key(random_state: Any) -> Any:
    """A typed key from a seed, a ``RandomState``, which moves on, or None."""
    return jax.random.key(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def warn_unless_converged(estimator: Any, status: Any) -> None:
    """Say so if the steps ran out, as scikit-learn does."""
    if Status(int(status)) is not Status.CONVERGED:
        name = type(estimator).__name__
        text = f"{name} did not converge with max_iter={estimator.max_iter}. {describe(status)}"
        warnings.warn(text.replace("max_steps", "max_iter"), ConvergenceWarning, stacklevel=3)


class FittedMixture(DensityMixin, BaseEstimator):
    """What can be asked of a mixture once it is fitted; all answers are NumPy arrays or floats."""

    random_state: Any
    means_: np.ndarray

    @property
    def mixture_(self) -> Mixture:
        """The parameters as jgmm's own ``Mixture``, in JAX's present precision."""
        check_is_fitted(self)
        return from_sklearn(self)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable component of each sample, (N,)."""
        return self._ask(density.predict, X).astype(int)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Posterior probability of each component for each sample, (N, K)."""
        return self._ask(density.responsibilities, X)

    def score_samples(self, X: Any) -> np.ndarray:
        """Log density of each sample, (N,), in nats."""
        return self._ask(density.log_prob, X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log density of the samples, in nats."""
        return self._judge(X, sample_weight)[0]

    def aic(self, X: Any, sample_weight: Any = None) -> float:
        """Akaike's information criterion, the lower the better."""
        return float(self._judge(X, sample_weight)[1]["aic"])

    def bic(self, X: Any, sample_weight: Any = None) -> float:
        """Bayesian information criterion, the lower the better."""
        return float(self._judge(X, sample_weight)[1]["bic"])

    def icl(self, X: Any, sample_weight: Any = None) -> float:
        """Integrated completed likelihood: BIC that charges for components that overlap."""
        return float(self._judge(X, sample_weight)[1]["icl"])

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw samples, (n_samples, D), and say which component produced each, (n_samples,).

        They come in the order drawn, not sorted by component.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, int | np.integer) or n_samples < 1:
            raise DataError(f"n_samples must be a whole number of at least 1; it is {n_samples!r}.")
        with computing(self.means_.dtype):
            drawn = density.sample(make_key(self.random_state), from_sklearn(self), int(n_samples))
            x, labels = to_host(drawn)
        return x, labels.astype(int)

    def _ask(self, question: Callable[[Mixture, Any], Any], X: Any, weight: Any = None) -> Any:
        check_is_fitted(self)
        X = read_samples(self, X, weight, reset=False)
        dtype = np.result_type(X, self.means_)
        with computing(dtype):
            mixture = from_sklearn(self, dtype)
            return to_host(question(mixture, X.astype(dtype, copy=False)))

    def _judge(self, X: Any, weight: Any) -> tuple[float, dict[str, Any]]:
        """Mean log density and criteria."""

        def judge(mixture: Mixture, x: Any) -> tuple[Any, dict[str, Any]]:
            samples = make_samples(x, weight)
            (ell, entropy), total = evidence(mixture, samples), samples.total_weight()
            return ell / total, criteria(ell, entropy, total, n_parameters(mixture))

        score, found = self._ask(judge, X, weight)
        return float(score), found

    def _n_parameters(self) -> int:
        return n_parameters(self.mixture_)

    def _keep(self, result: FitResult, samples: Samples) -> None:
        """Set the attributes that say what was found and how."""
        for name, array in to_attributes(result.mixture).items():
            setattr(self, f"{name}_", array)
        total, table = float(samples.total_weight()), result.restarts
        assert table is not None  # many starts or one, they are always told
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
