"""The tables and the figures of the study of optimisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments._climbing import Climb, Problem, Score, median
from jgmm import plot
from jgmm._core.status import Status
from jgmm.plot import style
from jgmm.workbench.studies.context import StudyContext


def passes_table(
    study: StudyContext, chosen: list[Problem], scores: list[dict[str, Score]]
) -> None:
    rows = [
        {
            "problem": problem.name,
            "N": len(problem.x),
            "D": problem.x.shape[1],
            "K": problem.n_components,
            "model": problem.covariance,
            "starts": int(np.isfinite(by_method["EM"].as_high).sum()),
            **_medians(by_method, lambda score: score.as_high),
        }
        for problem, by_method in zip(chosen, scores, strict=True)
    ]
    study.table(
        "passes",
        rows,
        "Passes over the samples until the log-likelihood is as high as where EM ends, to a "
        "relative 1e-10; the median of the starts from which EM ends well.",
    )


def seconds_table(
    study: StudyContext, chosen: list[Problem], scores: list[dict[str, Score]]
) -> None:
    rows = [
        {"problem": problem.name, **_medians(by_method, lambda score: score.seconds)}
        for problem, by_method in zip(chosen, scores, strict=True)
    ]
    study.table(
        "seconds",
        rows,
        "Seconds until the log-likelihood is as high as where EM ends, to a relative 1e-10; the "
        "median of the starts from which EM ends well, one after another, without compiling.",
    )


def _medians(by_method: dict[str, Score], of: Callable[[Score], np.ndarray]) -> dict[str, float]:
    """Median cost of each method on a problem, over the starts from which EM ends well."""
    solved = np.isfinite(by_method["EM"].as_high)
    return {
        name: median(of(score)[solved]) if solved.any() else np.nan
        for name, score in by_method.items()
    }


def ends_table(study: StudyContext, chosen: list[Problem], scores: list[dict[str, Score]]) -> None:
    rows = []
    for problem, by_method in zip(chosen, scores, strict=True):
        best = max(score.ends.max() for score in by_method.values())
        slack = study.settings.within * len(problem.x)
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
    study.table(
        "ends",
        rows,
        f"Shares of starts at the best optimum of all and at EM's or higher on the way, to "
        f"{study.settings.within:g} nats a sample; starts that end elsewhere than EM, and failures "
        "(collapsed, or on the way to a singularity).",
    )


def summary(study: StudyContext, scores: list[dict[str, Score]]) -> None:
    rows = []
    for name in _names(scores):
        row = _summarised([each for each in scores if name in each], name)
        rows.append({"method": name, **row})
        study.metric(f"{name}: share as high as EM", row["as_high"])
        study.metric(f"{name}: share at EM's optimum", row["same"])
        if name.startswith("EM +"):
            study.metric(f"{name}: times fewer passes", row["times_fewer"])
            study.metric(f"{name}: least where EM takes over 1000", row["least_slow"])
    em = np.concatenate([each["EM"].as_high for each in scores])
    study.metric("problems", int(np.isfinite(em).sum()))
    study.metric("problems where EM takes over 1000", int((np.isfinite(em) & (em > 1000)).sum()))
    study.table(
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
    """Names of the methods, in the order of the study: all, or those run on every problem."""
    found = list(dict.fromkeys(name for each in scores for name in each))
    return [name for name in found if not everywhere or all(name in each for each in scores)]


def _summarised(scores: list[dict[str, Score]], name: str) -> dict[str, Any]:
    """Results of one method over all problems it was run on and on which EM ends well."""

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


# The methods whose ends are listed start by start where they differ from EM's.
FOLLOWED = ("L-BFGS", "L-BFGS warm")


def _astray(scores: list[dict[str, Score]], name: str) -> list[tuple[int, int]]:
    """Problem and start of each run that ended at another optimum than EM, or alone failed."""
    return [
        (i, r)
        for i, each in enumerate(scores)
        if name in each
        for r in range(len(each[name].ends))
        if np.isfinite(each["EM"].ends[r])
        and (each[name].elsewhere[r] or not np.isfinite(each[name].ends[r]))
    ]


def astray_table(
    study: StudyContext,
    chosen: list[Problem],
    climbs: dict[str, dict[str, Climb]],
    scores: list[dict[str, Score]],
) -> None:
    """Tabulate the runs of L-BFGS that end at another optimum than EM, and who also ends there."""
    rows = []
    for name in FOLLOWED:
        for i, r in _astray(scores, name):
            problem, by_method = chosen[i], scores[i]
            slack = study.settings.within * len(problem.x)
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
    study.table(
        "astray",
        rows,
        "Runs of L-BFGS that end elsewhere than EM from the same start: the log-likelihood of both "
        "ends, and which other methods and starts end at the same. A flat gradient is an optimum; "
        "what is not valid is a singularity.",
    )


def _drawn(names: Sequence[str]) -> list[str]:
    """The methods in a figure: not every parametrization, nor batches, which do not get there."""
    return [each for each in names if not any(word in each for word in ("soft", "augm", "batch"))]


def draw_profiles(study: StudyContext, scores: list[dict[str, Score]]) -> None:
    figure, axes = plot.new_figure(1, 2, size=(11, 4.2))
    usable = np.concatenate([np.isfinite(each["EM"].as_high) for each in scores])
    names = _drawn(_names(scores, everywhere=True))
    kinds: tuple[tuple[str, Callable[[Score], np.ndarray]], ...] = (
        (f"within {study.settings.within:g} nats a sample of EM's end", lambda score: score.near),
        ("within a relative 1e-10 of EM's end", lambda score: score.as_high),
    )
    for ax, (title, of) in zip(axes, kinds, strict=True):
        handles = []
        for i, name in enumerate(names):
            needed = np.sort(np.concatenate([of(each[name]) for each in scores])[usable])
            share = np.arange(1, len(needed) + 1) / len(needed)
            color, _, line = plot.component_style(i)
            there = np.isfinite(needed)
            across = np.append(needed[there], study.settings.em_steps)
            up = np.append(share[there], share[there][-1] if there.any() else 0)
            (handle,) = ax.step(across, up, where="post", color=color, linestyle=line)
            handles.append(handle)
        _label_passes(ax, title)
        ax.set_ylim(0, 1.02)
    axes[0].set_ylabel("share of problems")
    style.draw_legend(axes[1], handles, names)
    study.figure("profiles", figure, "Share of problems solved within a budget of passes.")


def _label_passes(ax: Axes, title: str) -> None:
    """Put a title over an axis of passes, on a logarithmic scale."""
    ax.set_xscale("log")
    ax.set_title(title, loc="left")
    ax.set_xlabel("passes over the samples")
    ax.grid(axis="y", color=style.LIGHT_GREY, alpha=0.3)


def draw_curves(
    study: StudyContext,
    chosen: list[Problem],
    climbs: dict[str, dict[str, Climb]],
    scores: list[dict[str, Score]],
    most: int = 4,
) -> None:
    """Draw how far below EM's end all methods are, for problems from quick to slow."""
    cost = [median(each["EM"].as_high) for each in scores]
    order = [i for i in np.argsort(cost)[::-1] if np.isfinite(cost[i])]
    names = _drawn(_names(scores, everywhere=True))
    shown = sorted(order[:: max(1, len(order) // most)][:most])
    if not shown:
        study.note("EM failed from half of the starts of every problem, so no curves are drawn.")
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
            color, _, line = plot.component_style(j)
            drawn = np.where(below > 0, below, np.nan)
            handles += ax.plot(passes, drawn, color=color, linestyle=line, linewidth=1.5)
        _label_passes(ax, problem.name)
        ax.set_yscale("log")
        ax.set_ylim(bottom=1e-9)
    axes[0].set_ylabel("log-likelihood below EM's end (nats)")
    style.draw_legend(axes[-1], handles, names)
    study.figure(
        "convergence",
        figure,
        "The first start that EM ends well from, for problems from quick to slow.",
    )


def draw_astray(
    study: StudyContext,
    chosen: list[Problem],
    climbs: dict[str, dict[str, Climb]],
    scores: list[dict[str, Score]],
    most: int = 12,
) -> None:
    """Draw the runs of L-BFGS that end at another optimum than EM, together with EM's."""
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
            color, _, line = plot.component_style(j)
            handles += ax.plot(np.asarray(climb.passes)[r], above, color=color, linestyle=line)
        ax.set_xscale("log")
        ends = [float(by_method[name].result.log_likelihood[r] - goal) for name in names]
        reach = max(1.0, 1.5 * max(abs(end) for end in ends if abs(end) < 1e3))
        ax.set_ylim(-reach, reach)
        ax.axhline(0, color=style.LIGHT_GREY, alpha=0.5, linewidth=1)
        ax.set_title(f"{chosen[i].name}, start {r}", loc="left", fontsize="small")
    for ax in places[len(found) :]:
        ax.set_axis_off()
    for ax in places[-columns:]:
        ax.set_xlabel("passes")
    places[0].set_ylabel("nats above EM's end")
    style.draw_legend(places[columns - 1], handles, names)
    study.figure(
        "astray",
        figure,
        "The starts from which L-BFGS ends at another optimum than EM (zero): where they part.",
    )
