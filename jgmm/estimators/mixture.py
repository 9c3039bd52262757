"""Gaussian mixtures as scikit-learn estimators, with a given or a selected number of components.

The estimators hold NumPy arrays and no state of JAX: they can be pickled and cloned, and they work
in pipelines and grid searches. Data frames keep their column names. Data in float64 are processed
in float64, and data in float32 in float32, whatever JAX is set to; that setting is not changed.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgmm._core.errors import DataError
from jgmm._core.pytree import to_host
from jgmm._data.samples import Samples, make_samples
from jgmm._data.validation import as_numbers
from jgmm.covariance.models import model
from jgmm.covariance.storage import Full
from jgmm.em.options import Options
from jgmm.estimators.base import (
    FittedMixture,
    data_precision,
    make_key,
    read_samples,
    warn_unless_converged,
)
from jgmm.fitting.in_memory import fit_unchecked
from jgmm.fitting.restarts import Progress, ProgressCallback
from jgmm.fitting.results import raise_if_failed
from jgmm.initialization.draw import compiled_center_and_scale, draw
from jgmm.initialization.problem import check_problem
from jgmm.mixture.conversion import from_sklearn
from jgmm.mixture.mixture import Mixture, make_mixture
from jgmm.selection.selection import select

# Starts with another name in scikit-learn than in ``jgmm.initialization.STARTS``.
START_NAMES = {"k-means++": "kmeans++", "random_from_data": "points"}
# Starts that compute distances in the units of the data, as scikit-learn does.
UNSCALED = ("kmeans", "k-means++")
UP_TO_NINE = tuple(range(1, 10))


class GaussianMixture(FittedMixture):
    """Gaussian mixture with the interface of scikit-learn's ``GaussianMixture``, fitted by jgmm.

    Args:
      n_components: K.
      covariance_type: name or code of a covariance model: "full", "tied", "diag" and "spherical"
        as in scikit-learn, or any other of ``jgmm.covariance.MODELS``.
      tol: a fit has converged when the mean log-likelihood per sample changes by less in a step.
      reg_covar: added to every variance, in squared units of the data. Internally, column d is
        divided by its standard deviation s_d (all columns by one s where the model needs that), and
        a ridge of reg_covar / s_d² is added to the standardized variances, which is the same.
      max_iter: largest number of steps; zero keeps the start.
      n_init: number of starts, run side by side in one program, of which the best is kept. One
        start of k-means is the default, as in scikit-learn; ``jgmm.fit`` takes 16 of a portfolio,
        which find better optima.
      init_params: "portfolio", all methods in turn; or "kmeans", "k-means++", "random",
        "random_from_data", or any other name in ``jgmm.initialization.STARTS``. Those of k-means by
        name compute distances in the units of the data, as in scikit-learn; the portfolio and
        ``jgmm.fit`` first divide columns by their standard deviations.
      weights_init, means_init, precisions_init: part of the start, or all of it. Parts that are
        None come from ``init_params``.
      random_state: seed, ``RandomState``, or None; for the starts and for ``sample``.
      warm_start: a second ``fit`` continues where the first ended.
      verbose, verbose_interval: print the progress, at most once in ``verbose_interval`` steps; the
        fit reports it every 25 steps. With ``verbose`` from 2 on, also the elapsed time.
      ridge: added to every variance, as a fraction of the data's variance in any units.
      race: number of steps after which the least promising starts are dropped, see ``jgmm.fit``.
      accelerate: "anderson" or "squarem" save most of the steps where components overlap, see
        ``jgmm.fit``. None is plain EM, as in scikit-learn. With acceleration, steps are counted as
        passes over the samples.

    Attributes:
      weights_: (K,).
      means_: (K, D).
      covariances_, precisions_, precisions_cholesky_: in the form of the model: (K, D, D), (K, D)
        or (K,), without K where all components share one.
      converged_, n_iter_: whether the tolerance was met, and the number of steps taken.
      lower_bound_: mean log-likelihood per sample.
      lower_bounds_: the same after each step.
      status_: name of the ``jgmm.Status``.
      restarts_: outcome of every start: log_likelihood, status, n_iter.
      n_features_in_, feature_names_in_: number and names of the columns in ``fit``.

    Intended differences from scikit-learn:

    - ``lower_bound_`` and ``lower_bounds_`` belong to the parameters after a step, in scikit-learn
      to those before it. So convergence is detected one step earlier, and ``n_iter_`` is one less.
    - A component that collapses in spite of the ridge ends its start, not the whole fit. If all
      starts end in this way, an ``EstimatorError`` gives the reason. It is a ValueError, as in
      scikit-learn.
    - Starts and random numbers are jgmm's own: a seed gives other starts than in scikit-learn.
    - ``sample`` does not sort by component.
    - A change of at most four rounding errors also meets ``tol``: a fit with ``tol=0`` ends, too.

    >>> x = [[1.0, 2.0], [1.9, 4.0], [1.0, 0.0], [10.0, 2.0], [10.9, 4.0], [10.0, 0.0]]
    >>> fitted = GaussianMixture(n_components=2, random_state=0).fit(x)
    >>> np.sort(fitted.means_[:, 0]).round(6).tolist(), fitted.converged_
    ([1.3, 10.3], True)
    """

    def __init__(
        self,
        n_components: Any = 1,
        *,
        covariance_type: Any = "full",
        tol: Any = 1e-3,
        reg_covar: Any = 1e-6,
        max_iter: Any = 100,
        n_init: Any = 1,
        init_params: Any = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: Any = False,
        verbose: Any = 0,
        verbose_interval: Any = 10,
        ridge: Any = 0.0,
        race: Any = 0,
        accelerate: Any = None,
    ):
        """Store the arguments unchanged; ``fit`` checks them."""
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.ridge = ridge
        self.race = race
        self.accelerate = accelerate

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GaussianMixture:
        """Fit by EM from ``n_init`` starts and keep the best.

        Args:
          X: samples in rows, (N, D).
          y: ignored.
          sample_weight: how many times each sample counts, (N,); zero is the same as
            leaving the row out.

        Raises:
          DataError: a ValueError; data or arguments that cannot be used.
          EstimatorError: a ValueError; no start ended in usable parameters.
        """
        X = read_samples(self, X, sample_weight, ensure_min_samples=2)
        with data_precision(X.dtype):
            samples, key = make_samples(X, sample_weight), make_key(self.random_state)
            counts = Options(n_restarts=self.n_init, max_steps=self.max_iter)
            check_problem(samples, self.n_components, counts)
            init = self._start(key, samples)
            options = Options(
                covariance=self.covariance_type,
                n_restarts=len(init.means),
                init=init,
                race=self.race,
                tol=float(self.tol),
                max_steps=self.max_iter,
                ridge=self._ridge(samples),
                accelerate=self.accelerate,
            )
            printer = _printer(self.verbose, self.verbose_interval)
            result = fit_unchecked(key, samples, self.n_components, options, progress=printer)
            self._set_attributes(raise_if_failed(result), samples)
        if self.max_iter:
            warn_unless_converged(self, result.status)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit, and return the most probable component of each sample, (N,)."""
        return self.fit(X, y, sample_weight).predict(X)

    def _ridge(self, samples: Samples) -> np.ndarray:
        """Return ``reg_covar`` and ``ridge`` together, as a ridge of standardized columns, (D,)."""
        for name in ("reg_covar", "ridge"):
            if not getattr(self, name) >= 0:
                raise DataError(f"{name} must be at least zero; it is {getattr(self, name)}.")
        frame = compiled_center_and_scale(samples, model(self.covariance_type).per_column).frame
        ridge = self.reg_covar / np.asarray(frame.scale, np.float64) ** 2 + self.ridge
        if not (ridge < np.sqrt(np.finfo(frame.scale.dtype).max)).all():
            raise DataError(
                f"reg_covar={self.reg_covar} is {ridge.max():.3g} times the variance of a column, "
                f"too much for {frame.scale.dtype}. Give reg_covar in the squared units of the "
                "columns, or reg_covar=0 and a ridge, which is a fraction of the variance."
            )
        return ridge

    def _start(self, key: Any, samples: Samples) -> Mixture:
        """Return the mixtures to start from, with the starts as leading axis."""
        dtype = samples.x.dtype
        if self.warm_start and hasattr(self, "weights_"):
            return jax.tree.map(lambda leaf: leaf[None], from_sklearn(self, dtype))
        inits = (self.weights_init, self.means_init, self.precisions_init)
        leaves = ("log_weights", "means", "scale")
        given = [leaf for leaf, init in zip(leaves, inits, strict=True) if init is not None]
        fixed = jax.tree.map(lambda leaf: leaf[None], self._given_start(samples.n_features, dtype))
        if len(given) == len(leaves):
            return fixed
        drawn = draw(
            key,
            samples,
            self.n_components,
            covariance=self.covariance_type,
            init=START_NAMES.get(self.init_params, self.init_params),
            n_restarts=self.n_init,
            scaled=self.init_params not in UNSCALED,
        )
        parts: dict[str, Any] = {
            leaf: jnp.broadcast_to(getattr(fixed, leaf), getattr(drawn, leaf).shape)
            for leaf in given
        }
        return replace(drawn, **parts)

    def _given_start(self, n_features: int, dtype: Any) -> Mixture:
        """Return the start given by ``…_init`` arguments, with placeholders for missing parts."""
        k, d, entry = self.n_components, n_features, model(self.covariance_type)
        own = entry.storage.identity(d, dtype)[0]
        unit = np.asarray(own if entry.shared else jnp.broadcast_to(own, (k, *own.shape)))
        parts = {
            "weights_init": np.full(k, 1 / k),
            "means_init": np.zeros((k, d)),
            "precisions_init": unit,
        }
        for name, placeholder in parts.items():
            given = getattr(self, name)
            if given is not None:
                parts[name] = np.asarray(as_numbers(given, name), np.float64)
            if parts[name].shape != placeholder.shape:
                raise DataError(
                    f"{name} must have shape {placeholder.shape}; it has {parts[name].shape}."
                )
        weights, means, precisions = parts.values()
        try:
            inverse = np.linalg.inv(precisions) if entry.storage is Full else 1 / precisions
            return make_mixture(weights, means.astype(dtype), inverse, entry.name)
        except ValueError as error:
            raise DataError(
                f"weights_init, means_init and precisions_init are no mixture: {error}"
            ) from error


