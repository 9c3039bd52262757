"""The same likelihood climbed by EM, Adam, SGD and L-BFGS from the same starts.

    ./dev jgmm run configs/em_vs_gradient.toml

EM and the optimisers of optax maximise one function: EM over weights, means and covariances, by
closed-form steps that never lower it; the others over free parameters that map to them, by
gradients of all samples. EM is quick at first and then gains a constant factor a step, the
smaller the more components overlap; L-BFGS learns the curvature and ends faster, at several
evaluations a step; Adam and SGD hang on their step size. None escapes the optimum that the start
leads to on purpose, so all of them need many starts.

Takes about 15 s on two cores, 40 s the first time, when the programs have to be compiled. On Old
Faithful with three components, from 64 starts, it prints the best log-likelihood, −1114.44, and
the shares of starts that reach it: EM and SGD 0.16, Adam and L-BFGS 0.17. EM needs 133 steps in
the median and L-BFGS 87, each of which costs about five of EM's; SGD runs out of its 1,000 steps
from 92 % of the starts, and Adam, circling an optimum at the distance its step size allows, from
20 %. From one start L-BFGS and Adam climb towards a singularity, where EM stops early.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

import jgmm
from experiments._shared import one_problem
from jgmm.em import FitResult
from jgmm.mixture import Mixture
from jgmm.status import VALID, Status
from jgmm.workbench import plot
from jgmm.workbench.config import Amount, Strict, UserError
from jgmm.workbench.runner import Run


class Settings(Strict):
    """The step sizes; [data] and [fit] say on which samples and from which starts.

    `fit.tol` says when EM stops; the others stop at the gradient's default tolerance.
    """

    adam: Amount = 0.05
    """Step size of Adam."""
    sgd: Amount = 0.03
    """Step size of SGD, whose gradient is that of all samples."""
    momentum: Amount = 0.9
    """Momentum of SGD."""
    within: Amount = 0.1
    """Log-likelihoods that differ by less, in nats, count as the same optimum."""


def run(run: Run) -> None:
    """Fit by every method from every start, and compare ends, steps and seconds."""
    data, _, _ = one_problem(run)
    if run.config.fit.ridge:
        raise UserError("fit.ridge must be zero: the likelihood that the gradients climb has none")
    methods = _methods(run.settings)
    fits: dict[str, FitResult] = {}
    clock: dict[str, tuple[float, float]] = {}
    for name, optimizer in methods.items():
        fits[name], *seconds = _timed(run, optimizer)
        clock[name] = (seconds[0], seconds[1])
    ends = {name: valid_ends(result, data.x) for name, result in fits.items()}
    best = max(float(values.max()) for values in ends.values())
    if np.isinf(best):
        raise UserError("no start ended in usable parameters; try a smaller K.")
    rows = [
        _row(name, fits[name], ends[name], best, run.settings.within, clock[name]) for name in fits
    ]
    run.metric("best log-likelihood", best)
    for row in rows:
        run.metric(f"{row['method']}: share at the best", row["at_best"])
    run.table("methods", rows, _CAPTION.format(within=run.settings.within))
    _draw_curves(run, fits, ends, {row["method"]: row["seconds_per_step"] for row in rows})
    figure, (ax,) = plot.new_figure(size=(9, 4.2))
    plot.restarts(ends, ax, within=run.settings.within)
    run.figure("optima", figure, "Where every start ended; the dashed line is the best of all.")


_CAPTION = (
    "Final log-likelihoods; shares of starts that end within {within:g} nats of the best of all, "
    "whose steps ran out, and that failed or were climbing towards a singularity; steps; seconds "
    "to compile (or to load from the cache), for all starts side by side, and for one step of them."
)


def _methods(settings: Settings) -> dict[str, optax.GradientTransformation | None]:
    """The methods by name, with their step sizes; None stands for EM."""
    sgd = f"SGD {settings.sgd:g}, momentum {settings.momentum:g}"
    return {
        "EM": None,
        f"Adam {settings.adam:g}": optax.adam(settings.adam),
        sgd: optax.sgd(settings.sgd, momentum=settings.momentum),
        "L-BFGS": optax.lbfgs(),
    }


def _timed(
    run: Run, optimizer: optax.GradientTransformation | None
) -> tuple[FitResult, float, float]:
    """Fits from all starts (leading axis), and the seconds that compiling and running took."""
    fit = run.config.fit
    data, k, covariance = one_problem(run)
    options: dict[str, Any] = {
        "covariance": covariance,
        "init": fit.init,
        "sample_weight": data.weights,
        "max_steps": fit.max_steps,
    }
    x = data.x

    # One start a lane, and not n_restarts, for the history of every start.
    @jax.jit
    @jax.vmap
    def climb(key: Key[Array, ""]) -> FitResult:
        if optimizer is None:
            return jgmm.fit(key, x, k, tol=fit.tol, rtol=fit.rtol, **options)
        return jgmm.gradient.fit(key, x, k, optimizer=optimizer, **options)

    keys = jax.random.split(run.key, fit.n_restarts)
    begun = time.perf_counter()
    program = climb.lower(keys).compile()
    compiled = time.perf_counter()
    result = jax.block_until_ready(program(keys))
    return result, compiled - begun, time.perf_counter() - compiled


def valid_ends(result: FitResult, x: Any) -> Float[np.ndarray, "R"]:
    """Final log-likelihoods, -inf where the fit failed or was climbing towards a singularity.

    The likelihood is unbounded: it grows without limit as a component closes in on few samples.
    EM gets there fast and says that the component collapsed. A gradient method takes so many steps
    that they run out first, at a log-likelihood that looks better than any: one step of EM from
    there tells.
    """
    after = _status_after_a_step(result.mixture, jnp.asarray(x))
    valid = np.isin(result.status, VALID) & np.isin(after, VALID)
    return np.where(valid, result.log_likelihood, -np.inf)


@jax.jit
def _status_after_a_step(mixtures: Mixture, x: Array) -> Array:
    return jax.vmap(lambda mixture: jgmm.em.run(mixture, x, max_steps=1).status)(mixtures)


def _row(
    name: str,
    result: FitResult,
    ends: np.ndarray,
    best: float,
    within: float,
    clock: tuple[float, float],
) -> dict[str, Any]:
    steps = np.asarray(result.n_steps)
    return {
        "method": name,
        "best": float(ends.max()),
        "median": float(np.median(ends[np.isfinite(ends)])) if np.isfinite(ends).any() else np.nan,
        "at_best": float((ends >= best - within).mean()),
        "ran_out": float((np.asarray(result.status) == Status.STEPS_RAN_OUT).mean()),
        "failed": float(np.isinf(ends).mean()),
        "median_steps": float(np.median(steps)),
        "most_steps": int(steps.max()),
        "compile_seconds": clock[0],
        "seconds": clock[1],
        # Lanes run until the last has ended, so this many steps were taken side by side.
        "seconds_per_step": clock[1] / (int(steps.max()) + 1),
    }


def _draw_curves(
    run: Run,
    fits: dict[str, FitResult],
    ends: dict[str, np.ndarray],
    seconds_per_step: dict[str, float],
    most: int = 3,
) -> None:
    """Draw how far below their common optimum all methods are, where they reach the same one."""
    stacked = np.stack(list(ends.values()))
    agree = np.flatnonzero(np.ptp(stacked, axis=0) <= run.settings.within)[:most]
    if not agree.size:
        run.note("From no start did all methods reach the same optimum, so no curves are drawn.")
        return
    top = stacked[:, agree].max(axis=0)
    histories = {name: np.asarray(result.history)[agree] for name, result in fits.items()}
    below = {name: values - top[:, None] for name, values in histories.items()}
    figure, (left, right) = plot.new_figure(1, 2, size=(12, 4.5))
    plot.convergence(below, left, gap=True)
    if (legend := left.get_legend()) is not None:  # the one on the right serves both
        legend.remove()
    left.set_xscale("symlog", linthresh=10)
    left.set_xlim(left=0)
    across = {
        name: seconds_per_step[name] * (1 + np.arange(values.shape[1]))
        for name, values in below.items()
    }
    plot.convergence(below, right, seconds=across, gap=True)
    right.set_xscale("log")
    right.set_ylabel("")
    run.figure(
        "convergence",
        figure,
        f"The first {agree.size} starts from which all methods reach the same optimum. Seconds are "
        f"those of all {stacked.shape[1]} starts side by side, after compilation.",
    )
