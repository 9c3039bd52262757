"""Pictures of results: selection, convergence, restarts, classifiers and studies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from jgmm.plot import style


def criterion_curves(
    table: Iterable[Any],
    criterion: str = "bic",
    ax: Axes | None = None,
    *,
    better: Literal["lower", "higher"] | None = None,
) -> Axes:
    """Draw a selection criterion against the number of components, a line per covariance model.

    Args:
      table: rows, mappings or objects, with ``n_components``, ``covariance`` and the criterion. A
        value that is None or not finite, of a fit that failed, leaves a gap.
      criterion: name of the value to draw.
      ax: where to draw.
      better: which end is best; known for aic, aicc, bic, icl and icl_map (lower), for held_out and
        names that contain "likelihood" (higher), otherwise to be given.

    Raises:
      ValueError: a row without one of the three values, or ``better`` missing.
    """
    rows = [
        (str(_field(row, "covariance")), int(_field(row, "n_components")), _field(row, criterion))
        for row in table
    ]
    better = better or _better(criterion)
    ax = style.prepare(ax)
    title = criterion.upper() if len(criterion) <= 4 else criterion.replace("_", " ")
    ax.set_xlabel("components")
    ax.set_ylabel(f"{style.plain(title)} ({better} is better)")
    finite = [(m, k, float(v)) for m, k, v in rows if v is not None and np.isfinite(v)]
    if not finite:
        return style.say(ax, f"no fit gave a finite {title}")
    handles, models = [], list(dict.fromkeys(model for model, _, _ in finite))
    for i, model in enumerate(models):
        value = {k: v for m, k, v in finite if m == model}
        known = sorted({k for m, k, _ in rows if m == model})
        color, marker, line = style.look(i)
        handles += ax.plot(
            known,
            [value.get(k, np.nan) for k in known],
            color=color,
            marker=marker,
            linestyle=line,
            markersize=4.5,
        )
    best = (min if better == "lower" else max)(finite, key=lambda row: row[2])
    handles += ax.plot(
        best[1],
        best[2],
        "o",
        markersize=14,
        markerfacecolor="none",
        color=style.INK,
        clip_on=False,
    )
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    ax.grid(axis="y", color=style.GUIDE, alpha=0.3)
    style.legend(ax, handles, [*models, f"best: {best[0]}, {best[1]}"])
    return ax


def _field(row: Any, name: str) -> Any:
    try:
        return row[name] if isinstance(row, Mapping) else getattr(row, name)
    except (KeyError, AttributeError):
        raise ValueError(f"a row has no {name!r}: {row!r}") from None


def _better(criterion: str) -> Literal["lower", "higher"]:
    if criterion in ("aic", "aicc", "bic", "icl", "icl_map"):
        return "lower"
    if criterion == "held_out" or "likelihood" in criterion:
        return "higher"
    raise ValueError(f"say whether a lower or a higher {criterion!r} is better: better='lower'.")


def convergence(
    histories: Mapping[str, npt.ArrayLike],
    ax: Axes | None = None,
    *,
    seconds: Mapping[str, npt.ArrayLike] | None = None,
    gap: bool = False,
) -> Axes:
    """Draw log-likelihood against steps or seconds, for several methods or starts.

    Args:
      histories: log-likelihood after each step by label, (steps,) or (restarts, steps), padded
        with NaN as in ``FitResult.history``.
      ax: where to draw.
      seconds: for the horizontal axis, the time at which each value was reached, (steps,) by
        label; without it the axis counts steps.
      gap: draw how far each value is below the best of all, on a logarithmic axis, which shows
        the rate of convergence; the best itself, a gap of zero, cannot be drawn.
    """
    ax = style.prepare(ax)
    curves = {name: np.atleast_2d(np.asarray(h, np.float64)) for name, h in histories.items()}
    ax.set_xlabel("step" if seconds is None else "seconds")
    ax.set_ylabel("log-likelihood below the best (nats)" if gap else "log-likelihood (nats)")
    finite = [values[np.isfinite(values)] for values in curves.values()]
    if not any(values.size for values in finite):
        return style.say(ax, "no step gave a finite log-likelihood")
    best = max(float(values.max()) for values in finite if values.size)
    handles = []
    for i, (name, values) in enumerate(curves.items()):
        across = np.arange(values.shape[1]) if seconds is None else np.asarray(seconds[name])
        drawn = best - values if gap else values
        drawn = np.where(np.isfinite(drawn) & ((drawn > 0) | (not gap)), drawn, np.nan)
        color, _, line = style.look(i)
        alpha = 1.0 if len(values) == 1 else float(np.clip(6 / len(values), 0.12, 0.7))
        ax.plot(across, drawn.T, color=color, linestyle=line, alpha=alpha, linewidth=1.5)
        handles.append(Line2D([], [], color=color, linestyle=line))
    if gap:
        ax.set_yscale("log")
    ax.grid(axis="y", color=style.GUIDE, alpha=0.3)
    style.legend(ax, handles, list(curves))
    return ax


def restarts(
    log_likelihoods: Mapping[str, npt.ArrayLike],
    ax: Axes | None = None,
    *,
    within: float | int = 0.1,
) -> Axes:
    """Draw the distribution of optima that restarts ended in, by method.

    Each dot is a restart, placed by its log-likelihood; the dashed line is the best of all. Below
    each name stands how many restarts came within ``within`` nats of it, and how many failed
    (those whose log-likelihood is not finite).

    Args:
      log_likelihoods: final log-likelihood of each restart by method, (R,).
      ax: where to draw.
      within: how close to the best counts as having found it, in nats.
    """
    groups = {name: np.asarray(v, np.float64).ravel() for name, v in log_likelihoods.items()}
    ax = style.prepare(ax, (6.5, 1.2 + 0.7 * len(groups)))
    finite = {name: values[np.isfinite(values)] for name, values in groups.items()}
    ax.set_xlabel("log-likelihood (nats)")
    if not any(values.size for values in finite.values()):
        return style.say(ax, "no restart gave a finite log-likelihood")
    best = max(float(values.max()) for values in finite.values() if values.size)
    notes = []
    for name, values in groups.items():
        found = int((finite[name] >= best - within).sum())
        failed = len(values) - len(finite[name])
        notes.append(f"{found} of {len(values)} best" + (f", {failed} failed" if failed else ""))
    _strips(ax, finite, notes)
    ax.axvline(best, color=style.INK, linestyle="--", linewidth=1, zorder=1)
    # Where all ended at one place, the axis still shows what counts as one.
    lowest = min(float(values.min()) for values in finite.values() if values.size)
    span = max(best - lowest, 10 * within)
    ax.set_xlim(best - 1.05 * span, best + 0.05 * span)
    return ax


def steps(
    n_steps: Mapping[str, npt.ArrayLike], ax: Axes | None = None, *, max_steps: int | None = None
) -> Axes:
    """Draw the distribution of the number of steps to convergence, by method.

    Each dot is a restart; below each name stands the median, and how many ran out of steps.

    Args:
      n_steps: steps taken by each restart by method, (R,).
      ax: where to draw; its horizontal axis becomes logarithmic if the numbers differ much.
      max_steps: the most a restart was allowed, drawn as a dashed line.
    """
    groups = {name: np.asarray(v, np.float64).ravel() for name, v in n_steps.items()}
    ax = style.prepare(ax, (6.5, 1.2 + 0.7 * len(groups)))
    ax.set_xlabel("steps")
    if not any(values.size for values in groups.values()):
        return style.say(ax, "no restarts")
    notes = []
    for values in groups.values():
        out = int((values >= max_steps).sum()) if max_steps is not None else 0
        middle = f"median {np.median(values):g}" if values.size else "none"
        notes.append(middle + (f", {out} ran out" if out else ""))
    _strips(ax, groups, notes)
    everything = np.concatenate(list(groups.values()))
    if everything.min() > 0 and everything.max() > 20 * everything.min():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    if max_steps is not None:
        ax.axvline(max_steps, color=style.INK, linestyle="--", linewidth=1, zorder=1)
    return ax


def _strips(ax: Axes, groups: Mapping[str, np.ndarray], notes: Sequence[str]) -> None:
    """A row of dots per group, spread vertically so that equal values remain countable."""
    for row, values in enumerate(groups.values()):
        color, marker, _ = style.look(row)
        # Multiples of the golden ratio fill the row evenly, and the same way each time.
        spread = 0.5 * ((np.arange(len(values)) * 0.6180339887) % 1 - 0.5)
        ax.scatter(
            np.sort(values),
            row + spread,
            s=style.marker_area(4 * len(values)) + 6,
            color=color,
            marker=marker,
            alpha=0.6,
            linewidths=0,
        )
    texts = [
        f"{style.plain(name, 24, 2)}\n{note}" for name, note in zip(groups, notes, strict=True)
    ]
    ax.set_yticks(range(len(texts)), texts, fontsize="small")
    ax.set_ylim(len(texts) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color=style.GUIDE, alpha=0.3)


def confusion(
    matrix: npt.ArrayLike, names: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a confusion matrix: counts, shaded by the share of the true class.

    Args:
      matrix: counts, (C, C), true classes in rows and predicted ones in columns.
      names: names of the C classes.
      ax: where to draw.

    A class without samples has an empty row. With more than 20 classes only the shading is drawn.

    Raises:
      ValueError: a matrix that is not square, or another number of names.
    """
    counts = np.asarray(matrix)
    n = len(counts)
    texts = (
        [str(k) for k in range(n)]
        if names is None
        else [style.plain(name, 16, 2) for name in names]
    )
    if counts.shape != (n, n) or len(texts) != n:
        raise ValueError(
            f"the matrix must be square with a name per class; it is {counts.shape}, "
            f"with {len(texts)} names."
        )
    ax = style.prepare(ax, (4.8, 4.4))
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros((n, n)), where=totals > 0)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(n, n) if n <= 20 else ():
        if counts[i, j]:
            ax.text(
                j,
                i,
                f"{counts[i, j]:g}" + (f"\n{100 * share[i, j]:.0f} %" if n <= 8 else ""),
                ha="center",
                va="center",
                fontsize="medium" if n <= 5 else "x-small",
                color="white" if share[i, j] > 0.65 else style.INK,
            )
    ax.set_xticks(range(n), texts, rotation=0 if n <= 4 else 90)
    ax.set_yticks(range(n), texts)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    return ax


