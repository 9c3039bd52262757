"""The built-in study "classify": the Gaussian Bayes classifier under several covariance models.

Every model predicts each sample without having seen it, on the same folds; side by side stand what
a model costs in parameters and what it gains in accuracy.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from jgmm._core.errors import UserError
from jgmm.workbench.config.models import Amount, Count, Covariances, Fit, Strict, name_from_text
from jgmm.workbench.runs.memory import Problem
from jgmm.workbench.studies.context import StudyContext

if TYPE_CHECKING:
    from jgmm.classifier.evaluation import CrossValidation
    from jgmm.classifier.model import Classifier
    from jgmm.workbench.readers.datasets import Dataset

MAX_PANELS = 9
MAX_PREDICTIONS = 100_000


class Settings(Strict):
    """Which classifiers to compare, and how."""

    covariance: Covariances = Field(default=["full", "diag", "spherical", "tied", "EEI", "EII"])
    """Covariance models; of these the last three have one covariance for all classes."""
    n_components: Count = 1
    """Gaussians per class; more than one makes every class a mixture."""
    n_folds: Annotated[int, Field(ge=2)] = 10
    """Folds of the cross-validation."""
    n_restarts: Count = 16
    """Starts per class, for mixtures."""
    ridge: Amount = 0.0
    """Added to each variance, relative to that of the data."""


@dataclass(frozen=True)
class Trial:
    """What became of one covariance model."""

    covariance: str
    trained: "Classifier"
    judged: "CrossValidation"
    n_parameters: int

    @property
    def accuracy(self) -> float:
        """Share of the samples predicted right unseen."""
        return float(self.judged.accuracy)


def run(run: StudyContext) -> None:
    """Compare the classifiers, and show the best one."""
    data, labels = _data(run)
    trials, failures = _compare(run, data, labels)
    best = max(trials, key=lambda trial: (trial.accuracy, -trial.n_parameters))
    _headlines(run, data, best)
    rows = [_row(trial, data, labels) for trial in trials]
    run.table(
        "models",
        [*rows, *({"model": name, "status": "failed"} for name in failures)],
        f"Accuracy on samples not seen, mean and standard error over {run.settings.n_folds} folds "
        "that are the same for every model, beside the accuracy on the samples seen.",
    )
    if len(trials) > 1:
        run.note(
            f"{best.covariance} was chosen as the best of {len(trials)} on the same folds that "
            "judge it, so its accuracy is a little too high; differences of about one standard "
            "error tell nothing."
        )
    for name, reason in failures.items():
        run.note(f"{name} failed: {reason}")
    _show_classes(run, data, best)
    _show_confusion(run, data, labels, best)
    _write_predictions(run, data, labels, best)
    if data.x.shape[1] == 2:
        _show_regions(run, data, labels, trials)


def _data(run: StudyContext) -> "tuple[Dataset, np.ndarray]":
    """The samples, and the class of each as text."""
    if run.config.fit != Fit():
        raise UserError('the study "classify" is set up in [settings], not in [fit]; move it there')
    data = run.data
    if data is None or data.labels is None or data.label_names is None:
        raise UserError(
            'the study "classify" learns from labelled samples: add a table [data] with '
            'source = "autompg" or a file, and label = "origin" or another column of classes'
        )
    return data, np.asarray(data.label_names)[data.labels]


def _compare(
    run: StudyContext, data: "Dataset", labels: np.ndarray
) -> tuple[list[Trial], dict[str, str]]:
    """Fit and judge every model; those that fail are named with the reason, unless all do."""
    from jgmm._core.errors import DataError, FitError
    from jgmm.classifier import evaluation, model
    from jgmm.classifier.fit import fit

    chosen: Settings = run.settings
    options: dict[str, Any] = chosen.model_dump(include={"n_components", "n_restarts", "ridge"})
    options["sample_weight"] = data.weights
    run.foresee(
        Problem(
            n_samples=len(data.x),
            n_features=data.x.shape[1],
            n_components=min(max(chosen.n_components, len(set(labels))), len(data.x)),
            covariance=tuple(chosen.covariance),
            n_restarts=chosen.n_restarts if chosen.n_components > 1 else 1,
            max_steps=1000,  # the default of the library
            n_fits=len(chosen.covariance),
            itemsize=np.dtype(run.config.precision).itemsize,
        ),
        "settings",
    )
    trials: list[Trial] = []
    failures: dict[str, DataError | FitError] = {}
    for name in chosen.covariance:
        try:
            trained = fit(data.x, labels, covariance=name, key=run.key, **options)
            judged = evaluation.cross_validate(
                run.key, data.x, labels, chosen.n_folds, covariance=name, **options
            )
        except (DataError, FitError) as error:
            failures[name] = error
        else:
            trials.append(Trial(name, trained, judged, model.n_parameters(trained)))
    if not trials:
        raise next(iter(failures.values()))
    return trials, {name: str(error) for name, error in failures.items()}


def _headlines(run: StudyContext, data: "Dataset", best: Trial) -> None:
    run.metric("accuracy", best.accuracy)
    run.metric("standard_error", best.judged.standard_error)
    run.metric("covariance", best.covariance)
    run.metric("parameters", best.n_parameters)
    run.metric("share_of_largest_class", best.trained.priors.max())
    run.metric("samples", len(data.x))


def _row(trial: Trial, data: "Dataset", labels: np.ndarray) -> dict[str, Any]:
    from jgmm.classifier import model

    right = model.predict_names(trial.trained, data.x) == labels
    return {
        "model": trial.covariance,
        "parameters": trial.n_parameters,
        "accuracy": trial.accuracy,
        "standard_error": float(trial.judged.standard_error),
        "accuracy_seen": float(np.average(right, weights=data.weights)),
        "status": "fitted",
    }


def _show_classes(run: StudyContext, data: "Dataset", best: Trial) -> None:
    """The prior and the density of each class."""
    from jgmm.classifier import model

    trained = best.trained
    names, priors = trained.class_names, trained.priors.tolist()
    rows = [{"class": name, "prior": prior} for name, prior in zip(names, priors, strict=True)]
    run.table("priors", rows, "Share of each class, its probability before x is known.")
    for c, name in enumerate(names):
        density = model.class_mixture(trained, c)
        run.mixture(f"class_{c}_{name_from_text(str(name))}", density, data.columns)


def _show_confusion(run: StudyContext, data: "Dataset", labels: np.ndarray, best: Trial) -> None:
    from jgmm import plot
    from jgmm.classifier import evaluation
    from jgmm.classifier.labels import class_indices

    names = [str(name) for name in best.judged.class_names]
    truth = class_indices(labels, best.judged.class_names)
    counts = evaluation.confusion_matrix(truth, best.judged.predicted, len(names), data.weights)
    matrix = np.asarray(counts)
    rows = [
        {"true class": name, **{f"as {guess}": n for guess, n in zip(names, row, strict=True)}}
        for name, row in zip(names, matrix.tolist(), strict=True)
    ]
    caption = f"Predictions of {best.covariance} for samples not seen: true classes in rows."
    run.table("confusion", rows, caption)
    side = 3 + 0.5 * len(names)
    figure, (ax,) = plot.new_figure(size=(min(side + 1, 10), min(side, 9)))
    plot.confusion(matrix, names, ax)
    run.figure("confusion", figure, caption)


def _write_predictions(run: StudyContext, data: "Dataset", labels: np.ndarray, best: Trial) -> None:
    """What was predicted for each sample unseen, and its posterior once all have been seen."""
    from jgmm.classifier import model

    if len(data.x) > MAX_PREDICTIONS:
        run.note(f"Predictions for more than {MAX_PREDICTIONS} samples are not written.")
        return
    names = best.trained.class_names
    posterior = np.asarray(model.posterior(best.trained, data.x)).tolist()
    rows = []
    for i, guess in enumerate(best.judged.predicted.tolist()):
        row = {"sample": i, "label": labels[i], "predicted": names[guess] if guess >= 0 else None}
        chances = zip(names, posterior[i], strict=True)
        rows.append({**row, **{f"posterior {name}": chance for name, chance in chances}})
    run.table("predictions", rows, show=False)


def _show_regions(
    run: StudyContext, data: "Dataset", labels: np.ndarray, trials: list[Trial]
) -> None:
    from jgmm import plot
    from jgmm.classifier import model
    from jgmm.classifier.labels import class_indices

    shown = trials[:MAX_PANELS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = plot.new_figure(rows, columns, size=(5 * columns, 3.7 * rows))
    for ax, trial in zip(axes, shown, strict=False):
        trained = trial.trained

        def predict(x: np.ndarray, trained: "Classifier" = trained) -> np.ndarray:
            return np.asarray(model.predict(trained, x))

        truth = np.asarray(class_indices(labels, trained.class_names))
        names = [str(name) for name in trained.class_names]
        plot.decision_regions(predict, data.x, truth, names, data.columns, ax)
        ax.set_title(f"{trial.covariance}: {100 * trial.accuracy:.1f} %", loc="left")
    for ax in axes[len(shown) :]:
        ax.remove()
    caption = "Where each class is the most probable, with the accuracy on samples not seen."
    if len(shown) < len(trials):
        caption += f" The first {len(shown)} of {len(trials)} models are drawn."
    run.figure("regions", figure, caption)
