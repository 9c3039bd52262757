"""Meshes of devices: what is one, and the bytes that a step sends over it."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm.distributed.mesh import bytes_per_step, make_mesh
from tests.eight_devices import data


@pytest.mark.parametrize("covariance", ["tied", "EII"])
def test_the_bytes_of_a_step_are_those_of_the_statistics(covariance):
    x = data(60)[0]
    mixture = jgmm.m_step(x, np.eye(3)[np.arange(60) % 3], covariance)
    found = jgmm.accumulate(mixture, x)
    parts = jax.tree.leaves(replace(found, center=None))
    assert bytes_per_step(3, 2, covariance) == sum(part.nbytes for part in parts)


def test_a_mesh_has_two_axes():
    mesh = make_mesh()
    assert mesh.axis_names == ("samples", "restarts")
    assert dict(mesh.shape) == {"samples": len(jax.devices()), "restarts": 1}


@pytest.mark.parametrize(("n_samples", "n_restarts"), [(2, 1), (1, 2), (0, 1)])
def test_a_mesh_of_more_devices_than_there_are_is_refused(n_samples, n_restarts):
    said = f"a mesh of {n_samples} × {n_restarts} devices is asked for; there are 1"
    with pytest.raises(DataError, match=said):
        make_mesh(n_samples, n_restarts)
