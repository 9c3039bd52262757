"""A thousand random starts of EM by each way of starting: where they end, and after how many steps.

    ./dev jgmm run configs/thousand_starts.toml

The likelihood of a mixture has many local maxima, and the start decides which of them EM reaches.
All starts of one kind run as one compiled program. If a share p of the starts ends at the best
optimum, log(0.01) / log(1 − p) starts find it with a probability of 99 %. That number times the
seconds per start is the cost of finding the best optimum, by which the kinds are compared.

Takes about 25 s on two cores, 40 s the first time, when the programs have to be compiled. On Old
Faithful with three components it prints the best log-likelihood, −1114.44, and the share of starts
that reach it: random 0.14, points 0.06, kmeans++ 0.16, kmeans 0.18, short_em 0.55. Nearly all
others end at −1119.2 or −1119.6, and one of 5,000 collapses. With `--set data.source=iris` the best
is a spurious optimum, −179.7, reached by 3 of 5,000 starts: one component holds 6 of 150 flowers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import jax
import numpy as np
from pydantic import AfterValidator, Field

from experiments._shared import one_problem
from jgmm import plot
from jgmm._core.errors import UserError
from jgmm._core.status import VALID
from jgmm._data.samples import make_samples
from jgmm.em.options import Options
from jgmm.fitting.in_memory import fit_unchecked
from jgmm.fitting.restarts import Progress
from jgmm.fitting.results import FitResult
from jgmm.initialization import methods
from jgmm.workbench.config.models import Amount, Fit, Name, Strict
from jgmm.workbench.studies.context import StudyContext


def _known(name: str) -> str:
    if name not in methods.STARTS:
        raise ValueError(f"must be one of {', '.join(methods.STARTS)}")
    return name


class Settings(Strict):
    """Starts to compare; [data] and [fit] say on which samples and how many."""

    starts: Annotated[tuple[Annotated[Name, AfterValidator(_known)], ...], Field(min_length=1)] = (
        tuple(methods.STARTS)
    )
    """Kinds of start, by their names in `jgmm.initialization.STARTS`."""
    within: Amount = 0.1
    """Log-likelihoods that differ by less, in nats, count as the same optimum."""


def run(study: StudyContext) -> None:
    """Fit from every kind of start, and tabulate optima, steps and seconds."""
    settings: Settings = study.settings
    if study.config.fit.init != Fit().init:
        raise UserError("this study compares ways to start: name them in settings.starts")
    fits: dict[str, FitResult] = {}
    clock: dict[str, tuple[float, float]] = {}
    for name in settings.starts:
        with study.progress(study.config.fit.max_steps, name) as show:
            fits[name], *seconds = _timed(study, name, show)
        clock[name] = (seconds[0], seconds[1])
        study.restarts(fits[name], "restarts_" + name.replace("+", "p"))
    ends = {name: _valid_ends(result) for name, result in fits.items()}
    best = max(float(values.max()) for values in ends.values())
    if math.isinf(best):
        raise UserError("no start of any kind ended in usable parameters; try a smaller K.")
    winner = max(fits, key=lambda name: float(ends[name].max()))
    study.metric("best log-likelihood", best)
    rows = [_row(name, fits[name], ends[name], best, settings, clock[name]) for name in fits]
    for row in rows:
        study.metric(f"{row['start']}: share at the best", row["at_best"])
    study.table("starts", rows, _CAPTION.format(within=settings.within))
    study.table(
        "optima",
        optima(ends, settings.within),
        f"The highest optima, and how many starts of each kind end within {settings.within:g} "
        "nats of one another there.",
    )
    study.mixture("best", fits[winner].mixture)
    _draw(study, fits, ends)


_CAPTION = (
    "Shares of starts that end within {within:g} nats of the best optimum of all, and whose fit "
    "failed, mostly because a component collapsed; steps of the fits that did not; seconds to "
    "compile (or to load from the cache), and for all starts together; starts and seconds to find "
    "the best optimum with a probability of 99 %."
)


def _timed(
    study: StudyContext, name: str, show: Callable[[Progress], None]
) -> tuple[FitResult, float, float]:
    """Fit from all starts; return the result and the seconds of compiling and of running."""
    fit = study.config.fit
    data, n_components, covariance = one_problem(study)
    samples = make_samples(data.x, data.weights)

    options = Options(
        covariance,
        fit.n_restarts,
        name,
        rtol=fit.rtol,
        max_steps=fit.max_steps,
        ridge=fit.ridge,
    )

    def start(tol: float | None) -> tuple[FitResult, float]:
        begun = time.perf_counter()
        result = fit_unchecked(
            study.key,
            samples,
            n_components,
            replace(options, tol=tol),
            progress=show,
        )
        jax.block_until_ready(result)
        return result, time.perf_counter() - begun

    _, first = start(1e9)  # converges at once: compiles the same programs, takes few steps
    result, seconds = start(fit.tol)
    return result, first, seconds


def _valid_ends(result: FitResult) -> np.ndarray:
    """Final log-likelihoods, -inf where the fit failed."""
    outcome: Any = result.restarts
    valid = np.isin(outcome.status, VALID)
    return np.where(valid, outcome.log_likelihood, -np.inf)


def _row(
    name: str,
    result: FitResult,
    ends: np.ndarray,
    best: float,
    settings: Settings,
    clock: tuple[float, float],
) -> dict[str, Any]:
    outcome: Any = result.restarts
    steps = np.asarray(outcome.n_steps)[np.isfinite(ends)]
    found = float((ends >= best - settings.within).mean())
    needed = _starts_needed(found)
    return {
        "start": name,
        "at_best": found,
        "failed": float(np.isinf(ends).mean()),
        "median_steps": float(np.median(steps)) if steps.size else math.nan,
        "most_steps": int(steps.max(initial=0)),
        "compile_seconds": clock[0],
        "seconds": clock[1],
        "starts_needed": needed,
        "seconds_needed": needed * clock[1] / len(ends),
    }


def _starts_needed(found: float) -> float:
    """Starts needed for a success with probability 99 %, each succeeding with ``found``."""
    if found in (0.0, 1.0):
        return math.inf if found == 0.0 else 1.0
    return max(1.0, math.log(0.01) / math.log1p(-found))


def optima(
    ends: dict[str, np.ndarray], within: float, most: int = 8
) -> list[dict[str, float | int]]:
    """Return the highest optima with the number of starts of each kind that end there.

    The sorted log-likelihoods are split wherever the gap to the next exceeds ``within``.
    """
    values = np.sort(np.concatenate([each[np.isfinite(each)] for each in ends.values()]))[::-1]
    groups = np.split(values, np.flatnonzero(-np.diff(values) > within) + 1)
    rows = []
    for group in groups[:most]:
        top, low = float(group[0]), float(group[-1])
        counts = {name: int(((v >= low) & (v <= top)).sum()) for name, v in ends.items()}
        rows.append({"log_likelihood": top, **counts})
    return rows


def _draw(study: StudyContext, fits: dict[str, FitResult], ends: dict[str, np.ndarray]) -> None:
    height = 1.2 + 0.75 * len(fits)
    figure, (ax,) = plot.new_figure(size=(9, height))
    plot.restarts(ends, ax, within=study.settings.within)
    study.figure("optima", figure, "Where every start ended; the dashed line is the best of all.")
    taken = {name: _steps(result)[np.isfinite(ends[name])] for name, result in fits.items()}
    figure, (ax,) = plot.new_figure(size=(9, height))
    plot.steps(taken, ax, max_steps=study.config.fit.max_steps)
    study.figure(
        "steps",
        figure,
        "EM steps of every start that did not fail. The steps of the start itself do not count: "
        "k-means runs to its end in kmeans, and EM runs five times ten steps in short_em.",
    )


def _steps(result: FitResult) -> np.ndarray:
    outcome: Any = result.restarts
    return np.asarray(outcome.n_steps)
