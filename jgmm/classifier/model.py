"""The Gaussian Bayes classifier: each class has a prior, and a Gaussian or a mixture as density.

``P(y = c | x) = P(y = c) p(x | y = c) / Σ_c' P(y = c') p(x | y = c')``. With one Gaussian per class
the fit is the M-step of EM with the labels as responsibilities, so every covariance model works:
``full`` is quadratic discriminant analysis, ``tied`` is linear discriminant analysis, and ``diag``
is Gaussian naive Bayes.
References: Bishop (2006), section 4.2; for mixtures Hastie & Tibshirani (1996).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf, is_traced
from jgmm._data.validation import as_table, check_values
from jgmm.classifier.labels import Name
from jgmm.mixture.density import log_prob as mixture_log_prob
from jgmm.mixture.density import normalise
from jgmm.mixture.mixture import Mixture, farthest


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Classifier:
    """A Gaussian Bayes classifier: prior and density of each of C classes.

    Attributes:
      log_priors: log P(y = c), (C,).
      mixtures: p(x | y = c), with a leading axis of classes on every leaf; classes with fewer
        components than others are padded with components of weight zero.
      class_names: names of the classes, in increasing order (static).
      n_components: number of components of each class, without padding (static).
    """

    log_priors: Leaf
    mixtures: Mixture
    class_names: tuple[Name, ...] = field(metadata={"static": True})
    n_components: tuple[int, ...] = field(metadata={"static": True})

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def priors(self) -> Array:
        """P(y = c), (C,)."""
        return jnp.exp(self.log_priors)


def _samples_for(classifier: Classifier, x: Any) -> Array:
    samples = as_table(x, "x")
    d = classifier.mixtures.n_features
    if samples.shape[1] != d:
        raise DataError(f"x has {samples.shape[1]} columns; the classifier was made for {d}.")
    limit = None if is_traced(classifier) else farthest(classifier.mixtures)
    check_values(samples, x, "x", None, limit)
    return samples.astype(classifier.log_priors.dtype)


@jit
def _log_joint(classifier: Classifier, x: Array) -> Array:
    log_probs = jax.vmap(mixture_log_prob, in_axes=(0, None))(classifier.mixtures, x)
    return (classifier.log_priors[:, None] + log_probs).T


@jit
def _normalise(joint: Array) -> tuple[Array, Array]:
    return jax.vmap(normalise)(joint)


def log_joint(classifier: Classifier, x: Any) -> Float[Array, "N C"]:
    """Compute the log joint density ``log P(y = c) + log p(x | y = c)``, in nats.

    Decisions depend on these numbers only.

    Args:
      classifier: C classes in D dimensions.
      x: samples in rows, (N, D).

    Raises:
      DataError: bad samples, or another number of columns than the classifier was made for.

    >>> import jgmm
    >>> trained = jgmm.classifier.fit([[0.0], [1.0], [3.0], [4.0]], [False, False, True, True])
    >>> log_joint(trained, [[2.0]]).shape
    (1, 2)
    """
    return _log_joint(classifier, _samples_for(classifier, x))


def log_prob(classifier: Classifier, x: Any) -> Float[Array, "N"]:
    """Compute the log density of samples of any class, ``log Σ_c P(y = c) p(x | y = c)``, in nats.

    >>> import jgmm
    >>> trained = jgmm.classifier.fit([[0.0], [1.0], [3.0], [4.0]], [False, False, True, True])
    >>> left, right = log_prob(trained, [[1.0], [3.0]]).tolist()
    >>> abs(left - right) < 1e-6
    True
    """
    return _normalise(log_joint(classifier, x))[0]


def posterior(classifier: Classifier, x: Any) -> Float[Array, "N C"]:
    """Compute the posterior probability of each class, ``P(y = c | x)``, by Bayes' rule.

    Rows sum to one. Columns are in the order of ``class_names``. A class of prior zero gets exactly
    zero.

    >>> import jgmm
    >>> trained = jgmm.classifier.fit([[0.0], [1.0], [3.0], [4.0]], [False, False, True, True])
    >>> posterior(trained, [[2.0]]).tolist()
    [[0.5, 0.5]]
    """
    return jnp.exp(_normalise(log_joint(classifier, x))[1])


def predict(classifier: Classifier, x: Any) -> Int[Array, "N"]:
    """Return the most probable class of each sample, (N,), as an index into ``class_names``.

    >>> import jgmm
    >>> trained = jgmm.classifier.fit([[0.0], [1.0], [3.0], [4.0]], ["a", "a", "b", "b"])
    >>> predict(trained, [[0.5], [3.5]]).tolist()
    [0, 1]
    """
    return jnp.argmax(log_joint(classifier, x), axis=1)


def predict_names(classifier: Classifier, x: Any) -> np.ndarray:
    """Return the name of the most probable class of each sample, (N,), a NumPy array.

    >>> import jgmm
    >>> trained = jgmm.classifier.fit([[0.0], [1.0], [3.0], [4.0]], ["a", "a", "b", "b"])
    >>> predict_names(trained, [[0.5], [3.5]]).tolist()
    ['a', 'b']
    """
    return np.asarray(classifier.class_names)[np.asarray(predict(classifier, x))]


def class_mixture(classifier: Classifier, c: int) -> Mixture:
    """Return the density of one class, ``p(x | y = c)``, as a mixture without padding.

    Args:
      classifier: C classes.
      c: index of the class in ``class_names``.

    >>> import jgmm
    >>> trained = jgmm.classifier.fit([[0.0], [1.0], [3.0], [4.0]], ["a", "a", "b", "b"])
    >>> class_mixture(trained, 1).means.tolist()
    [[3.5]]
    """
    k = classifier.n_components[c]
    own = jax.tree.map(lambda leaf: leaf[c], classifier.mixtures)
    scale = own.scale if own.model.shared else own.scale[:k]
    return Mixture(own.log_weights[:k], own.means[:k], scale, own.covariance)


def n_parameters(classifier: Classifier) -> int:
    """Return the number of free parameters: C - 1 priors, given or not, and those of the densities.

    >>> import jgmm
    >>> x, y = [[0.0], [1.0], [3.0], [5.0]], [0, 0, 1, 1]
    >>> [n_parameters(jgmm.classifier.fit(x, y, shared=shared)) for shared in (False, True)]
    [5, 4]
    """
    entry, d = classifier.mixtures.model, classifier.mixtures.n_features
    if max(classifier.n_components) == 1:
        return entry.n_parameters(classifier.n_classes, d)
    return classifier.n_classes - 1 + sum(entry.n_parameters(k, d) for k in classifier.n_components)