def errors(
    n: Sequence[int] | npt.ArrayLike,
    by_parameter: Mapping[str, npt.ArrayLike],
    ax: Axes | None = None,
    *,
    ylabel: str = "error",
) -> Axes:
    """Draw estimation error against sample size, log-log, with a guide line ∝ 1/√N.

    An estimator that is efficient in the usual sense has errors parallel to the guide.

    Args:
      n: sample sizes, (S,).
      by_parameter: errors by name of the parameter, (S,), or (S, repetitions), drawn as the
        median and the band from the first to the third quartile. Zeros cannot be drawn.
      ax: where to draw.
      ylabel: name of the vertical axis.

    Raises:
      ValueError: another number of errors than of sample sizes.
    """
    sizes = np.asarray(n, np.float64)
    ax = style.prepare(ax)
    ax.set_xlabel("samples N")
    ax.set_ylabel(style.plain(ylabel))
    handles, levels = [], []
    for i, (name, values) in enumerate(by_parameter.items()):
        low, middle, high = _quartiles(np.asarray(values, np.float64), len(sizes), name)
        color, marker, line = style.look(i)
        handles += ax.plot(
            sizes, middle, color=color, marker=marker, linestyle=line, markersize=4.5
        )
        ax.fill_between(sizes, low, high, color=color, alpha=0.15, linewidth=0)
        levels.append(np.log(middle * np.sqrt(sizes)))
    known = np.concatenate(levels)[np.isfinite(np.concatenate(levels))] if levels else np.zeros(0)
    if not known.size:
        return style.say(ax, "no error above zero")
    guide = np.exp(known.mean()) / np.sqrt(sizes)  # through the middle of all errors
    handles += ax.plot(sizes, guide, ":", color=style.POINTS, zorder=1)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.grid(color=style.GUIDE, alpha=0.3)
    style.legend(ax, handles, [*by_parameter, "∝ 1/√N"])
    return ax


