"""The same fit on a mesh of devices as on one, with shards of any size."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pandas
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm._core.status import Status
from jgmm.distributed.fit import fit
from jgmm.distributed.mesh import make_mesh
from tests.eight_devices import data, outcome

KEY = jax.random.key(0)


def test_eight_devices_give_the_result_of_one():
    root = pathlib.Path(jgmm.__file__).parents[1]
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.eight_devices"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
    )
    with jax.enable_x64(False):
        alone = outcome()
    line, _ = child.communicate(timeout=300)
    assert child.returncode == 0
    for one, other in zip(json.loads(line), alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_prior_and_a_floor_are_those_of_a_fit_without_a_mesh():
    x, weights = data(40)
    known = {"prior": "conjugate", "floor": 0.3, "max_steps": 3, "sample_weight": weights}
    start = jgmm.m_step(x, np.eye(2)[np.arange(40) % 2])
    expected = jgmm.fit(KEY, x, 2, init=start, **known)
    found = jgmm.fit(KEY, x, 2, init=start, mesh=make_mesh(1), **known)
    assert found.log_prior < 0
    assert Status(int(found.status)) is Status.DEGENERATE  # it rests on the floor
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


ROWS = np.asarray(data(40)[0], float)
HELD = np.where(np.arange(40) == 5, 0.0, 1.0)
HOLES = np.where((np.arange(40) == 5)[:, None], np.nan, ROWS)
FRAME = pandas.DataFrame(HOLES, columns=["height", "width"]).astype("Float64")
CONSTANT = np.c_[ROWS, np.full(40, 0.1)]
ALIKE = {
    "a list": (ROWS.tolist(), {}),
    "lists of weights": (ROWS.tolist(), {"sample_weight": HELD.tolist()}),
    "whole numbers": (np.round(9 * ROWS).astype(int), {}),
    "NA in a row of weight zero": (FRAME, {"sample_weight": HELD}),
    "a mask in a row of weight zero": (np.ma.masked_invalid(HOLES), {"sample_weight": HELD}),
    "NA in another row": (FRAME, {}),
    "NaN": (HOLES, {}),
    "text": ([["a", 1.0]] * 40, {}),
    "one row": (ROWS[0], {}),
    "short weights": (ROWS, {"sample_weight": HELD[1:]}),
    "long weights": (ROWS[1:], {"sample_weight": HELD}),
    "a negative weight": (ROWS, {"sample_weight": HELD - 1}),
    "no weight": (ROWS, {"sample_weight": 0 * HELD}),
    "text as weights": (ROWS, {"sample_weight": ["a"] * 40}),
    "a constant column": (CONSTANT, {}),
    "constant but for a missing row": (
        np.where(np.arange(120).reshape(40, 3) == 17, 5.0, CONSTANT),
        {"sample_weight": HELD},
    ),
    "a constant column and a ridge": (CONSTANT, {"ridge": 1e-3, "init": "points"}),
    "too few": (ROWS[:1], {}),
    "no components": (ROWS, {"n_components": 0}),
    "steps": (ROWS, {"max_steps": -1}),
    "restarts": (ROWS, {"n_restarts": 0}),
    "a name": (ROWS, {"init": "kmean"}),
    "a model": (ROWS, {"covariance": "EEJ"}),
    "a ridge": (ROWS, {"ridge": -1.0}),
}


@pytest.mark.parametrize("case", ALIKE)
def test_arguments_are_those_of_a_fit_without_a_mesh(case):
    """The same numbers, or the same error in the same words."""
    x, options = ALIKE[case]
    start = {"init": jgmm.m_step(ROWS, np.eye(2)[np.arange(40) % 2], "EEI"), "max_steps": 3}
    options = {"n_components": 2, "covariance": "EEI", **start, **options}

    def outcome(mesh):
        try:
            found = jgmm.fit(KEY, x, mesh=mesh, **options)
        except ValueError as error:
            return type(error).__name__, str(error)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(found)]

    alone, on_mesh = outcome(None), outcome(make_mesh(1))
    if isinstance(alone, tuple):
        assert on_mesh == alone
    else:
        assert not isinstance(on_mesh, tuple), on_mesh
        for one, other in zip(on_mesh, alone, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_what_does_not_fit_a_mesh_is_refused():
    x, _ = data(20)
    wrong = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("rows",))
    with pytest.raises(DataError, match="it needs 'samples'"):
        jgmm.fit(KEY, x, 2, mesh=wrong)
    with pytest.raises(DataError, match="max_steps must be a whole number of at least 0; it is -1"):
        jgmm.fit(KEY, x, 2, mesh=make_mesh(1), max_steps=-1)
    start = jgmm.m_step(x, np.eye(2)[np.arange(20) % 2])
    for init, text in (
        (start, r"init is 1 start\(s\): n_restarts must be 1; it is 2"),
        ([0, 1] * 10, "labels: fit without a mesh"),
    ):
        with pytest.raises(DataError, match=text):
            fit(KEY, x, 2, mesh=make_mesh(1), init=init, n_restarts=2)
