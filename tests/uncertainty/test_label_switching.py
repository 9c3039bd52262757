"""Label switching: components of refits are put back in the order of the mixture's own."""

import jax
import numpy as np

import jgmm
from jgmm._data.samples import make_samples
from jgmm.uncertainty import label_switching
from jgmm.uncertainty.label_switching import relabel


def test_labels_are_put_back():
    """Components of a mixture in any order, from how many samples they share with its own."""
    mixture = jgmm.make_mixture(
        [0.2, 0.3, 0.5], [[0.0], [5.0], [9.0]], [1.0, 1.2, 1.4], "spherical"
    )
    x = np.linspace(-2, 12, 50)[:, None]
    orders = np.array([[0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]])
    many = jax.tree.map(lambda leaf: leaf[orders], mixture)
    overlap = jax.vmap(lambda one: label_switching.overlaps(mixture, one, make_samples(x)))(many)
    np.testing.assert_allclose(overlap.sum(axis=(1, 2)), 50, rtol=1e-6)
    found = relabel(many, np.asarray(overlap))
    for leaf, expected in zip(jax.tree.leaves(found), jax.tree.leaves(mixture), strict=True):
        np.testing.assert_array_equal(leaf, np.broadcast_to(expected, leaf.shape))
    broken = np.asarray(overlap).copy()
    broken[1, 0, 0] = np.nan
    np.testing.assert_array_equal(relabel(many, broken).means[1], many.means[1])


def test_a_shared_scale_is_not_permuted():
    mixture = jgmm.make_mixture([0.4, 0.6], [[0.0], [5.0]], [1.0], "EII")
    many = jax.tree.map(lambda leaf: leaf[None], mixture)
    found = relabel(many, np.array([[[0.0, 1.0], [1.0, 0.0]]]))
    np.testing.assert_array_equal(found.means[0], mixture.means[::-1])
    np.testing.assert_array_equal(found.scale[0], mixture.scale)
