"""One likelihood climbed by EM, accelerated EM, Adam, SGD and L-BFGS from the same starts.

    ./dev jgmm run configs/optimisers.toml

EM and the optimisers of optax maximise one function: EM over weights, means and covariances, by
closed-form steps that never lower it; the others over free parameters that map to them, by
gradients of all samples. What a method costs is counted in passes over the samples: one for each
step, whether it was refused or not, and one for each point that a line search looks at.

A problem is a data set and a start, and EM's end from there is what the others are measured by: how
many passes it takes them to come as high, or at which other optimum they end.

Takes about three and a half minutes on two cores. From 42 starts on eleven data sets that EM ends
well from, Anderson acceleration comes as high as EM (to a relative 1e-10) in all, in 4.9 times
fewer passes (geometric mean) and in more passes in none; SQUAREM in 41, in 2.7 times fewer. Where
EM takes more than 1,000 passes, Anderson acceleration takes 9.4 times fewer or better. L-BFGS of
optax comes within 1e-6 nats a sample of EM's end from 37 starts (0.88) and as high in 1.9 times
fewer passes than EM; Adam comes near from 38, and SGD from 30. The others end at other optima, or
run out of steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

import jgmm
from experiments._shared import check_own_data
from jgmm import gradient, restarts
from jgmm.acceleration import accelerated
from jgmm.covariance import model
from jgmm.em import EM, FitResult, finish, make_control, seen, to_frame
from jgmm.extrapolation import SCHEMES
from jgmm.lanes import Method, starts_axis
from jgmm.mixture import Mixture
from jgmm.natural_gradient import NaturalGradient, decaying
from jgmm.newton import NewtonCG
from jgmm.optimizer import as_optimizer
from jgmm.samples import Samples, make_samples
from jgmm.statistics import accumulate
from jgmm.status import VALID, Status
from jgmm.warm import WarmStart
from jgmm.workbench import canvas, datasets, plot
from jgmm.workbench.config import Amount, Count, Name, Strict, UserError
from jgmm.workbench.runner import Run


class Settings(Strict):
    """Which problems, for how long, with which step sizes."""

    problems: tuple[Name, ...] = ()
    """Names of the data sets to take; none stands for all."""
    methods: tuple[Name, ...] = ()
    """Names of the methods to compare with EM; none stands for all."""
    n_starts: Count = 4
    """Starts from each, the same for all methods."""
    init: Name = "kmeans++"
    """How each start is made."""
    n_samples: Count = 1000
    """Samples in the data sets that are drawn."""
    em_steps: Count = 30_000
    """Steps of EM at most, accelerated or not."""
    gradient_steps: Count = 5_000
    """Steps of the other methods at most."""
    adam: Amount = 0.02
    """Step size of Adam."""
    sgd: Amount = 0.1
    """Step size of SGD, whose gradient is that of all samples."""
    momentum: Amount = 0.9
    """Momentum of SGD."""
    batches: Count = 10
    """Mini-batches that the samples are divided into, by number."""
    within: Amount = 1e-6
    """Log-likelihoods that differ by less, in nats a sample, count as the same optimum."""


class Problem(NamedTuple):
    """A data set and what is fitted to it."""

    name: str
    x: Float[np.ndarray, "N D"]
    n_components: int
    covariance: str


def problems(n_samples: int) -> list[Problem]:
    """From easy to hard: separated, real, in many dimensions, and overlapping ever more."""

    def drawn(spread: float, k: int, d: int, seed: int) -> Float[np.ndarray, "N D"]:
        """Unit Gaussians whose centers are so many standard deviations apart, roughly."""
        rng = np.random.default_rng(seed)
        centers = spread * rng.normal(size=(k, d))
        return centers[rng.integers(k, size=n_samples)] + rng.normal(size=(n_samples, d))

    def real(name: str) -> Float[np.ndarray, "N D"]:
        return np.asarray(datasets.load(name).x, np.float64)

    return [
        Problem("separated", drawn(5.0, 3, 2, 0), 3, "full"),
        Problem("iris spherical", real("iris"), 3, "spherical"),
        Problem("wine diag", real("wine"), 3, "diag"),
        Problem("iris full", real("iris"), 3, "full"),
        Problem("faithful 3", real("faithful"), 3, "full"),
        Problem("faithful 4", real("faithful"), 4, "full"),
        Problem("faithful 6 diag", real("faithful"), 6, "diag"),
        Problem("ten columns", drawn(0.8, 4, 10, 3), 4, "full"),
        Problem("overlap tied", drawn(0.7, 3, 2, 0), 3, "tied"),
        Problem("overlap 1-D", drawn(1.0, 4, 1, 3), 4, "full"),
        Problem("overlap full", drawn(1.0, 3, 2, 0), 3, "full"),
    ]


def run(run: Run) -> None:
    """Climb from every start of every problem by every method, and compare."""
    check_own_data(run)
    settings: Settings = run.settings
    every = {each.name: each for each in problems(settings.n_samples)}
    chosen = [every[name] for name in _named("problems", settings.problems, list(every))]
    climbs = {each.name: _climbs(run, each) for each in chosen}
    scores = [_score(each, climbs[each.name], settings.within) for each in chosen]
    _passes_table(run, chosen, scores)
    _seconds_table(run, chosen, scores)
    _ends_table(run, chosen, scores)
    _summary(run, scores)
    _astray_table(run, chosen, climbs, scores)
    _draw_profiles(run, scores)
    _draw_curves(run, chosen, climbs, scores)
    _draw_astray(run, chosen, climbs, scores)


def _named(setting: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The names asked for, in the order they are known in, or all.

    Raises:
      UserError: one that is not known.
    """
    for name in names:
        if name not in known:
            raise UserError(f"settings.{setting}: unknown {name!r}. Known: {', '.join(known)}.")
    return [name for name in known if not names or name in names]


