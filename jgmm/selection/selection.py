"""Model selection: fit a table of numbers of components and covariance models, and choose.

The criteria of the choice are in ``jgmm.selection.criteria``, the held-out log-likelihood in
``jgmm.selection.cross_validation``, the fits in ``jgmm.selection.grid``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import jax
import numpy as np
from jaxtyping import Array, Key

from jgmm._core.arguments import key_first
from jgmm._core.compilation import JitByWork, without_debug_nans
from jgmm._core.errors import DataError, FitError, shown
from jgmm._core.pytree import to_host
from jgmm._core.status import VALID, Status, describe
from jgmm._data.samples import Samples, make_samples, padded_rows
from jgmm.covariance.models import MODELS, model
from jgmm.covariance.nesting import UNIVARIATE, reduced_code
from jgmm.em import exponential_family
from jgmm.em.options import AcceptedOptions, Control, Options, OtherKeywords, make_control
from jgmm.fitting.restarts import ProgressCallback
from jgmm.fitting.results import FitResult
from jgmm.initialization.problem import check_problem
from jgmm.mixture.mixture import Mixture
from jgmm.selection.criteria import CRITERIA, Criterion, criteria, evidence
from jgmm.selection.cross_validation import check_training, held_out_unchecked
from jgmm.selection.grid import ROUNDINGS, fit_grid

# Restarts agree if their log-likelihoods differ by at most this many times the gain at which EM
# stops. EM whose gains shrink by the factor ρ stops ρ / (1 - ρ) times its last gain below the
# optimum; so slow runs to one optimum end some gains apart.
AGREEING_STEPS = 100


@dataclass(frozen=True)
class Row:
    """A row of the table: the fit of one number of components under one covariance model.

    Attributes:
      n_components: K.
      covariance: name of the covariance model.
      n_parameters: p, the number of free parameters.
      log_likelihood: ℓ of the best restart, nats; NaN where no restart ended valid.
      criteria: value of each criterion by its name, NaN where no restart ended valid; a criterion
        can also be read as an attribute, such as ``row.bic``. Lower is better for AIC, AICc
        (infinite where N ≤ p + 1), BIC and ICL. Higher is better for "held_out", the mean held-out
        log-likelihood per sample in nats, which is present only if it was asked for.
      status: name of the ``Status`` of the fit.
      n_valid: number of the fit's own starts that ended valid.
      n_agree: number of these that ended at the log-likelihood of the best fit. One alone is no
        confirmation. Zero: the best was reached only from a special case, fewer components or a
        simpler model.
    """

    n_components: int
    covariance: str
    n_parameters: int
    log_likelihood: float
    criteria: dict[str, float]
    status: str
    n_valid: int
    n_agree: int

    def __getattr__(self, name: str) -> float:
        """Return a criterion by its name."""
        # Not self.criteria: while a row is being copied it has no fields yet.
        criteria = self.__dict__.get("criteria", {})
        if name in criteria:
            return float(criteria[name])
        raise AttributeError(f"this row has no {name!r}; its criteria: {', '.join(criteria)}")


@dataclass(frozen=True)
class Selection:
    """The outcome of ``select``: the table of all fits, and the fit chosen.

    Attributes:
      table: a ``Row`` for each fit, all numbers of components of one model after another.
      criterion: name of the criterion of the choice.
      best: the row chosen.
      result: the ``FitResult`` chosen.
      results: every ``FitResult``, by number of components and name of the covariance model.
      agreement: nats by which log-likelihoods of one fit may differ, as EM stops before the
        maximum and rounds.
    """

    table: list[Row]
    criterion: str
    best: Row
    result: FitResult
    results: dict[tuple[int, str], FitResult]
    agreement: float

    @property
    def mixture(self) -> Mixture:
        """The mixture chosen, ``result.mixture``."""
        return self.result.mixture

    def best_of(self, rows: Iterable[Row]) -> Row | None:
        """Return the row to choose among some rows of the table; None where none has a value."""
        d = self.result.mixture.n_features
        return _best_of(list(rows), self.criterion, d, self.agreement)

    def __str__(self) -> str:
        """Return the table as text, with a star at the row chosen."""
        shown = [CRITERIA[name] for name in self.best.criteria]
        labels = [each.label for each in shown]
        lines = [["", "K", "covariance", "p", "log-lik.", *labels, "valid", "agree", "status"]]
        for row in self.table:
            entries = [str(row.n_components), row.covariance, str(row.n_parameters)]
            entries += [f"{row.log_likelihood:.2f}"]
            entries += [f"{row.criteria[each.name]:.{each.decimals}f}" for each in shown]
            star = "*" if row is self.best else ""
            lines.append([star, *entries, str(row.n_valid), str(row.n_agree), row.status.lower()])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        names = {"covariance", "status"}
        left = [head in names for head in lines[0]]
        return "\n".join(
            "  ".join(
                entry.ljust(width) if flush else entry.rjust(width)
                for entry, width, flush in zip(line, widths, left, strict=True)
            ).rstrip()
            for line in lines
        )

    __repr__ = __str__


ACCEPTED = AcceptedOptions(
    defaults=Options(accelerate="anderson"),
    decided={"covariance": "the models to try are an argument of their own."},
)


@key_first
@without_debug_nans
@ACCEPTED.signature
def select(
    key: Key[Array, ""],
    x: Any,
    n_components: int | Iterable[Any] = range(1, 10),
    covariance: str | Iterable[str] = ("full",),
    criterion: str = "bic",
    *,
    n_folds: int = 5,
    sample_weight: Any = None,
    labels: Any = None,
    progress: ProgressCallback | None = None,
    options: Options | None = None,
    **keywords: Unpack[OtherKeywords],
) -> Selection:
    """Choose the number of components and the covariance model by a criterion, such as BIC.

    Every number of components is fitted under every covariance model.

    Args:
      key: typed key. Every fit has the same starts as ``jgmm.fit`` with this key. In addition it
        starts from the fits of its special cases in the table, fewer components and simpler models,
        and never ends below them (``jgmm.selection.grid``).
      x: samples in rows, (N, D).
      n_components: the numbers of components K to try, or one number.
      covariance: the covariance models to try, or one, or "all". In one column these are two, which
        the table calls E and V: variances that are equal, or not.
      criterion: a name in ``jgmm.selection.CRITERIA``. The fit with the lowest value of "bic",
        "aic", "aicc" or "icl" is chosen, or the one with the highest value of "held_out", which
        takes one more fit for each fold.
      n_folds: folds for "held_out".
      sample_weight, labels: as for ``jgmm.fit``. A labelled sample counts ``log p(x, z)`` in every
        criterion, also where it is held out, and it has no entropy.
      progress: as for ``jgmm.fit``, with steps counted through the whole table: a fit that
        converges early skips the steps that it did not use.
      options, **keywords: see ``jgmm.Options``. ``accelerate`` is on by default, because a table
        has many fits for which plain EM takes a thousand steps. With a prior, the criteria are
        computed from the log-likelihood alone, at the parameters that the prior has led to.

    Returns:
      A ``Selection``; ``print`` shows its table. A fit in which every restart failed stays in the
      table with its status and NaN for its criteria, and is never chosen. Of fits with equal values
      the first is chosen; also of fits of one model under several names (in one column, V, VEI and
      VEE are one model), whose values differ by rounding and by the step at which EM stops.

    Raises:
      DataError: bad samples, weights or arguments, before any work starts.
      FitError: no fit of the table can be chosen.

    It reads values, so it does not work inside ``jit``; the criteria and ``held_out`` do.

    >>> import jax, jgmm
    >>> x = [[0.0], [0.1], [0.2], [0.3], [5.0], [5.1], [5.3], [5.4]]
    >>> kept = {"init": "points", "n_restarts": 4}
    >>> found = jgmm.select(jax.random.key(0), x, [1, 2], "spherical", **kept)
    >>> found.best.n_components, found.best.n_parameters, found.best.status
    (2, 5, 'CONVERGED')
    """
    samples = make_samples(x, sample_weight, labels)
    counts = _listed(n_components)
    named = models_to_try(covariance, samples.n_features)
    models = list(named)
    options = ACCEPTED.read(options, keywords)
    _check_selection(samples, counts, models, criterion, n_folds, options)
    control = make_control(samples.x.dtype, options.tol, options.rtol, options.ridge)
    whole, total = padded_rows(samples), float(samples.total_weight())
    fits = fit_grid(key, whole, counts, models, options, progress)
    table, results = [], {}
    for k, name in ((k, name) for name in models for k in counts):
        result, extra = fits[k, name], {}
        if criterion == "held_out":
            padded = result.mixture.n_components
            own = replace(options, covariance=name)
            held_out = held_out_unchecked(key, samples, k, n_folds, own, padded)
            extra = {criterion: float(held_out.log_likelihood)}
        p = result.mixture.model.n_parameters(k, samples.n_features, options.equal_weights)
        row = _row(result, k, p, options.n_starts, whole, total, control, extra)
        table.append(replace(row, covariance=named[name]))
        results[k, named[name]] = replace(result, mixture=_leading(result.mixture, k))
    agreement = _agreement(table, samples, total, control)
    best = _best(table, criterion, samples.n_features, agreement)
    chosen = results[best.n_components, best.covariance]
    return Selection(table, criterion, best, chosen, results, agreement)


def models_to_try(covariance: Any, n_features: int) -> dict[str, str]:
    """Return the covariance models to try, by name, with the name that the table shows.

    In one column a covariance is a variance: the models of the family are two, E and V, which is
    what they are called there. A model that is named in another way keeps its name.

    Args:
      covariance: one name, several, or "all".
      n_features: D.

    Raises:
      ValueError: there is no model of such a name.

    >>> list(models_to_try("all", 1).values()), len(models_to_try("all", 2))
    (['E', 'V'], 14)
    """
    everything = isinstance(covariance, str) and covariance == "all"
    names = list(MODELS) if everything else _listed(covariance)
    if n_features > 1:
        return {model(name).name: model(name).name for name in names}
    if everything:
        others = (each.name for each in MODELS.values() if not each.in_family)
        names = [*UNIVARIATE, *others]
    return {model(name).name: name if name in UNIVARIATE else model(name).name for name in names}


def _listed(values: Any) -> list[Any]:
    """Return one value or several as a list without repetitions, NumPy's integers as Python's."""
    several = values if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    plain = (int(value) if isinstance(value, np.integer) else value for value in several)
    return list(dict.fromkeys(plain))


def _check_selection(
    samples: Samples,
    counts: Sequence[int],
    models: Sequence[str],
    criterion: str,
    n_folds: int,
    options: Options,
) -> None:
    if criterion not in CRITERIA:
        known = ", ".join(CRITERIA)
        raise DataError(f"unknown criterion {shown(criterion)}. Known: {known}.")
    if not counts or not models:
        raise DataError("n_components and covariance must each name at least one to try.")
    for k in counts:
        check_problem(samples, k, options)
        if criterion == "held_out":
            check_training(samples, k, n_folds)


def _leading(mixture: Mixture, n_components: int) -> Mixture:
    """Return the first components; the others have weight zero.

    The arrays are cut on the host, so that nothing is compiled.
    """
    # A shared scale has one entry, which is kept.
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)[:n_components]), mixture)


def agreeing(result: FitResult, n_restarts: int, total: float, control: Control) -> np.ndarray:
    """Return which of the fit's own starts ended valid, and agree with the best, (2, R).

    A restart agrees if it ended at the log-likelihood of the best, within the tolerances.
    """
    assert result.restarts is not None  # fit_unchecked always has the outcomes of its restarts
    # The fit's own starts come first, then those from special cases.
    outcomes, best = to_host(result.restarts, float), float(result.objective)
    valid = np.isin(outcomes.status[:n_restarts], [int(code) for code in VALID])
    apart = np.abs(outcomes.log_likelihood[:n_restarts] - best)
    return np.stack([valid, valid & (apart <= _slack(best, total, control))])


def _slack(log_likelihood: float, total: float, control: Control) -> float:
    """Return the nats by which log-likelihoods of one optimum may differ where EM has stopped."""
    tol, rtol = float(control.tol), float(control.rtol)
    return AGREEING_STEPS * (tol * total + rtol * abs(log_likelihood))


@partial(JitByWork, static_argnums=4)
def _values(
    mixture: Mixture,
    log_likelihood: Array,
    samples: Samples,
    n_parameters: Array,
    table: tuple[Criterion, ...],
) -> dict[str, Array]:
    """Compute the criteria; ``table`` is static, so that criteria added later are computed."""
    total = samples.total_weight()
    _, entropy = evidence(mixture, samples)
    return criteria(log_likelihood, entropy, total, n_parameters.astype(total.dtype), table)


def _row(
    result: FitResult,
    n_components: int,
    n_parameters: int,
    n_restarts: int,
    samples: Samples,
    total: float,
    control: Control,
    extra: dict[str, float],
) -> Row:
    mixture, status = result.mixture, Status(int(result.status))
    n_padded, d = mixture.means.shape
    work = exponential_family.cost_per_step(mixture.model, d, n_padded, samples.n_samples)
    entries, p = tuple(CRITERIA.values()), np.asarray(n_parameters)
    ell = result.log_likelihood
    computed = jax.device_get(_values(work, mixture, ell, samples, p, entries))
    valid = status.is_valid
    values = {name: float(value) for name, value in computed.items()} | extra
    n_valid, n_agree = agreeing(result, n_restarts, total, control).sum(axis=1)
    return Row(
        n_components=n_components,
        covariance=mixture.covariance,
        n_parameters=n_parameters,
        log_likelihood=float(ell) if valid else math.nan,
        criteria={name: values[name] if valid else math.nan for name in CRITERIA if name in values},
        status=status.name,
        n_valid=int(n_valid),
        n_agree=int(n_agree),
    )


def _agreement(table: Sequence[Row], samples: Samples, total: float, control: Control) -> float:
    """Return the nats by which log-likelihoods of one fit may differ anywhere in the table."""
    reached = [abs(row.log_likelihood) for row in table if math.isfinite(row.log_likelihood)]
    largest = max(reached, default=0.0)
    rounding = ROUNDINGS * float(np.finfo(samples.x.dtype).eps) * largest
    return max(rounding, _slack(largest, total, control))


def _best_of(rows: Sequence[Row], criterion: str, n_features: int, agreement: float) -> Row | None:
    """Return the first row of the fit with the best criterion; None where none has a value."""

    def loss(row: Row) -> float:
        return CRITERIA[criterion].loss(row.criteria[criterion])

    def fitted_model(row: Row) -> tuple[int, str]:
        k = row.n_components
        return k, reduced_code(model(row.covariance), k, n_features)

    eligible = [row for row in rows if math.isfinite(loss(row))]
    if not eligible:
        return None
    best = min(eligible, key=loss)
    return next(
        row
        for row in eligible
        if fitted_model(row) == fitted_model(best)
        and abs(row.log_likelihood - best.log_likelihood) <= agreement
    )


def _best(table: Sequence[Row], criterion: str, n_features: int, agreement: float) -> Row:
    best = _best_of(table, criterion, n_features, agreement)
    if best is not None:
        return best
    if any(Status[row.status].is_valid for row in table):
        raise FitError(
            f"No entry of the table has a finite {criterion}. {CRITERIA[criterion].not_finite}"
        )
    first = table[0]
    raise FitError(
        f"No entry of the table ended valid. The first, {first.n_components} component(s) under "
        f"{first.covariance!r}: {describe(Status[first.status])}"
    )
