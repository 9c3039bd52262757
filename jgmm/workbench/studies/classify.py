"""The built-in study "classify": compare covariance models of the Gaussian Bayes classifier.

The models are compared by cross-validation on the same folds: every sample is predicted by a
classifier that was trained without it. A table shows the number of parameters and the accuracy of
each model.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from jgmm._core.errors import UserError
from jgmm.workbench.config.models import (
    Amount,
    Count,
    Covariances,
    Fit,
    Fitting,
    name_from_text,
)
from jgmm.workbench.config.names import NameIn, accelerations, covariances_for
from jgmm.workbench.runs.memory import Problem
from jgmm.workbench.studies.context import StudyContext

if TYPE_CHECKING:
    from jgmm.classifier.evaluation import CrossValidation
    from jgmm.classifier.model import Classifier
    from jgmm.workbench.readers.datasets import Dataset

MAX_PANELS = 9
MAX_PREDICTIONS = 100_000


class Settings(Fitting):
    """Which classifiers to compare, and how; the options of fits are those of mixtures."""

    covariance: Covariances = Field(default=["full", "diag", "spherical", "tied", "EEI", "EII"])
    """Covariance models; "tied", "EEI" and "EII" have one covariance for all classes."""
    n_components: Count | Annotated[list[Count], Field(min_length=2)] = 1
    """Gaussians per class, or a list with one number a class, in the order of their names; with
    more than one every class is a mixture."""
    shared: bool = False
    """Pool one covariance of the given form over all classes; with one Gaussian per class."""
    priors: Annotated[list[Amount], Field(min_length=2)] | None = None
    """Prior probability of each class, in the order of their names; default: as in the data."""
    n_folds: Annotated[int, Field(ge=2)] = 10
    """Folds of the cross-validation."""
    accelerate: Annotated[str, NameIn("acceleration", accelerations)] = "none"
    """Acceleration scheme, which extrapolates the steps of EM; "none": plain EM."""


@dataclass(frozen=True)
class Trial:
    """The results of one covariance model.

    Attributes:
      covariance: the name of the model.
      classifier: trained on all samples.
      cross_validation: the predictions for samples that were not in training.
      n_parameters: the number of free parameters.
    """

    covariance: str
    classifier: "Classifier"
    cross_validation: "CrossValidation"
    n_parameters: int

    @property
    def accuracy(self) -> float:
        """Cross-validated accuracy: the fraction of samples that are predicted correctly."""
        return float(self.cross_validation.accuracy)


def run(study: StudyContext) -> None:
    """Compare the classifiers, and show the best one."""
    data, labels = _data(study)
    trials, failures = _compare(study, data, labels)
    best = max(trials, key=lambda trial: (trial.accuracy, -trial.n_parameters))
    _headlines(study, data, best)
    rows = [_row(trial, data, labels) for trial in trials]
    study.table(
        "models",
        [*rows, *({"model": name, "status": "failed"} for name in failures)],
        f"Cross-validated accuracy, mean and standard error over {study.settings.n_folds} folds "
        "that are the same for every model, and the accuracy on the training samples.",
    )
    if len(trials) > 1:
        study.note(
            f"{best.covariance} was chosen as the best of {len(trials)} models by the accuracy "
            "reported here, which is therefore a little too high; differences of about one "
            "standard error are not significant."
        )
    for name, reason in failures.items():
        study.note(f"{name} failed: {reason}")
    _show_classes(study, data, best)
    _show_confusion(study, data, labels, best)
    _write_predictions(study, data, labels, best)
    if data.x.shape[1] == 2:
        _show_regions(study, data, labels, trials)


def _data(study: StudyContext) -> "tuple[Dataset, np.ndarray]":
    """Return the data set, and the class of each sample as text."""
    if study.config.fit != Fit():
        raise UserError('the study "classify" is set up in [settings], not in [fit]; move it there')
    data = study.data
    if data is not None and data.known is not None:
        raise UserError('"data.known" is for mixtures; the study "classify" takes "data.label"')
    if data is None or data.labels is None or data.label_names is None:
        raise UserError(
            'the study "classify" learns from labelled samples: add a table [data] with '
            'source = "autompg" or a file, and label = "origin" or another column of classes'
        )
    return data, np.asarray(data.label_names)[data.labels]


def _compare(
    study: StudyContext, data: "Dataset", labels: np.ndarray
) -> tuple[list[Trial], dict[str, str]]:
    """Train and cross-validate every model.

    Returns:
      The results, and the reason of each model that failed.

    Raises:
      DataError, FitError: all models failed; it is the error of the first.
    """
    from jgmm._core.errors import DataError, FitError
    from jgmm.classifier import evaluation, model
    from jgmm.classifier.fit import fit

    settings: Settings = study.settings
    options = settings.options()
    options |= settings.model_dump(include={"n_components", "shared", "priors"})
    options["sample_weight"] = data.weights
    models, n_most = covariances_for(settings.covariance, data.x.shape[1]), _most(settings)
    study.check_memory(
        Problem(
            n_samples=len(data.x),
            n_features=data.x.shape[1],
            n_components=min(max(n_most, len(set(labels))), len(data.x)),
            covariance=tuple(models),
            n_restarts=settings.n_restarts if n_most > 1 else 1,
            max_steps=settings.max_steps,
            n_fits=len(models),
            itemsize=np.dtype(study.config.precision).itemsize,
        ),
        "settings",
    )
    trials: list[Trial] = []
    failures: dict[str, DataError | FitError] = {}
    for name in models:
        try:
            trained = fit(data.x, labels, covariance=name, key=study.key, **options)
            cross_validation = evaluation.cross_validate(
                study.key, data.x, labels, settings.n_folds, covariance=name, **options
            )
        except (DataError, FitError) as error:
            failures[name] = error
        else:
            trials.append(Trial(name, trained, cross_validation, model.n_parameters(trained)))
    if not trials:
        raise next(iter(failures.values()))
    return trials, {name: str(error) for name, error in failures.items()}


def _most(settings: Settings) -> int:
    """Return the largest number of Gaussians of a class."""
    counts = settings.n_components
    return max(counts) if isinstance(counts, list) else counts


def _headlines(study: StudyContext, data: "Dataset", best: Trial) -> None:
    study.metric("accuracy", best.accuracy)
    study.metric("standard_error", best.cross_validation.standard_error)
    study.metric("covariance", best.covariance)
    study.metric("parameters", best.n_parameters)
    study.metric("share_of_largest_class", best.classifier.priors.max())
    study.metric("samples", len(data.x))


def _row(trial: Trial, data: "Dataset", labels: np.ndarray) -> dict[str, Any]:
    from jgmm.classifier import model

    right = model.predict_names(trial.classifier, data.x) == labels
    return {
        "model": trial.covariance,
        "parameters": trial.n_parameters,
        "accuracy": trial.accuracy,
        "standard_error": float(trial.cross_validation.standard_error),
        "training_accuracy": float(np.average(right, weights=data.weights)),
        "status": "fitted",
    }


def _show_classes(study: StudyContext, data: "Dataset", best: Trial) -> None:
    """Show the prior probability and the density of each class."""
    from jgmm.classifier import model

    trained = best.classifier
    names, priors = trained.class_names, trained.priors.tolist()
    rows = [{"class": name, "prior": prior} for name, prior in zip(names, priors, strict=True)]
    study.table("priors", rows, "Prior probability of each class.")
    for c, name in enumerate(names):
        density = model.class_mixture(trained, c)
        study.mixture(f"class_{c}_{name_from_text(str(name))}", density, data.columns)


def _show_confusion(study: StudyContext, data: "Dataset", labels: np.ndarray, best: Trial) -> None:
    from jgmm import plot
    from jgmm.classifier import evaluation
    from jgmm.classifier.labels import class_indices

    names = [str(name) for name in best.cross_validation.class_names]
    truth = class_indices(labels, best.cross_validation.class_names)
    counts = evaluation.confusion_matrix(
        truth, best.cross_validation.predicted, len(names), data.weights
    )
    matrix = np.asarray(counts)
    rows = [
        {"true class": name, **{f"as {guess}": n for guess, n in zip(names, row, strict=True)}}
        for name, row in zip(names, matrix.tolist(), strict=True)
    ]
    caption = f"Cross-validated predictions of {best.covariance}: true classes in rows."
    study.table("confusion", rows, caption)
    side = 3 + 0.5 * len(names)
    figure, (ax,) = plot.new_figure(size=(min(side + 1, 10), min(side, 9)))
    plot.confusion(matrix, names, ax)
    study.figure("confusion", figure, caption)


def _write_predictions(
    study: StudyContext, data: "Dataset", labels: np.ndarray, best: Trial
) -> None:
    """Write the cross-validated prediction and the posterior probabilities of each sample.

    The posterior probabilities are those of the classifier trained on all samples.
    """
    from jgmm.classifier import model

    if len(data.x) > MAX_PREDICTIONS:
        study.note(f"Predictions for more than {MAX_PREDICTIONS} samples are not written.")
        return
    names = best.classifier.class_names
    posterior = np.asarray(model.posterior(best.classifier, data.x)).tolist()
    rows = []
    for i, guess in enumerate(best.cross_validation.predicted.tolist()):
        row: dict[str, Any] = {"sample": i, **data.id_of(i), "label": labels[i]}
        row["predicted"] = names[guess] if guess >= 0 else None
        probabilities = zip(names, posterior[i], strict=True)
        rows.append({**row, **{f"posterior {name}": p for name, p in probabilities}})
    study.table("predictions", rows, show=False)


def _show_regions(
    study: StudyContext, data: "Dataset", labels: np.ndarray, trials: list[Trial]
) -> None:
    from jgmm import plot
    from jgmm.classifier import model
    from jgmm.classifier.labels import class_indices

    shown = trials[:MAX_PANELS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = plot.new_figure(rows, columns, size=(5 * columns, 3.7 * rows))
    for ax, trial in zip(axes, shown, strict=False):
        trained = trial.classifier

        def predict(x: np.ndarray, trained: "Classifier" = trained) -> np.ndarray:
            return np.asarray(model.predict(trained, x))

        truth = np.asarray(class_indices(labels, trained.class_names))
        names = [str(name) for name in trained.class_names]
        plot.decision_regions(predict, data.x, truth, names, data.columns, ax)
        ax.set_title(f"{trial.covariance}: {100 * trial.accuracy:.1f} %", loc="left")
    for ax in axes[len(shown) :]:
        ax.remove()
    caption = "Where each class is the most probable, with the cross-validated accuracy."
    if len(shown) < len(trials):
        caption += f" The first {len(shown)} of {len(trials)} models are drawn."
    study.figure("regions", figure, caption)
