"""The built-in study "mixture": fit mixtures, choose K and the covariance model, and show the best.

``jgmm fit FILE`` runs it without a config file. The table `[fit]` of the config says what is
fitted; the settings here say how the result is shown.
"""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from jgmm._core.errors import UserError
from jgmm.selection.selection import Row
from jgmm.workbench.config.models import Strict
from jgmm.workbench.config.names import covariances_for
from jgmm.workbench.runs.memory import Problem
from jgmm.workbench.studies.context import StudyContext
from jgmm.workbench.studies.noise import fit_with_noise, probabilities

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from jgmm.mixture.mixture import Mixture
    from jgmm.selection.selection import Selection
    from jgmm.workbench.readers.datasets import Dataset

MAX_PANELS = 12
MAX_PAIRS = 4
BOOTSTRAP = 0x6273  # folded into the key, so that replicates and starts use different keys
PANEL_MASSES = (0.25, 0.5, 0.75, 0.95)
MAX_ASSIGNMENTS = 100_000


class Settings(Strict):
    """How the chosen mixture is shown."""

    certainty: Annotated[float, Field(gt=0, le=1)] = 0.9
    """A sample whose largest responsibility is below this is marked as doubtful."""
    n_bootstrap: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Replicates of the bootstrap, for standard errors and intervals of 95 %; 0: no bootstrap."""

    @field_validator("n_bootstrap")
    @classmethod
    def _several(cls, n: int) -> int:
        if n == 1:
            raise ValueError("must be 0, or at least 2: one refit says nothing about spread")
        return n


def run(study: StudyContext) -> None:
    """Fit every model of `[fit]`, keep the best by the criterion, and show it."""
    data = _data(study)
    if study.settings.n_bootstrap and (
        study.config.fit.noise is not None or data.known is not None
    ):
        raise UserError(
            '"settings.n_bootstrap" goes neither with "fit.noise" nor with "data.known"'
        )
    selection = select_mixture(study)
    mixture = selection.result.mixture
    responsibilities, noise = probabilities(selection.result, data.x)
    _headlines(study, data, selection, responsibilities)
    _notes(study, selection)
    study.table(
        "summary",
        table(selection),
        f"Every fit; the one with the best {selection.criterion} is chosen.",
    )
    study.restarts(selection.result)
    study.mixture("mixture", mixture, data.columns)
    _assignments(study, data, responsibilities, noise)
    _figures(study, data, selection, responsibilities)
    if study.settings.n_bootstrap:
        _uncertainty(study, data, mixture)


def _data(study: StudyContext) -> "Dataset":
    if study.data is None:
        raise UserError(
            'the study "mixture" fits data: add a table [data] with source = "faithful" or a file'
        )
    return study.data


def select_mixture(study: StudyContext) -> "Selection":
    """Fit every model of `[fit]`, and choose by the criterion."""
    import jgmm
    from jgmm.selection.grid import n_extra

    data, fit = _data(study), study.config.fit
    models = covariances_for(fit.covariance, data.x.shape[1])
    n_fits = len(fit.n_components) * len(models)
    study.check_memory(
        Problem(
            n_samples=len(data.x),
            n_features=data.x.shape[1],
            n_components=min(max(fit.n_components), len(data.x)),  # the fit refuses more
            covariance=tuple(models),
            n_restarts=fit.n_restarts + n_extra(fit.n_components, models, fit.init),
            max_steps=fit.max_steps,
            n_fits=n_fits,
            itemsize=np.dtype(study.config.precision).itemsize,
        )
    )
    with study.progress(n_fits * fit.max_steps, "fitting") as progress:
        if fit.noise is not None:
            return fit_with_noise(study, data, models, progress)
        return jgmm.select(
            study.key,
            data.x,
            fit.n_components,
            models,
            fit.criterion,
            n_folds=fit.n_folds,
            sample_weight=data.weights,
            labels=data.known,
            progress=progress,
            **fit.options(),
        )


def _headlines(
    study: StudyContext, data: "Dataset", selection: "Selection", responsibilities: np.ndarray
) -> None:
    from jgmm.selection.agreement import adjusted_rand_index

    best = selection.best
    study.metric("n_components", best.n_components)
    study.metric("covariance", best.covariance)
    study.metric("log_likelihood", best.log_likelihood)
    study.metric("bic", best.bic)
    if selection.criterion != "bic":
        study.metric(selection.criterion, best.criteria[selection.criterion])
    study.metric("status", best.status.lower())
    if selection.result.noise is not None:
        study.metric("noise_weight", selection.result.noise.weight)
    if data.labels is not None:
        found = responsibilities.argmax(axis=1)
        study.metric("adjusted_rand_index", adjusted_rand_index(data.labels, found))


def _notes(study: StudyContext, selection: "Selection") -> None:
    """Add notes on how far the numbers can be trusted."""
    from jgmm._core.status import Status, describe

    best, tried = selection.best, {row.n_components for row in selection.table}
    if Status[best.status] is not Status.CONVERGED:
        study.note(describe(Status[best.status]))
    if len(tried) > 1 and best.n_components == max(tried):
        study.note(
            f"The best number of components, {best.n_components}, is the largest that was tried: "
            "a larger one may be better still."
        )
    n_restarts = study.config.fit.n_restarts
    if n_restarts > 1 and best.n_agree == 1:
        study.note(
            f"Only one of {n_restarts} restarts reached the chosen log-likelihood, so a better "
            "one may exist: try more restarts."
        )
    if n_restarts > 1 and best.n_agree == 0:
        study.note(
            "No restart reached the chosen log-likelihood: it comes from a special case, fewer "
            "components or a simpler model, whose fit was carried on. Try more restarts."
        )
    failed = [row for row in selection.table if not Status[row.status].is_valid]
    if failed:
        names = ", ".join(f"{row.n_components} {row.covariance}" for row in failed)
        study.note(
            f"{len(failed)} of {len(selection.table)} fits failed in every restart and took no "
            f"part in the choice: {names}. The table says how."
        )


def table(selection: "Selection") -> list[dict[str, Any]]:
    """Return one row for each fit, with the chosen one marked."""
    return [_summary(row, row is selection.best) for row in selection.table]


def _summary(row: "Row", chosen: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "K": row.n_components,
        "model": row.covariance,
        "parameters": row.n_parameters,
        "log_likelihood": row.log_likelihood,
        "bic": row.bic,
        **row.criteria,
    }
    shown |= {"status": row.status.lower(), "valid": row.n_valid, "agree": row.n_agree}
    return {**shown, "chosen": "yes" if chosen else ""}


def _assignments(
    study: StudyContext, data: "Dataset", responsibilities: np.ndarray, noise: np.ndarray | None
) -> None:
    """Write hard and soft assignments, and compare them with the labels."""
    component, largest = responsibilities.argmax(axis=1), responsibilities.max(axis=1)
    names = _label_names(data)
    if len(data.x) <= MAX_ASSIGNMENTS:
        rows = []
        for i, shares in enumerate(responsibilities.tolist()):
            row: dict[str, Any] = {"sample": i, **data.id_of(i), "component": int(component[i])}
            row["doubtful"] = int(largest[i] < study.settings.certainty)
            if data.labels is not None:
                row["label"] = names[data.labels[i]]
            row |= {f"p{k}": p for k, p in enumerate(shares)}
            rows.append(row if noise is None else row | {"noise": float(noise[i])})
        study.table("assignments", rows, show=False)
    else:
        study.note(
            f"Assignments of more than {MAX_ASSIGNMENTS} samples are not written; "
            "jgmm.responsibilities computes them from mixture.safetensors."
        )
    doubtful = int((largest < study.settings.certainty).sum())
    study.metric("doubtful_samples", doubtful)
    if data.labels is not None:
        n_components = responsibilities.shape[1]
        counts = np.zeros((len(names), n_components), int)
        np.add.at(counts, (data.labels, component), 1)
        table = [
            {"label": name, **{f"component {k}": int(n) for k, n in enumerate(row)}}
            for name, row in zip(names, counts, strict=True)
        ]
        study.table("confusion", table, "Samples of each label by their most probable component.")


def _label_names(data: "Dataset") -> list[str]:
    return [] if data.label_names is None else data.label_names


def _figures(
    study: StudyContext, data: "Dataset", selection: "Selection", responsibilities: np.ndarray
) -> None:
    from jgmm import plot

    if len(selection.table) > 1:
        figure, (ax,) = plot.new_figure(size=(7, 4))
        plot.criterion_curves(selection.table, selection.criterion, ax, chosen=selection.best)
        study.figure("criterion", figure, "The criterion of every fit; the best one has a ring.")
    mixture, columns = selection.result.mixture, data.columns
    if mixture.n_features == 1:
        figure, (ax,) = plot.new_figure(size=(7, 4))
        plot.density_1d(mixture, data.x, ax, columns=columns)
        study.figure("density", figure, "Histogram, components and density of the chosen mixture.")
    else:
        _plane_figures(study, data, selection, responsibilities)
    _panels(study, data, selection)


def _plane_figures(
    study: StudyContext, data: "Dataset", selection: "Selection", responsibilities: np.ndarray
) -> None:
    from jgmm import plot

    mixture, columns = selection.result.mixture, data.columns
    if mixture.n_features == 2:
        figure, (ax,) = plot.new_figure(size=(7, 5.2))
        plot.density_contours(_padded(mixture, selection), data.x, ax, columns=columns)
        study.figure(
            "density", figure, "Joint density: regions that contain the given probability."
        )
    else:
        from matplotlib.figure import Figure

        shown = list(range(min(mixture.n_features, MAX_PAIRS)))
        figure = Figure(figsize=(2.4 * len(shown),) * 2, layout="constrained")
        labels = responsibilities.argmax(axis=1)
        plot.pairs(data.x, mixture, labels, columns, dims=shown, figure=figure)
        note = "" if len(shown) == mixture.n_features else f" (the first {len(shown)} columns)"
        study.figure("pairs", figure, f"Every pair of columns{note}, with ellipses of 95 %.")
    figure, (ax,) = plot.new_figure(size=(7, 5.2))
    certainty = study.settings.certainty
    plot.uncertainty(data.x, responsibilities, ax, threshold=certainty, columns=columns)
    study.figure(
        "uncertainty",
        figure,
        f"Most probable component; samples whose largest responsibility is below {certainty:g} "
        "have a ring.",
    )


def _uncertainty(study: StudyContext, data: "Dataset", mixture: "Mixture") -> None:
    """Write standard errors and intervals of the chosen mixture by the weighted bootstrap."""
    import jax
    from matplotlib.figure import Figure

    from jgmm import plot
    from jgmm.uncertainty.bootstrap import bootstrap
    from jgmm.uncertainty.intervals import OBSERVED

    refits = bootstrap(
        jax.random.fold_in(study.key, BOOTSTRAP),
        mixture,
        data.x,
        data.weights,
        n_replicates=study.settings.n_bootstrap,
        **study.config.fit.options("n_restarts", "init", "race"),
    )
    study.metric("refits_that_failed", refits.n_failed)
    uncertainty = refits.uncertainty()
    caption = f"Standard errors and intervals of 95 % by the {uncertainty.method}."
    study.table("uncertainty", uncertainty.rows(data.columns), f"{caption} {OBSERVED}")
    if mixture.n_components <= MAX_PANELS:
        height = 2 + 0.9 * mixture.n_components
        width = 2.4 * min(max(mixture.n_features, 2), plot.MAX_COLUMNS) + 1.2
        figure = Figure(figsize=(width, height), layout="constrained")
        plot.parameter_intervals({refits.method: uncertainty}, data.columns, figure=figure)
        study.figure("intervals", figure, caption)


def _panels(study: StudyContext, data: "Dataset", selection: "Selection") -> None:
    """Draw the best fit of every number of components, one panel each."""
    from jgmm import plot

    best = _best_by_count(selection)
    if len(best) < 2:
        return
    shown = best[:MAX_PANELS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = plot.new_figure(rows, columns, size=(4 * columns, 3.3 * rows))
    for ax, row in zip(axes, shown, strict=False):
        mixture = selection.results[row.n_components, row.covariance].mixture
        _panel(ax, data, _padded(mixture, selection))
        ax.set_title(f"K = {row.n_components}, {row.covariance}", loc="left")
    for ax in axes[len(shown) :]:
        ax.remove()
    caption = f"The best fit of each number of components, by {selection.criterion}."
    if len(shown) < len(best):
        caption += f" The first {len(shown)} of {len(best)} are drawn."
    study.figure("components", figure, caption)


def _padded(mixture: "Mixture", selection: "Selection") -> "Mixture":
    """Add components of weight zero up to the most: all pictures then share one program."""
    import jax

    from jgmm.selection.nested_starts import pad_components

    most = max(row.n_components for row in selection.table)
    return jax.device_put(pad_components(mixture, most))


def _panel(ax: "Axes", data: "Dataset", mixture: "Mixture") -> None:
    import jgmm
    from jgmm import plot

    if mixture.n_features == 1:
        plot.density_1d(mixture, data.x, ax, columns=data.columns, legend=False)
    elif mixture.n_features == 2:
        plot.density_contours(mixture, data.x, ax, PANEL_MASSES, columns=data.columns)
    else:
        labels = np.asarray(jgmm.predict(mixture, data.x))
        plot.scatter(data.x, labels, ax, columns=data.columns, legend=False)
        plot.ellipses(mixture, ax)


def _best_by_count(selection: "Selection") -> list["Row"]:
    """Return the best usable row of each number of components, fewest components first."""
    counts = sorted({row.n_components for row in selection.table})
    best = (
        selection.best_of(row for row in selection.table if row.n_components == k) for k in counts
    )
    return [row for row in best if row is not None]
