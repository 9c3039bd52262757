"""Mixtures, samples and results that the tests of pictures draw, and how they look at a picture."""

import io

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np

from jgmm._core.status import Status
from jgmm.mixture.density import sample
from jgmm.mixture.mixture import make_mixture
from jgmm.selection.likelihood_ratio import RatioTest
from jgmm.uncertainty.bootstrap import Bootstrap
from jgmm.uncertainty.intervals import parameters_of

TWO = make_mixture([0.4, 0.6], [[2.0, 55.0], [4.3, 80.0]], [np.diag([0.1, 30.0])] * 2)
ONE = make_mixture([1.0], [[0.0, 0.0]], [np.eye(2)])
SWITCHED_OFF = make_mixture(
    [0.5, 0.0, 0.5], [[2.0, 55.0], [9.0, 9.0], [4.0, 80.0]], [np.eye(2)] * 3
)
COLLAPSED = make_mixture([0.3, 0.7], [[2.0, 55.0], [4.0, 80.0]], [np.eye(2) * 1e-12, np.eye(2)])
THREE_D = make_mixture(
    [0.5, 0.5], [[0.0, 5.0, -1.0], [3.0, 9.0, 1.0]], [np.diag([1.0, 2.0, 0.5])] * 2
)
X, LABELS = (np.asarray(part) for part in sample(jax.random.key(1), TWO, 120))
X3 = np.asarray(sample(jax.random.key(2), THREE_D, 80)[0])
ROWS = [
    {"n_components": k, "covariance": c, "bic": 100.0 + 5 * (k - 3) ** 2 + (c == "tied")}
    for c in ("full", "tied")
    for k in range(1, 6)
]
INTERVALS = [
    {"scenario": s, "method": m, "mean": v, "low": v - 0.1, "high": v + 0.3}
    for s in ("overlapping", "elongated")
    for m, v in (("k-means", 0.5), ("mixture", 0.9))
]
HISTORIES = {"EM": [-9.0, -5.0, -4.0, np.nan], "gradient": [-9.0, -8.0, -6.0, -5.5]}
RATIOS = [
    RatioTest(1, 250.0, 0.05, np.linspace(2, 20, 19), ONE, ONE),
    RatioTest(2, 5.0, 0.8, np.array([1.0, 6.0, 7.0, np.nan]), ONE, ONE),
]
# Two refits, one with its means moved by one, and one that failed.
REFITS = Bootstrap(
    TWO,
    jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1, leaf * np.nan]), TWO),
    np.array([Status.CONVERGED, Status.CONVERGED, Status.COLLAPSED]),
    "weighted",
    jax.tree.map(lambda leaf: np.stack([leaf] * 3), parameters_of(TWO)),
)
ENDS = {"random": [-30.0, -10.0, np.nan], "k-means": [-10.05, -10.0, -10.0]}


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def pixels(content):
    return matplotlib.image.imread(io.BytesIO(content))[..., :3]


def contour_set(ax):
    return next(c for c in ax.collections if isinstance(c, matplotlib.contour.QuadContourSet))
