"""All covariance models and numbers of components: a complete table that respects nesting.

    ./dev jgmm run configs/model_table.toml

Computes the table of `jgmm.select` and checks it: every fit must have ended valid, and no fit may
have a lower log-likelihood than a special case of it, which is a model that it contains or one
component less. The table is computed twice, to measure the time with and without compiling.

Takes a minute and a quarter on two cores. Old Faithful, K = 1 to 9, fourteen models, 64 starts per
table entry, in float64: no missing entry, no violation; BIC chooses EEE with three components
(log-likelihood -1126.316, BIC 2314.30). In about half of the entries with six components or more,
the best fit was reached from a special case alone.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

from jgmm import plot
from jgmm._core.errors import UserError
from jgmm._core.status import Status
from jgmm.covariance import nesting
from jgmm.covariance.models import model
from jgmm.selection.selection import Row, Selection, select
from jgmm.workbench.config.models import Amount, Strict
from jgmm.workbench.config.names import covariances_for
from jgmm.workbench.studies.context import StudyContext


class Settings(Strict):
    """When a log-likelihood counts as lower; [data] and [fit] say what is fitted."""

    rounding: Amount = 1e-9
    """A log-likelihood counts as lower than another if it is by more than this fraction."""


def run(study: StudyContext) -> None:
    """Compute the table twice, check it, and show it by log-likelihood and by BIC."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        found = _fill(study)
        seconds.append(time.perf_counter() - start)
    study.metric("seconds, compiling included", round(seconds[0], 2))
    study.metric("seconds", round(seconds[1], 2))
    broken = violations(found.table, study.settings.rounding)
    study.metric("table entries", len(found.table))
    study.metric("missing entries", sum(not Status[row.status].is_valid for row in found.table))
    study.metric("violations of nesting", sum(each["by"] == "model" for each in broken))
    study.metric("violations of growth", sum(each["by"] == "components" for each in broken))
    study.metric("reached from a special case alone", sum(row.n_agree == 0 for row in found.table))
    study.metric("inherited", sum(row.status == "INHERITED" for row in found.table))
    study.metric("chosen by BIC", f"{model(found.best.covariance).code}, {found.best.n_components}")
    study.metric("log-likelihood of the chosen", found.best.log_likelihood)
    study.metric("BIC of the chosen", found.best.bic)
    study.table("log_likelihood", _by_model(found.table, "log_likelihood"), "Log-likelihood, nats.")
    study.table("bic", _by_model(found.table, "bic"), "BIC, the lower the better.")
    study.table(
        "agree", _by_model(found.table, "n_agree"), "Starts drawn that found the same again."
    )
    study.table("status", _by_model(found.table, "status"), "How each fit ended.", show=False)
    study.table("violations", broken, "Fits below one of their special cases.", show=bool(broken))
    figure, (ax,) = plot.new_figure(size=(7, 4.5))
    plot.criterion_curves(found.table, "bic", ax)
    study.figure("bic", figure, "BIC against the number of components, by covariance model.")


def _fill(study: StudyContext) -> Selection:
    fit = study.config.fit
    if study.data is None:
        raise UserError('this study fits data: add a table [data] with source = "faithful"')
    x, weights = study.data.x, study.data.weights
    models = covariances_for(fit.covariance, x.shape[1])
    return select(study.key, x, fit.n_components, models, sample_weight=weights, **fit.options())


def violations(table: list[Row], rounding: float) -> list[dict[str, Any]]:
    """Pairs of fits of which the special case has the higher log-likelihood."""
    rows = {(row.n_components, row.covariance): row for row in table}
    counts = sorted({k for k, _ in rows})
    names = list(dict.fromkeys(name for _, name in rows))
    pairs = [
        (rows[k, outer], rows[k, inner], "model")
        for outer, inner in itertools.permutations(names, 2)
        if nesting.contains(model(outer), model(inner))
        for k in counts
    ]
    pairs += [
        (rows[more, name], rows[fewer, name], "components")
        for fewer, more in itertools.pairwise(counts)
        for name in names
    ]
    return [
        {
            "n_components": outer.n_components,
            "covariance": outer.covariance,
            "by": by,
            "special_case": f"{inner.covariance}, {inner.n_components}",
            "lower_by": inner.log_likelihood - outer.log_likelihood,
        }
        for outer, inner, by in pairs
        if inner.log_likelihood - outer.log_likelihood > rounding * abs(inner.log_likelihood)
    ]


def _by_model(table: list[Row], column: str) -> list[dict[str, Any]]:
    """One line for each number of components, one column for each model, by code."""
    lines: dict[int, dict[str, Any]] = {}
    for row in table:
        line = lines.setdefault(row.n_components, {"K": row.n_components})
        value = getattr(row, column)
        code = model(row.covariance).code
        line[code] = round(value, 3) if isinstance(value, float) else value
    return list(lines.values())
