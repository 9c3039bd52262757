"""With ``jax_debug_nans`` JAX raises at every NaN: no way to fit trips over the package's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgmm

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
X[30:] += 6
LABELS = np.arange(60) // 30
MIXTURE = jgmm.make_mixture([0.5, 0.5], [[0.0, 0.0], [6.0, 6.0]], [np.eye(2)] * 2)
FEW = {"n_restarts": 3, "max_steps": 5}

WAYS = {
    "fit": lambda: jgmm.fit(KEY, X, 2, **FEW),
    "run_em": lambda: jgmm.fitting.run_em(MIXTURE, X, max_steps=5),
    "select": lambda: jgmm.select(KEY, X, [1, 2], "tied", **FEW).result,
    "gradient": lambda: jgmm.gradient.fit(KEY, X, 2, optimizer=optax.adam(1e-2), max_steps=5),
    "streaming": lambda: jgmm.streaming.fit(KEY, X, 2, **FEW),
    "classifier": lambda: jgmm.classifier.fit(X, LABELS),
    "kmeans": lambda: jgmm.kmeans.fit(KEY, X, 2),
    "log_prob": lambda: jgmm.log_prob(MIXTURE, X),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_ends_as_without_it(way):
    with jax.debug_nans(True):
        found = WAYS[way]()
        assert repr(found)
    jax.tree.map(np.testing.assert_array_equal, found, WAYS[way]())


def test_a_component_that_collapses_ends_in_its_own_error():
    x = np.concatenate([np.zeros((5, 2)), X]).astype(np.float32)
    with jax.debug_nans(True), pytest.raises(jgmm.FitError, match="collapsed"):
        jgmm.fit(KEY, x, 2, init=np.repeat([0, 1], [5, 60]), max_steps=5)


def test_a_nan_of_the_callers_own_is_still_found():
    with jax.debug_nans(True):
        jgmm.fitting.run_em(MIXTURE, X, max_steps=5)
        with pytest.raises(FloatingPointError):
            jnp.log(jnp.float32(-1))
