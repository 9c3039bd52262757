"""The kinds of saved results: how each becomes arrays and plain values, and is made of them again.

What is read is checked against the rules that every result of that kind obeys: shapes that fit each
other, weights that sum to one, covariances that are positive definite, statuses that exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgmm._core.status import Status
from jgmm._saving.contents import (
    Contents,
    Damaged,
    check,
    leaves_of,
    plain_number,
    prefixed,
)
from jgmm.classifier.model import Classifier, class_mixture
from jgmm.covariance.models import model
from jgmm.fitting.results import FitResult, Restarts
from jgmm.mixture.mixture import Mixture, check_single
from jgmm.mixture.noise import Noise
from jgmm.selection.criteria import CRITERIA
from jgmm.selection.selection import Row, Selection

Arrays = dict[str, np.ndarray]
Result = Mixture | FitResult | Selection | Classifier

_PARAMETERS = ("log_weights", "means", "scale")
_ENDS = ("log_likelihood", "status", "n_steps", "collapsed")


@dataclass(frozen=True)
class Kind:
    """A kind of result.

    Attributes:
      type: its class.
      split: returns its arrays, and its structure as plain values.
      build: makes it again, or raises ``Damaged``.
      n_features: returns D.
    """

    type: type
    split: Callable[[Any], tuple[Arrays, dict[str, Any]]]
    build: Callable[[Contents], Result]
    n_features: Callable[[Any], int]


# Mixtures


def _split_mixture(mixture: Mixture) -> tuple[Arrays, dict[str, Any]]:
    check_single(mixture)
    return leaves_of(mixture, _PARAMETERS), {"covariance": mixture.covariance}


def _build_mixture(contents: Contents, usable: bool = True) -> Mixture:
    """Make a mixture; one that is the end of a failed fit has the right shapes, and any numbers."""
    means = contents.array("means", 2)
    name, log_weights, scale = _check_shapes(contents, means.shape)
    if usable:
        _check_parameters(log_weights, means, scale)
    return Mixture(jnp.asarray(log_weights), jnp.asarray(means), jnp.asarray(scale), name)


def _check_shapes(
    contents: Contents, shape: tuple[int, ...], leading: tuple[int, ...] = ()
) -> tuple[str, np.ndarray, np.ndarray]:
    """Check the shapes and types of parameters; return the model's name, log weights and scales."""
    try:
        entry = model(str(contents.value("covariance", str)))
    except ValueError as error:
        raise Damaged(str(error)) from None
    k, d = shape[-2:]
    # Only the shape is computed: with a damaged D the array could be larger than the memory.
    own = jax.eval_shape(lambda: entry.storage.identity(d, np.float32)).shape[1:]
    log_weights = contents.floats("log_weights", (*leading, k))
    expected = (*leading, 1 if entry.shared else k, *own)
    scale = contents.array("scale", len(expected))
    if scale.shape != expected:
        raise Damaged(f"scale has shape {scale.shape}; {entry.name} needs {expected}")
    dtypes = {str(each.dtype) for each in (log_weights, contents.arrays["means"], scale)}
    check(dtypes in ({"float32"}, {"float64"}), f"the arrays have types {sorted(dtypes)}")
    return entry.name, log_weights, scale


def _check_parameters(log_weights: np.ndarray, means: np.ndarray, scale: np.ndarray) -> None:
    """Check the numbers of one mixture."""
    # float32 weights add up to one within 1e-6 K. A comparison with NaN is false.
    is_distribution = (log_weights <= 1e-4).all() and abs(np.exp(log_weights).sum() - 1) < 1e-4
    check(is_distribution, "weights that do not sum to one")
    finite = np.isfinite(means).all() and np.isfinite(scale).all()
    check(finite, "means or covariances that are not finite")
    factors = scale if scale.ndim < 3 else np.diagonal(scale, axis1=1, axis2=2)
    positive = (factors > 0).all() and not (scale.ndim == 3 and np.triu(scale, 1).any())
    check(positive, "factors of covariances that are not positive")


# Results of a fit


def _split_fit(result: FitResult) -> tuple[Arrays, dict[str, Any]]:
    mixture, structure = _split_mixture(result.mixture)
    arrays = prefixed("mixture.", mixture)
    arrays |= leaves_of(result, (*_ENDS, "log_prior", "history"))
    if result.restarts is not None:
        arrays |= prefixed("restarts.", leaves_of(result.restarts, (*_ENDS, "best")))
    if result.noise is not None:
        arrays |= prefixed("noise.", leaves_of(result.noise, ("log_weight", "log_volume")))
    return arrays, structure


def _build_fit(contents: Contents) -> FitResult:
    status = contents.statuses("status", ())
    usable = Status(int(status)).is_usable
    mixture = _build_mixture(contents.inside("mixture."), usable)
    ends = _ends(contents, (), mixture.n_components)
    history = contents.array("history", 1)
    return FitResult(
        mixture=mixture,
        log_prior=jnp.asarray(contents.floats("log_prior", ())),
        history=jnp.asarray(contents.floats("history", history.shape)),
        restarts=_build_restarts(contents.inside("restarts."), mixture.n_components),
        noise=_build_noise(contents.inside("noise."), usable),
        **ends,
    )


def _ends(contents: Contents, shape: tuple[int, ...], n_components: int) -> dict[str, Any]:
    found = {
        "log_likelihood": contents.floats("log_likelihood", shape),
        "status": contents.statuses("status", shape),
        "n_steps": contents.counts("n_steps", shape, 0, 1 << 31),
        "collapsed": contents.counts("collapsed", shape, -1, n_components),
    }
    return {name: jnp.asarray(array) for name, array in found.items()}