class Climb(NamedTuple):
    """What became of R starts.

    Attributes:
      result: the fits, leading axis R.
      passes: made until each of their steps, (R, steps + 1).
      made: passes in all, (R,).
      seconds: taken by each, without compiling, (R,).
    """

    result: FitResult
    passes: Any
    made: Any
    seconds: Float[np.ndarray, "R"]


def _methods(settings: Settings, n_samples: int, covariance: str) -> dict[str, Method]:
    """The methods by name; the first is what the others are measured by."""
    em, name = EM(settings.em_steps), model(covariance).name

    def climbing(optimizer: Any, by: str = "log", batch: int | None = None) -> Method:
        own, most = as_optimizer(optimizer), settings.gradient_steps
        return gradient.Gradient(own, gradient.PARAMETRISATIONS[by], name, batch, most)

    part = max(1, n_samples // settings.batches)
    others = {
        **{f"EM + {scheme}": accelerated(em, scheme) for scheme in SCHEMES},
        "Newton-CG": climbing(NewtonCG()),
        "L-BFGS": climbing(optax.lbfgs()),
        "L-BFGS warm": climbing(WarmStart(optax.lbfgs())),
        "L-BFGS softplus": climbing(optax.lbfgs(), "softplus"),
        "L-BFGS augmented": climbing(optax.lbfgs(), "augmented"),
        "Adam": climbing(optax.adam(settings.adam)),
        "SGD": climbing(optax.sgd(settings.sgd, momentum=settings.momentum)),
        "natural batches": climbing(NaturalGradient(decaying()), batch=part),
        "Adam batches": climbing(optax.adam(settings.adam), batch=part),
    }
    chosen = _named("methods", settings.methods, list(others))
    own = [each for each in chosen if name == "full" or "augmented" not in each]
    return {"EM": em, **{each: others[each] for each in own}}


def _climbs(run: Run, problem: Problem) -> dict[str, Climb]:
    """By every method from the same starts, each in the frame that suits the covariance model."""
    settings: Settings = run.settings
    samples, entry = make_samples(problem.x), model(problem.covariance)
    begun = restarts.starts(
        run.key,
        samples,
        problem.n_components,
        covariance=entry.name,
        init=settings.init,
        n_restarts=settings.n_starts,
    )
    inside = jax.jit(seen, static_argnums=1)(samples, entry)
    starts = jax.vmap(to_frame, in_axes=(0, None))(begun, inside.frame)
    dtype = samples.x.dtype
    found = {}
    for name, method in _methods(settings, len(problem.x), entry.name).items():
        if isinstance(method, gradient.Gradient):
            steepest = gradient.make_control(run.key, dtype, gradient_tol=1e-9)
            numbered = (starts, jnp.arange(settings.n_starts))
            found[name] = _climb(method, numbered, inside, steepest)
        else:
            found[name] = _climb(method, starts, inside, make_control(dtype, 1e-14, 0.0, 0.0))
    return found


def _climb(method: Any, starts: Any, samples: Samples, control: Any) -> Climb:
    """Run a method from every start, one after another, and keep the passes and the seconds."""
    batches = getattr(method, "batch_size", None) is not None

    def one(start: Any, samples: Samples, control: Any) -> tuple[FitResult, Array, Array]:
        first = jax.tree.map(lambda leaf: leaf[None], method.begin(start))
        empty = jnp.full(method.max_steps + 1, jnp.nan, samples.x.dtype)
        most = method.max_steps

        def turn(carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
            lanes, history, passes = carry
            at = lanes.n_steps[0]
            stepped = method.step(lanes, samples, control)
            found = stepped.log_likelihood[0]
            if batches:  # what a batch says of it is an estimate; this pass is the study's, not its
                found = accumulate(_end(method, lanes), samples).log_likelihood
            history = history.at[at].set(found)
            passes = passes.at[at].set(_passes(lanes).astype(passes.dtype) + 1)
            return stepped, history, passes

        def going_on(carry: tuple[Any, Array, Array]) -> Array:
            return (carry[0].status[0] == Status.RUNNING) & (_passes(carry[0]) <= most)

        lanes, history, passes = lax.while_loop(going_on, turn, (first, empty, empty))
        lane, end = jax.tree.map(lambda leaf: leaf[0], lanes), _end(method, lanes)
        log_likelihood = accumulate(end, samples).log_likelihood
        return finish(end, log_likelihood, lane, history, None, samples), passes, _passes(lanes)

    each = [
        jax.tree.map(lambda leaf, r=r: leaf[r], starts) for r in range(len(starts_axis(starts)))
    ]
    program = jax.jit(one).lower(each[0], samples, control).compile()
    found, seconds = [], []
    for start in each:
        begun = time.perf_counter()
        found.append(jax.block_until_ready(program(start, samples, control)))
        seconds.append(time.perf_counter() - begun)
    result, passes, made = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
    return Climb(result, passes, made, np.asarray(seconds))


def _passes(lanes: Any) -> Array:
    """Passes that the first lane has made."""
    made = lanes.n_passes if hasattr(lanes, "n_passes") else lanes.n_steps
    return jnp.asarray(made[0])


def _end(method: Any, lanes: Any) -> Mixture:
    """Where the first lane is."""
    lane = jax.tree.map(lambda leaf: leaf[0], lanes)
    found: Mixture = lane.mixture if hasattr(lane, "mixture") else method.mixture(lane)
    return found


class Score(NamedTuple):
    """How one method did from R starts, by EM's ends from them.

    Attributes:
      ends: log-likelihoods, -inf for a failure, (R,).
      as_high: passes until within 1e-10 of EM's end, relative; infinite for never, (R,).
      near: passes until within ``within`` nats a sample of it, (R,).
      elsewhere: ended at another optimum, above (1) or below (-1), (R,).
      falls: the most the log-likelihood fell from one step to the next, ().
      seconds: passes until as high times seconds a pass, (R,).
    """

    ends: Float[np.ndarray, "R"]
    as_high: Float[np.ndarray, "R"]
    near: Float[np.ndarray, "R"]
    elsewhere: Float[np.ndarray, "R"]
    falls: float
    seconds: Float[np.ndarray, "R"]


def _score(problem: Problem, climbs: dict[str, Climb], within: float) -> dict[str, Score]:
    ends = {name: valid_ends(climb.result, problem.x) for name, climb in climbs.items()}
    goal, slack = ends["EM"], within * len(problem.x)
    scores = {}
    for name, climb in climbs.items():
        history = np.asarray(climb.result.history)
        passes = np.asarray(climb.passes)

        def until(level: np.ndarray, history: Any = history, passes: Any = passes) -> Any:
            reached = history >= level[:, None]
            first = np.take_along_axis(passes, reached.argmax(axis=1)[:, None], axis=1)[:, 0]
            return np.where(reached.any(axis=1) & np.isfinite(goal), first, np.inf)

        both = np.isfinite(goal) & np.isfinite(ends[name])
        away = np.where(both, ends[name], 0) - np.where(both, goal, 0)
        as_high = until(goal - 1e-10 * np.abs(goal))
        scores[name] = Score(
            ends[name],
            as_high,
            until(goal - slack),
            np.where(np.abs(away) > slack, np.sign(away), 0),
            float(-np.nanmin(np.diff(history, axis=1), initial=0)),
            as_high * climb.seconds / np.maximum(np.asarray(climb.made), 1),
        )
    return scores


def valid_ends(result: FitResult, x: Any) -> Float[np.ndarray, "R"]:
    """Final log-likelihoods, -inf where the fit failed or was climbing towards a singularity.

    The likelihood is unbounded: it grows without limit as a component closes in on few samples.
    EM gets there fast and says that the component collapsed. A gradient method takes so many steps
    that they run out first, at a log-likelihood that looks better than any: one step of EM from
    there tells.
    """
    after = _status_after_a_step(result.mixture, jnp.asarray(x))
    running = np.asarray(result.status) == Status.RUNNING  # its passes ran out
    valid = (running | np.isin(result.status, VALID)) & np.isin(after, VALID)
    return np.where(valid, result.log_likelihood, -np.inf)


@jax.jit
def _status_after_a_step(mixtures: Mixture, x: Array) -> Array:
    return jax.vmap(lambda mixture: jgmm.em.run(mixture, x, max_steps=1).status)(mixtures)


def _median(values: Sequence[float] | np.ndarray) -> float:
    """The median; infinite where half of the starts did not get there."""
    return float(np.sort(np.asarray(values))[(len(values) - 1) // 2])


def _passes_table(run: Run, chosen: list[Problem], scores: list[dict[str, Score]]) -> None:
    rows = []
    for problem, by_method in zip(chosen, scores, strict=True):
        solved = np.isfinite(by_method["EM"].as_high)
        row: dict[str, Any] = {
            "problem": problem.name,
            "N": len(problem.x),
            "D": problem.x.shape[1],
            "K": problem.n_components,
            "model": problem.covariance,
            "starts": int(solved.sum()),
        }
        for name, score in by_method.items():
            row[name] = _median(score.as_high[solved]) if solved.any() else np.nan
        rows.append(row)
    run.table(
        "passes",
        rows,
        "Passes over the samples until the log-likelihood is as high as where EM ends, to a "
        "relative 1e-10; the median of the starts from which EM ends well.",
    )


def _seconds_table(run: Run, chosen: list[Problem], scores: list[dict[str, Score]]) -> None:
    rows = []
    for problem, by_method in zip(chosen, scores, strict=True):
        solved = np.isfinite(by_method["EM"].as_high)
        row: dict[str, Any] = {"problem": problem.name}
        for name, score in by_method.items():
            row[name] = _median(score.seconds[solved]) if solved.any() else np.nan
        rows.append(row)
    run.table(
        "seconds",
        rows,
        "Seconds until the log-likelihood is as high as where EM ends, to a relative 1e-10; the "
        "median of the starts from which EM ends well, one after another, without compiling.",
    )


def _ends_table(run: Run, chosen: list[Problem], scores: list[dict[str, Score]]) -> None:
    rows = []
    for problem, by_method in zip(chosen, scores, strict=True):
        best = max(score.ends.max() for score in by_method.values())
        slack = run.settings.within * len(problem.x)
        for name, score in by_method.items():
            rows.append(
                {
                    "problem": problem.name,
                    "method": name,
                    "best": float(score.ends.max()),
                    "at_best": float((score.ends >= best - slack).mean()),
                    "as_em": float(np.isfinite(score.near).mean()),
                    "above": int((score.elsewhere > 0).sum()),
                    "below": int((score.elsewhere < 0).sum()),
                    "failed": int(np.isinf(score.ends).sum()),
                }
            )
    run.table(
        "ends",
        rows,
        f"Shares of starts at the best optimum of all and at EM's or higher on the way, to "
        f"{run.settings.within:g} nats a sample; starts that end elsewhere than EM, and failures "
        "(collapsed, or on the way to a singularity).",
    )


def _summary(run: Run, scores: list[dict[str, Score]]) -> None:
    rows = []
    for name in _names(scores):
        row = _summarised([each for each in scores if name in each], name)
        rows.append({"method": name, **row})
        run.metric(f"{name}: share as high as EM", row["as_high"])
        run.metric(f"{name}: share at EM's optimum", row["same"])
        if name.startswith("EM +"):
            run.metric(f"{name}: times fewer passes", row["times_fewer"])
            run.metric(f"{name}: least where EM takes over 1000", row["least_slow"])
    em = np.concatenate([each["EM"].as_high for each in scores])
    run.metric("problems", int(np.isfinite(em).sum()))
    run.metric("problems where EM takes over 1000", int((np.isfinite(em) & (em > 1000)).sum()))
    run.table(
        "methods",
        rows,
        "Over all problems that EM ends well on (augmented: those of the model full): shares that "
        "come as high as EM (relative 1e-10), near it, and end at EM's own optimum; times fewer "
        "passes than EM where they come as high (geometric mean), and times fewer seconds; on how "
        "many of the problems that EM takes more than 1,000 for they do, and the least of these "
        "ratios; on how many they need more passes; ends at other optima; the most the "
        "log-likelihood fell in a step, in nats.",
    )


def _names(scores: list[dict[str, Score]], everywhere: bool = False) -> list[str]:
    """The methods, in the order of the study: all, or those that every problem was given to."""
    found = list(dict.fromkeys(name for each in scores for name in each))
    return [name for name in found if not everywhere or all(name in each for each in scores)]


def _summarised(scores: list[dict[str, Score]], name: str) -> dict[str, Any]:
    """What one method did over all problems that it was given and EM ends well on."""

    def column(of: Callable[[Score], np.ndarray], method: str = name) -> np.ndarray:
        usable = np.concatenate([np.isfinite(each["EM"].as_high) for each in scores])
        return np.concatenate([of(each[method]) for each in scores])[usable]

    em, own = column(lambda score: score.as_high, "EM"), column(lambda score: score.as_high)
    ratio, there = em / own, np.isfinite(own)
    faster = column(lambda score: score.seconds, "EM") / column(lambda score: score.seconds)
    elsewhere, slow = column(lambda score: score.elsewhere), there & (em > 1000)
    ends = column(lambda score: score.ends)

    def mean(values: np.ndarray) -> float:
        return float(np.exp(np.log(values).mean())) if values.size else np.nan

    return {
        "problems": len(em),
        "as_high": float(there.mean()),
        "near": float(np.isfinite(column(lambda score: score.near)).mean()),
        "same": float((np.isfinite(ends) & (elsewhere == 0)).mean()),
        "times_fewer": mean(ratio[there]),
        "times_faster": mean(faster[there]),
        "slow": int(slow.sum()),
        "least_slow": float(ratio[slow].min()) if slow.any() else np.nan,
        "worse": int((there & (ratio < 1)).sum()),
        "above": int((elsewhere > 0).sum()),
        "below": int((elsewhere < 0).sum()),
        "largest_fall": max(each[name].falls for each in scores),
    }


# The methods whose ends are told start by start where they are not EM's.
FOLLOWED = ("L-BFGS", "L-BFGS warm")


def _astray(scores: list[dict[str, Score]], name: str) -> list[tuple[int, int]]:
    """Problem and start of the runs that ended elsewhere than EM, or failed where it did not."""
    return [
        (i, r)
        for i, each in enumerate(scores)
        if name in each
        for r in range(len(each[name].ends))
        if np.isfinite(each["EM"].ends[r])
        and (each[name].elsewhere[r] or not np.isfinite(each[name].ends[r]))
    ]


def _astray_table(
    run: Run,
    chosen: list[Problem],
    climbs: dict[str, dict[str, Climb]],
    scores: list[dict[str, Score]],
) -> None:
    """Where L-BFGS ends elsewhere than EM: where, and which methods end there, too."""
    rows = []
    for name in FOLLOWED:
        for i, r in _astray(scores, name):
            problem, by_method = chosen[i], scores[i]
            slack = run.settings.within * len(problem.x)
            result = climbs[problem.name][name].result
            end, goal = float(result.log_likelihood[r]), float(by_method["EM"].ends[r])
            also = [
                f"{other} {at}"
                for other, score in by_method.items()
                for at in np.flatnonzero(np.abs(score.ends - end) <= slack).tolist()
                if (other, at) != (name, r)
            ]
            rows.append(
                {
                    "method": name,
                    "problem": problem.name,
                    "start": r,
                    "EM": goal,
                    "end": end,
                    "difference": end - goal,
                    "status": Status(int(result.status[r])).name.lower(),
                    "valid": bool(np.isfinite(by_method[name].ends[r])),
                    "gradient_flat": bool(result.status[r] == Status.CONVERGED),
                    "also_reached_by": ", ".join(also[:4]) or "no other",
                }
            )
    run.table(
        "astray",
        rows,
        "Runs of L-BFGS that end elsewhere than EM from the same start: the log-likelihood of both "
        "ends, and which other methods and starts end at the same. A flat gradient is an optimum; "
        "what is not valid is a singularity.",
    )


def _drawn(names: Sequence[str]) -> list[str]:
    """The methods in a figure: not every parametrisation, nor batches, which do not get there."""
    return [each for each in names if not any(word in each for word in ("soft", "augm", "batch"))]


def _draw_profiles(run: Run, scores: list[dict[str, Score]]) -> None:
    figure, axes = plot.new_figure(1, 2, size=(11, 4.2))
    usable = np.concatenate([np.isfinite(each["EM"].as_high) for each in scores])
    names = _drawn(_names(scores, everywhere=True))
    kinds: tuple[tuple[str, Callable[[Score], np.ndarray]], ...] = (
        (f"within {run.settings.within:g} nats a sample of EM's end", lambda score: score.near),
        ("within a relative 1e-10 of EM's end", lambda score: score.as_high),
    )
    for ax, (title, of) in zip(axes, kinds, strict=True):
        handles = []
        for i, name in enumerate(names):
            needed = np.sort(np.concatenate([of(each[name]) for each in scores])[usable])
            share = np.arange(1, len(needed) + 1) / len(needed)
            color, _, line = canvas.look(i)
            there = np.isfinite(needed)
            across = np.append(needed[there], run.settings.em_steps)
            up = np.append(share[there], share[there][-1] if there.any() else 0)
            (handle,) = ax.step(across, up, where="post", color=color, linestyle=line)
            handles.append(handle)
        ax.set_xscale("log")
        ax.set_ylim(0, 1.02)
        ax.set_title(title, loc="left")
        ax.set_xlabel("passes over the samples")
        ax.grid(axis="y", color=canvas.GUIDE, alpha=0.3)
    axes[0].set_ylabel("share of problems")
    canvas.legend(axes[1], handles, names)
    run.figure("profiles", figure, "Share of problems solved within a budget of passes.")


def _draw_curves(
    run: Run,
    chosen: list[Problem],
    climbs: dict[str, dict[str, Climb]],
    scores: list[dict[str, Score]],
    most: int = 4,
) -> None:
    """Draw how far below EM's end all methods are, for problems from quick to slow."""
    cost = [_median(each["EM"].as_high) for each in scores]
    order = [i for i in np.argsort(cost)[::-1] if np.isfinite(cost[i])]
    names = _drawn(_names(scores, everywhere=True))
    shown = sorted(order[:: max(1, len(order) // most)][:most])
    if not shown:
        run.note("EM failed from half of the starts of every problem, so no curves are drawn.")
        return
    figure, axes = plot.new_figure(1, len(shown), size=(3.6 * len(shown), 4.0))
    for ax, i in zip(axes, shown, strict=True):
        problem, by_method = chosen[i], scores[i]
        start = int(np.flatnonzero(np.isfinite(by_method["EM"].as_high))[0])
        goal = by_method["EM"].ends[start]
        handles = []
        for j, name in enumerate(names):
            climb = climbs[problem.name][name]
            below = goal - np.asarray(climb.result.history)[start]
            passes = np.asarray(climb.passes)[start]
            color, _, line = canvas.look(j)
            drawn = np.where(below > 0, below, np.nan)
            handles += ax.plot(passes, drawn, color=color, linestyle=line, linewidth=1.5)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(bottom=1e-9)
        ax.set_title(problem.name, loc="left")
        ax.set_xlabel("passes over the samples")
        ax.grid(axis="y", color=canvas.GUIDE, alpha=0.3)
    axes[0].set_ylabel("log-likelihood below EM's end (nats)")
    canvas.legend(axes[-1], handles, names)
    run.figure(
        "convergence",
        figure,
        "The first start that EM ends well from, for problems from quick to slow.",
    )


def _draw_astray(
    run: Run,
    chosen: list[Problem],
    climbs: dict[str, dict[str, Climb]],
    scores: list[dict[str, Score]],
    most: int = 12,
) -> None:
    """Draw the traces of L-BFGS where it ends elsewhere than EM, beside EM's."""
    found = _astray(scores, FOLLOWED[0])[:most]
    if not found:
        return
    columns = min(5, len(found))
    rows = -(-len(found) // columns)
    figure, axes = plot.new_figure(rows, columns, size=(2.9 * columns, 2.8 * rows))
    places: list[Any] = list(axes)
    names, handles = ["EM", *FOLLOWED], list[Any]()
    for ax, (i, r) in zip(places, found, strict=False):
        by_method, goal = climbs[chosen[i].name], scores[i]["EM"].ends[r]
        names = [name for name in ("EM", *FOLLOWED) if name in by_method]
        handles.clear()
        for j, name in enumerate(names):
            climb = by_method[name]
            above = np.asarray(climb.result.history)[r] - goal
            color, _, line = canvas.look(j)
            handles += ax.plot(np.asarray(climb.passes)[r], above, color=color, linestyle=line)
        ax.set_xscale("log")
        ends = [float(by_method[name].result.log_likelihood[r] - goal) for name in names]
        reach = max(1.0, 1.5 * max(abs(end) for end in ends if abs(end) < 1e3))
        ax.set_ylim(-reach, reach)
        ax.axhline(0, color=canvas.GUIDE, alpha=0.5, linewidth=1)
        ax.set_title(f"{chosen[i].name}, start {r}", loc="left", fontsize="small")
    for ax in places[len(found) :]:
        ax.set_axis_off()
    for ax in places[-columns:]:
        ax.set_xlabel("passes")
    places[0].set_ylabel("nats above EM's end")
    canvas.legend(places[columns - 1], handles, names)
    run.figure(
        "astray",
        figure,
        "The starts from which L-BFGS ends at another optimum than EM (zero): where they part.",
    )