def _printer(verbose: int, interval: int) -> ProgressCallback | None:
    """Return a callback that prints the progress, at most once in ``interval`` steps."""
    if not verbose:
        return None
    begun, last = time.perf_counter(), -interval

    def report(progress: Progress) -> None:
        nonlocal last
        if progress.n_running and progress.step < last + interval:
            return
        last = progress.step
        seconds = f", {time.perf_counter() - begun:.2f} s" if verbose > 1 else ""
        print(
            f"step {progress.step}: log-likelihood {progress.log_likelihood:.6g}, "
            f"{progress.n_running} of {progress.n_restarts} starts running{seconds}"
        )

    return report


class MixtureSelector(FittedMixture):
    """Gaussian mixture whose number of components and covariance model are selected by a criterion.

    Args:
      n_components: the numbers of components K to try, or one number.
      covariance_type: the covariance models to try, or one, or "all".
      criterion: a name in ``jgmm.selection.CRITERIA``, such as "bic" or "icl", see ``jgmm.select``.
      n_init, init_params, race, tol, max_iter, random_state: as for ``GaussianMixture``; tol is
        jgmm's own by default.
      n_folds: number of folds for "held_out".
      ridge: added to every variance, as a fraction of the data's variance.
      accelerate: as for ``GaussianMixture``, but "anderson" by default, as in ``jgmm.select``.

    Attributes:
      n_components_, covariance_type_: the selected number of components and covariance model.
      selection_: the ``jgmm.selection.Selection``, with NumPy arrays. Printed, it shows the table
        of all fits.

    The other attributes are those of ``GaussianMixture``, for the selected mixture.

    >>> x = [[0.0], [0.1], [0.2], [0.3], [5.0], [5.1], [5.3], [5.4]]
    >>> options = {"covariance_type": "spherical", "init_params": "random_from_data"}
    >>> MixtureSelector((1, 2), **options, random_state=0).fit(x).n_components_
    2
    """

    def __init__(
        self,
        n_components: Any = UP_TO_NINE,
        *,
        covariance_type: Any = "full",
        criterion: Any = "bic",
        n_init: Any = 16,
        init_params: Any = "portfolio",
        race: Any = 0,
        n_folds: Any = 5,
        tol: Any = None,
        max_iter: Any = 1000,
        ridge: Any = 1e-6,
        random_state: Any = None,
        accelerate: Any = "anderson",
    ):
        """Store the arguments unchanged; ``fit`` checks them."""
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.criterion = criterion
        self.n_init = n_init
        self.init_params = init_params
        self.race = race
        self.n_folds = n_folds
        self.tol = tol
        self.max_iter = max_iter
        self.ridge = ridge
        self.random_state = random_state
        self.accelerate = accelerate

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> MixtureSelector:
        """Fit every number of components with every covariance model, and select one fit.

        Arguments and errors are those of ``GaussianMixture.fit``.
        """
        X = read_samples(self, X, sample_weight, ensure_min_samples=2)
        with data_precision(X.dtype):
            selection = select(
                make_key(self.random_state),
                X,
                self.n_components,
                self.covariance_type,
                self.criterion,
                n_restarts=self.n_init,
                init=START_NAMES.get(self.init_params, self.init_params),
                race=self.race,
                n_folds=self.n_folds,
                sample_weight=sample_weight,
                tol=None if self.tol is None else float(self.tol),
                max_steps=self.max_iter,
                ridge=float(self.ridge),
                accelerate=self.accelerate,
            )
            self._set_attributes(selection.result, make_samples(X, sample_weight))
        self.n_components_ = selection.best.n_components
        self.covariance_type_ = selection.best.covariance
        results = {key: to_host(result) for key, result in selection.results.items()}
        self.selection_ = replace(selection, result=to_host(selection.result), results=results)
        warn_unless_converged(self, selection.result.status)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit, and return the most probable component of each sample, (N,)."""
        return self.fit(X, y, sample_weight).predict(X)
