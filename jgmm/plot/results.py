"""Plots of fits: model selection, convergence, restarts and steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from jgmm.plot import style
from jgmm.selection.criteria import CRITERIA


def criterion_curves(
    table: Iterable[Any],
    criterion: str = "bic",
    ax: Axes | None = None,
    *,
    better: Literal["lower", "higher"] | None = None,
    chosen: Any = None,
) -> Axes:
    """Draw a selection criterion against the number of components, a line per covariance model.

    Args:
      table: rows, mappings or objects, with ``n_components``, ``covariance`` and the criterion. A
        value that is None or not finite belongs to a fit that failed, and leaves a gap.
      criterion: name of the criterion to draw.
      ax: where to draw.
      better: whether lower or higher values are better. It is known for the criteria of
        ``jgmm.selection.CRITERIA``, for icl_map (lower), and for names that contain "likelihood"
        (higher); for other names it must be given.
      chosen: the row to mark, such as ``Selection.best``; by default the first with the best value.

    Raises:
      ValueError: a row without one of the three values, or ``better`` missing.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> rows = [{"n_components": k, "covariance": "full", "bic": (k - 2.0) ** 2} for k in (1, 2, 3)]
    >>> ax = jgmm.plot.criterion_curves(rows, "bic", ax)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['full', 'best: full, 2']
    """
    rows = [(*_point(row), field_of(row, criterion)) for row in table]
    better = better or _better(criterion)
    ax = style.prepare_axes(ax)
    title = _title(criterion)
    ax.set_xlabel("components")
    ax.set_ylabel(f"{style.wrap_text(title)} ({better} is better)")
    finite = [(m, k, float(v)) for m, k, v in rows if v is not None and np.isfinite(v)]
    if not finite:
        return style.write_note(ax, f"no fit gave a finite {title}")
    handles, models = [], list(dict.fromkeys(model for model, _, _ in finite))
    for i, model in enumerate(models):
        value = {k: v for m, k, v in finite if m == model}
        tried = sorted({k for m, k, _ in rows if m == model})
        color, marker, line = style.component_style(i)
        handles += ax.plot(
            tried,
            [value.get(k, np.nan) for k in tried],
            color=color,
            marker=marker,
            linestyle=line,
            markersize=4.5,
        )
    best = (min if better == "lower" else max)(finite, key=lambda row: row[2])
    if chosen is not None:
        best = next(row for row in finite if row[:2] == _point(chosen))
    handles += ax.plot(
        best[1],
        best[2],
        "o",
        markersize=14,
        markerfacecolor="none",
        color=style.DARK,
        clip_on=False,
    )
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    ax.grid(axis="y", color=style.LIGHT_GREY, alpha=0.3)
    style.draw_legend(ax, handles, [*models, f"best: {best[0]}, {best[1]}"])
    return ax


def field_of(row: Any, name: str) -> Any:
    """Return a value of a row, which is a mapping or an object.

    Raises:
      ValueError: the row does not have it.
    """
    try:
        return row[name] if isinstance(row, Mapping) else getattr(row, name)
    except (KeyError, AttributeError):
        raise ValueError(f"a row has no {name!r}: {row!r}") from None


def _point(row: Any) -> tuple[str, int]:
    """Return the covariance model and the number of components of a row."""
    return str(field_of(row, "covariance")), int(field_of(row, "n_components"))


def _title(criterion: str) -> str:
    if criterion in CRITERIA:
        return CRITERIA[criterion].label
    return criterion.upper() if len(criterion) <= 4 else criterion.replace("_", " ")


def _better(criterion: str) -> Literal["lower", "higher"]:
    if criterion in CRITERIA:
        return "higher" if CRITERIA[criterion].higher_is_better else "lower"
    if criterion == "icl_map":  # a function of jgmm.selection, but no entry of its table
        return "lower"
    if "likelihood" in criterion:
        return "higher"
    raise ValueError(f"say whether a lower or a higher {criterion!r} is better: better='lower'.")


def convergence(
    histories: Mapping[str, npt.ArrayLike],
    ax: Axes | None = None,
    *,
    seconds: Mapping[str, npt.ArrayLike] | None = None,
    gap: bool = False,
) -> Axes:
    """Draw the log-likelihood against steps or seconds, for several methods or starts.

    Args:
      histories: log-likelihood after each step by label, (steps,) or (restarts, steps), padded
        with NaN as in ``FitResult.history``.
      ax: where to draw.
      seconds: values of the horizontal axis: the time of each step, (steps,) by label. Without it
        the axis counts steps.
      gap: draw the difference between the best of all values and each value, on a logarithmic
        axis, which shows the rate of convergence. The best value itself, with a gap of zero, cannot
        be drawn.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> jgmm.plot.convergence({"EM": [-3.0, -2.0, -1.9]}, ax).get_xlabel()
    'step'
    """
    ax = style.prepare_axes(ax)
    curves = {name: np.atleast_2d(np.asarray(h, np.float64)) for name, h in histories.items()}
    ax.set_xlabel("step" if seconds is None else "seconds")
    ax.set_ylabel("log-likelihood below the best (nats)" if gap else "log-likelihood (nats)")
    finite = [values[np.isfinite(values)] for values in curves.values()]
    if not any(values.size for values in finite):
        return style.write_note(ax, "no step gave a finite log-likelihood")
    best = max(float(values.max()) for values in finite if values.size)
    handles = []
    for i, (name, values) in enumerate(curves.items()):
        across = np.arange(values.shape[1]) if seconds is None else np.asarray(seconds[name])
        drawn = best - values if gap else values
        drawn = np.where(np.isfinite(drawn) & ((drawn > 0) | (not gap)), drawn, np.nan)
        color, _, line = style.component_style(i)
        alpha = 1.0 if len(values) == 1 else float(np.clip(6 / len(values), 0.12, 0.7))
        ax.plot(across, drawn.T, color=color, linestyle=line, alpha=alpha, linewidth=1.5)
        handles.append(Line2D([], [], color=color, linestyle=line))
    if gap:
        ax.set_yscale("log")
    ax.grid(axis="y", color=style.LIGHT_GREY, alpha=0.3)
    style.draw_legend(ax, handles, list(curves))
    return ax


def restarts(
    log_likelihoods: Mapping[str, npt.ArrayLike],
    ax: Axes | None = None,
    *,
    within: float | int = 0.1,
) -> Axes:
    """Draw the distribution of the final log-likelihoods of restarts, by method.

    Each dot is a restart; the dashed line is the best of all. The text below each name counts the
    restarts that ended at most ``within`` nats below the best, and those that failed (whose
    log-likelihood is not finite).

    Args:
      log_likelihoods: final log-likelihood of each restart by method, (R,).
      ax: where to draw.
      within: largest difference from the best, in nats, at which a restart counts as best.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> ax = jgmm.plot.restarts({"EM": [-10.0, -10.05, -12.0]}, ax)
    >>> ax.get_yticklabels()[0].get_text()
    'EM\\n2 of 3 best'
    """
    groups = {name: np.asarray(v, np.float64).ravel() for name, v in log_likelihoods.items()}
    ax = style.prepare_axes(ax, (6.5, 1.2 + 0.7 * len(groups)))
    finite = {name: values[np.isfinite(values)] for name, values in groups.items()}
    ax.set_xlabel("log-likelihood (nats)")
    if not any(values.size for values in finite.values()):
        return style.write_note(ax, "no restart gave a finite log-likelihood")
    best = max(float(values.max()) for values in finite.values() if values.size)
    notes = []
    for name, values in groups.items():
        n_best = int((finite[name] >= best - within).sum())
        failed = len(values) - len(finite[name])
        notes.append(f"{n_best} of {len(values)} best" + (f", {failed} failed" if failed else ""))
    _strips(ax, finite, notes)
    ax.axvline(best, color=style.DARK, linestyle="--", linewidth=1, zorder=1)
    # If all values are nearly equal, the axis still shows a range of 10 times ``within``.
    lowest = min(float(values.min()) for values in finite.values() if values.size)
    span = max(best - lowest, 10 * within)
    ax.set_xlim(best - 1.05 * span, best + 0.05 * span)
    return ax


def steps(
    n_steps: Mapping[str, npt.ArrayLike], ax: Axes | None = None, *, max_steps: int | None = None
) -> Axes:
    """Draw the distribution of the number of steps to convergence, by method.

    Each dot is a restart. The text below each name gives the median, and the number of restarts
    that ran out of steps.

    Args:
      n_steps: number of steps of each restart by method, (R,).
      ax: where to draw. Its horizontal axis becomes logarithmic if the numbers differ by more than
        a factor of 20.
      max_steps: largest number of steps that a restart was allowed, drawn as a dashed line.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> ax = jgmm.plot.steps({"EM": [8, 10, 12]}, ax)
    >>> ax.get_yticklabels()[0].get_text()
    'EM\\nmedian 10'
    """
    groups = {name: np.asarray(v, np.float64).ravel() for name, v in n_steps.items()}
    ax = style.prepare_axes(ax, (6.5, 1.2 + 0.7 * len(groups)))
    ax.set_xlabel("steps")
    if not any(values.size for values in groups.values()):
        return style.write_note(ax, "no restarts")
    notes = []
    for values in groups.values():
        n_out = int((values >= max_steps).sum()) if max_steps is not None else 0
        middle = f"median {np.median(values):g}" if values.size else "none"
        notes.append(middle + (f", {n_out} ran out" if n_out else ""))
    _strips(ax, groups, notes)
    everything = np.concatenate(list(groups.values()))
    if everything.min() > 0 and everything.max() > 20 * everything.min():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    if max_steps is not None:
        ax.axvline(max_steps, color=style.DARK, linestyle="--", linewidth=1, zorder=1)
    return ax


def _strips(ax: Axes, groups: Mapping[str, np.ndarray], notes: Sequence[str]) -> None:
    """Draw a row of dots per group, spread vertically so that equal values can be counted."""
    for row, values in enumerate(groups.values()):
        color, marker, _ = style.component_style(row)
        # Multiples of the golden ratio, modulo one, are evenly spread and not random.
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
        f"{style.wrap_text(name, 24, 2)}\n{note}" for name, note in zip(groups, notes, strict=True)
    ]
    ax.set_yticks(range(len(texts)), texts, fontsize="small")
    ax.set_ylim(len(texts) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color=style.LIGHT_GREY, alpha=0.3)
