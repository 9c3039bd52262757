"""Fits on a grid: every point has one, none with a lower likelihood than its special cases."""

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest
from marks import in_double

from jgmm._core import budget
from jgmm._core.status import Status
from jgmm._data.samples import Samples, identity, make_samples
from jgmm.covariance import nesting
from jgmm.covariance.models import model
from jgmm.em.options import Options
from jgmm.selection import grid
from jgmm.workbench.readers import datasets

KEY = jax.random.key(0)
COUNTS, MODELS = (1, 2, 3, 4), ("EII", "diag", "tied", "full")
OPTIONS = Options(init="points", max_steps=200)


@pytest.fixture(scope="module")
def table(dtype):
    """Old Faithful from one start a grid point, which alone would fall short at many."""
    x = make_samples(datasets.load("faithful").x.astype(dtype))
    return grid.fit_grid(KEY, x, COUNTS, MODELS, OPTIONS)


def test_every_grid_point_has_a_fit(table):
    assert set(table) == set(itertools.product(COUNTS, MODELS))
    assert all(Status(int(result.status)).is_valid for result in table.values())
    used = {point: int((result.mixture.weights > 0).sum()) for point, result in table.items()}
    assert used == {(k, name): k for k, name in table}


def reached(table):
    return {point: float(result.log_likelihood) for point, result in table.items()}


def test_no_grid_point_is_below_its_special_cases(table, dtype):
    ell = reached(table)
    rounding = 1e3 * np.finfo(dtype).eps * abs(ell[1, "EII"])
    for k, name in ell:
        for inner in MODELS:
            if nesting.contains(model(name), model(inner)):
                assert ell[k, name] >= ell[k, inner] - rounding
        assert k == 1 or ell[k, name] >= ell[k - 1, name] - rounding


def test_special_cases_give_what_the_start_drawn_misses(table):
    """Behind the one start drawn come those given; without them the table would be worse."""
    drawn = {point: float(r.restarts.log_likelihood[0]) for point, r in table.items()}
    given = {
        point: np.asarray(r.restarts.log_likelihood[1:]).max(initial=-np.inf)
        for point, r in table.items()
    }
    assert sum(given[point] > drawn[point] + 0.1 for point in table) >= 3


@in_double
def test_a_grid_point_that_fails_alone_inherits(dtype):
    """Three places, each repeated: three Gaussians of their own collapse onto them, two as well."""
    places = np.array([[0.0, 0.0], [1.0, 5.0], [7.0, 0.0]])
    x = np.repeat(places, 10, axis=0).astype(dtype)
    options = replace(OPTIONS, init="kmeans", n_restarts=2)
    found = grid.fit_grid(KEY, make_samples(x), (1, 3), ["full"], options)
    one, three = found[1, "full"], found[3, "full"]
    assert Status(int(three.status)) is Status.INHERITED
    assert (float(three.log_likelihood), int(three.n_steps)) == (float(one.log_likelihood), 0)
    np.testing.assert_allclose(np.sort(three.mixture.weights[:3]), [0.25, 0.25, 0.5])
    for each in three.mixture.means[:3]:
        np.testing.assert_array_equal(each, one.mixture.means[0])
    assert [float(three.history[0])] == [float(one.log_likelihood)]
    assert np.isnan(three.history[1:]).all()
    assert {int(code) for code in three.restarts.status} == {Status.COLLAPSED}
    even = grid.fit_grid(
        KEY, make_samples(x), (1, 3), ["full"], replace(options, equal_weights=True)
    )
    assert Status(int(even[3, "full"].status)) is Status.COLLAPSED


@pytest.mark.parametrize(
    ("n_samples", "expected"),
    [(1000, {1: 9, 2: 9, 5: 9, 9: 9}), (10**7, {1: 1, 2: 2, 5: 8, 9: 9})],
)
def test_one_program_for_all_unless_padding_costs_more(n_samples, expected):
    x = np.broadcast_to(np.zeros((1, 2)), (n_samples, 2))  # one row of memory
    samples = Samples(x, None, identity(2, x.dtype))
    assert grid.padded_size([1, 2, 5, 9], ["full"], samples, 16) == expected


def test_programs_of_different_sizes_pass_fits_on(monkeypatch):
    """Where padding costs too much, a special case is widened to the next program's size."""
    monkeypatch.setattr(budget, "PADDING_WORK", 0)
    monkeypatch.setattr(budget, "SMALL_WORK", 0)
    x = make_samples(datasets.load("faithful").x)
    found = grid.fit_grid(KEY, x, (1, 2, 3), ["EII"], OPTIONS)
    assert {k: result.mixture.n_components for (k, _), result in found.items()} == {
        1: 1,
        2: 2,
        3: 3,
    }
    ell = reached(found)
    assert ell[1, "EII"] < ell[2, "EII"] < ell[3, "EII"]