def _quartiles(values: np.ndarray, n_sizes: int, name: str) -> np.ndarray:
    """Quartiles of the finite errors at each sample size, (3, S); NaN where not above zero."""
    if len(values) != n_sizes:
        raise ValueError(f"{name!r} has {len(values)} errors for {n_sizes} sample sizes.")
    rows = [row[np.isfinite(row)] for row in values.reshape(n_sizes, -1)]
    empty = np.full(3, np.nan)
    found = [np.quantile(row, [0.25, 0.5, 0.75]) if row.size else empty for row in rows]
    return np.where(np.array(found) > 0, found, np.nan).T


def intervals(
    rows: Iterable[Mapping[str, Any]],
    ax: Axes | None = None,
    *,
    xlabel: str = "mean and 95 % interval",
    reference: float | int | None = None,
) -> Axes:
    """Draw means with their intervals, a line of the picture per scenario, a colour per method.

    Args:
      rows: mappings with ``scenario``, ``method``, ``mean``, ``low`` and ``high``, in the order
        to draw them. A mean that is not finite leaves its place empty.
      ax: where to draw.
      xlabel: name of the horizontal axis.
      reference: a value to mark with a dashed line, such as zero difference or the truth.

    Raises:
      ValueError: a row without one of the five values, or whose interval does not hold its mean.
    """
    entries = list(rows)
    scenarios = list(dict.fromkeys(str(_field(row, "scenario")) for row in entries))
    methods = list(dict.fromkeys(str(_field(row, "method")) for row in entries))
    ax = style.prepare(ax, (6.5, 1.2 + 0.35 * max(1, len(scenarios)) * (1 + 0.5 * len(methods))))
    for row in entries:
        mean, low, high = (float(_field(row, name)) for name in ("mean", "low", "high"))
        if not np.isfinite(mean):
            continue
        if not low <= mean <= high:
            raise ValueError(f"an interval must hold its mean: {dict(row)!r}")
        place = methods.index(str(row["method"]))
        color, marker, _ = style.look(place)
        height = scenarios.index(str(_field(row, "scenario"))) + 0.6 * (
            (place + 0.5) / len(methods) - 0.5
        )
        ax.errorbar(
            mean,
            height,
            xerr=[[mean - low], [high - mean]],
            color=color,
            marker=marker,
            markersize=5,
            capsize=2.5,
            linewidth=1.5,
        )
    if reference is not None:
        ax.axvline(reference, color=style.INK, linestyle="--", linewidth=1, zorder=1)
    ax.set_yticks(range(len(scenarios)), [style.plain(name, 28, 2) for name in scenarios])
    ax.set_ylim(len(scenarios) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(style.plain(xlabel, 60))
    ax.grid(axis="x", color=style.GUIDE, alpha=0.3)
    style.legend(ax, [style.dot(i) for i in range(len(methods))], methods)
    return ax