def _build_restarts(contents: Contents, n_components: int) -> Restarts | None:
    if not contents.arrays:
        return None
    n_restarts = len(contents.array("status", 1))
    best = contents.counts("best", (), 0, n_restarts)
    ends = _ends(contents, (n_restarts,), n_components)
    return Restarts(**ends, best=jnp.asarray(best))


def _build_noise(contents: Contents, usable: bool) -> Noise | None:
    if not contents.arrays:
        return None
    weight, volume = (contents.floats(name, ()) for name in ("log_weight", "log_volume"))
    if usable:
        check(weight <= 0 and np.isfinite(volume), "noise without a weight or a volume")
    return Noise(jnp.asarray(weight), jnp.asarray(volume))


# Selections


def _split_selection(selection: Selection) -> tuple[Arrays, dict[str, Any]]:
    arrays: Arrays = {}
    fits = []
    for i, ((k, name), result) in enumerate(selection.results.items()):
        own, structure = _split_fit(result)
        arrays |= prefixed(f"results.{i}.", own)
        fits.append({"n_components": k, "model": name, **structure})
    return arrays, {
        "criterion": selection.criterion,
        "agreement": plain_number(selection.agreement),
        "best": next(i for i, row in enumerate(selection.table) if row is selection.best),
        "table": [_plain_row(row) for row in selection.table],
        "results": fits,
    }


def _plain_row(row: Row) -> dict[str, Any]:
    criteria = {name: plain_number(value) for name, value in row.criteria.items()}
    return vars(row) | {"log_likelihood": plain_number(row.log_likelihood), "criteria": criteria}


def _build_selection(contents: Contents) -> Selection:
    criterion = contents.value("criterion", str)
    table = [_build_row(each, criterion) for each in contents.parts("table")]
    results = {}
    for i, each in enumerate(contents.parts("results")):
        key = (each.count("n_components", 1), each.value("model", str))
        results[key] = _build_fit(each.inside(f"results.{i}."))
        check(results[key].mixture.n_components == key[0], f"fit {i} has another K")
    n_features = {result.mixture.n_features for result in results.values()}
    check(len(n_features) == 1, "its fits have different numbers of columns")
    rows = [(row.n_components, row.covariance) for row in table]
    check(sorted(rows) == sorted(results), "its table and its fits are not of the same models")
    index = contents.count("best")
    check(index < len(table), "the row that is the best is not in the table")
    best, agreement = table[index], contents.number("agreement")
    return Selection(table, criterion, best, results[rows[index]], results, agreement)


def _build_row(contents: Contents, criterion: str) -> Row:
    values = contents.value("criteria", dict)
    check(criterion in values, f"a row without {criterion}")
    unknown = sorted(set(values) - set(CRITERIA))
    check(not unknown, f"criteria that are not known here: {', '.join(unknown)}")
    status = contents.value("status", str)
    check(status in Status.__members__, f"a row with the status {status!r}")
    own = Contents({}, values)
    return Row(
        n_components=contents.count("n_components", 1),
        covariance=contents.value("covariance", str),
        n_parameters=contents.count("n_parameters"),
        log_likelihood=contents.number("log_likelihood"),
        criteria={name: own.number(name) for name in values},
        status=status,
        n_valid=contents.count("n_valid"),
        n_agree=contents.count("n_agree"),
    )


# Classifiers


def _split_classifier(classifier: Classifier) -> tuple[Arrays, dict[str, Any]]:
    arrays = prefixed("mixtures.", leaves_of(classifier.mixtures, _PARAMETERS))
    arrays |= leaves_of(classifier, ("log_priors",))
    return arrays, {
        "covariance": classifier.mixtures.covariance,
        "class_names": list(classifier.class_names),
        "n_components": list(classifier.n_components),
    }


def _build_classifier(contents: Contents) -> Classifier:
    names = contents.value("class_names", list)
    kinds = {type(name) for name in names}
    check(kinds in ({str}, {int}, {bool}), "the names of its classes are not of one kind")
    check(sorted(set(names)) == names, "the names of its classes are not in increasing order")
    inside = contents.inside("mixtures.")
    means = inside.array("means", 3)
    n_classes, most, _ = means.shape
    check(len(names) == n_classes, f"{len(names)} names of {n_classes} classes")
    sizes = contents.value("n_components", list)
    fit = len(sizes) == n_classes and all(type(k) is int and 1 <= k <= most for k in sizes)
    check(fit, "the numbers of components of its classes are not those of its mixtures")
    model_name, log_weights, scale = _check_shapes(inside, means.shape, (n_classes,))
    log_priors = contents.floats("log_priors", (n_classes,))
    is_distribution = (log_priors <= 1e-4).all() and abs(np.exp(log_priors).sum() - 1) < 1e-4
    check(is_distribution, "priors of classes that do not sum to one")
    leaves = (jnp.asarray(log_weights), jnp.asarray(means), jnp.asarray(scale))
    mixtures = Mixture(*leaves, covariance=model_name)
    made = Classifier(jnp.asarray(log_priors), mixtures, tuple(names), tuple(sizes))
    for c in range(n_classes):
        own = class_mixture(made, c)  # without padding
        _check_parameters(*(np.asarray(getattr(own, name)) for name in _PARAMETERS))
    return made


KINDS: Mapping[str, Kind] = {
    "mixture": Kind(Mixture, _split_mixture, _build_mixture, lambda each: each.n_features),
    "fit": Kind(FitResult, _split_fit, _build_fit, lambda each: each.mixture.n_features),
    "selection": Kind(
        Selection, _split_selection, _build_selection, lambda each: each.mixture.n_features
    ),
    "classifier": Kind(
        Classifier, _split_classifier, _build_classifier, lambda each: each.mixtures.n_features
    ),
}
