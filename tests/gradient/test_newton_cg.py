"""Newton-CG: the model's minimum within a region, and the optimum of a fit."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm._core.status import Status
from jgmm.gradient.fit import fit
from jgmm.gradient.newton_cg import NewtonCG, steihaug

KEY = jax.random.key(0)
SLOPE = jnp.asarray([1.0, -2.0, 0.5, 1.0])


def hessian(*values):
    """A symmetric matrix with these eigenvalues."""
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    return jnp.asarray(axes @ np.diag(values) @ axes.T)


solve = jax.jit(
    lambda h, radius: steihaug(lambda p: h @ p, SLOPE, radius, 30),
)


def model(h, step):
    return SLOPE @ step + 0.5 * step @ h @ step


def test_inside_the_region_it_is_newtons_step_as_far_as_it_pays():
    h = hessian(0.2, 0.5, 0.7, 1.0)
    found = solve(h, 1e3)
    rest = np.linalg.norm(SLOPE + h @ found.step)
    size = np.linalg.norm(SLOPE)
    assert rest <= 0.5 * size
    assert not found.at_boundary
    assert found.n_products <= 4
    np.testing.assert_allclose(found.predicted, -model(h, found.step), rtol=1e-12)
    exact = jax.jit(lambda: steihaug(lambda p: h @ p, 1e-12 * SLOPE, jnp.asarray(1.0), 30))()
    np.testing.assert_allclose(exact.step, -1e-12 * np.linalg.solve(h, SLOPE), rtol=1e-3)


@pytest.mark.parametrize(
    ("values", "radius"), [((0.2, 0.5, 0.7, 1.0), 0.1), ((-0.5, 0.1, 0.7, 1.0), 50.0)]
)
def test_else_it_ends_at_the_edge_and_lower_than_along_the_gradient(values, radius):
    h = hessian(*values)
    found = solve(h, radius)
    assert found.at_boundary
    np.testing.assert_allclose(np.linalg.norm(found.step), radius, rtol=1e-12)
    np.testing.assert_allclose(found.predicted, -model(h, found.step), rtol=1e-12)
    # Cauchy's point: the lowest along the gradient within the region.
    size, bend = np.linalg.norm(SLOPE), SLOPE @ h @ SLOPE
    length = radius / size if bend <= 0 else min(radius / size, size**2 / float(bend))
    assert found.predicted >= -model(h, -length * SLOPE) - 1e-12


def test_where_the_gradient_vanishes_it_stays():
    found = steihaug(lambda p: p, jnp.zeros(4), jnp.asarray(1.0), 30)
    assert found.n_products == 0
    np.testing.assert_array_equal(found.step, 0)


def test_a_fit_ends_where_em_ends_in_few_steps():
    x = oracle.draw(0, 90, *oracle.parameters(4, k=2, d=2))
    two = [jgmm.make_mixture(*oracle.parameters(seed, k=2, d=2)) for seed in (4, 6)]
    starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *two)
    found = fit(KEY, x, 2, optimizer=NewtonCG(), init=starts, n_restarts=2)
    assert (found.restarts.status == Status.CONVERGED).all()
    assert found.restarts.n_steps.max() < 30
    ends = [
        jgmm.fitting.run_em(one, x, tol=1e-13, rtol=0.0, max_steps=500).log_likelihood
        for one in two
    ]
    np.testing.assert_allclose(found.restarts.log_likelihood, ends, atol=1e-7)
    # No step that counts leads down, but for rounding.
    assert np.nanmin(np.diff(found.history)) >= -1e-10


@pytest.mark.parametrize(
    "options", [{"radius": 0.0}, {"radius": 5.0, "largest": 4.0}, {"max_products": 0}]
)
def test_numbers_that_allow_no_step_are_refused(options):
    with pytest.raises(DataError, match="0 < radius <= largest"):
        NewtonCG(**options)
