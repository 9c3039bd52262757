"""Rows drawn at random with probabilities in proportion to a mass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgmm._data.samples import padded_length
from jgmm._data.weighted_draw import draw_row, draw_uniforms


def test_rows_are_drawn_by_mass(dtype):
    """The law within five errors, and never a row of mass zero, however many there are."""
    mass = np.zeros(1000, dtype)
    mass[[3, 500, 501, 999]] = [1, 2, 4, 1]
    n = 4000
    keys = jax.random.split(jax.random.key(0), n)

    def draw(key, mass):
        return draw_row(draw_uniforms(key, 1, len(mass), dtype)[0], mass)

    rows = np.asarray(jax.jit(jax.vmap(lambda key: draw(key, jnp.asarray(mass))))(keys))
    share, expected = np.bincount(rows, minlength=1000) / n, mass / mass.sum()
    assert (np.abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / n)).all()
    assert int(draw(keys[0], jnp.zeros(7, dtype))) in range(7)
    assert int(draw(keys[0], jnp.ones(1, dtype))) == 0


@pytest.mark.parametrize("n", [100, 272, 10_000])
def test_rows_that_fill_up_change_no_draw(n):
    """Also where they make another level of groups: 10,000 rows are filled up to 32,768."""
    mass = np.random.default_rng(0).uniform(size=n)
    padded = np.pad(mass, (0, padded_length(n) - n))

    def draw(mass):
        uniforms = draw_uniforms(jax.random.key(1), 50, len(mass), mass.dtype)
        return jax.jit(jax.vmap(draw_row, (0, None)))(uniforms, jnp.asarray(mass))

    np.testing.assert_array_equal(draw(padded), draw(mass))
