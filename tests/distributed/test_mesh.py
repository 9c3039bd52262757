"""Meshes of devices: what is one, and the bytes that a step sends over it."""

import numpy as np
import pytest

import jgmm
from jgmm.distributed.mesh import bytes_per_step
from tests.eight_devices import data


@pytest.mark.parametrize("covariance", ["tied", "EII"])
def test_the_bytes_of_a_step_are_those_of_the_statistics(covariance):
    x = data(60)[0]
    mixture = jgmm.m_step(x, np.eye(3)[np.arange(60) % 3], covariance)
    found = jgmm.accumulate(mixture, x)
    parts = (found.counts, found.first, found.second, found.log_likelihood)
    assert bytes_per_step(3, 2, covariance) == sum(part.nbytes for part in parts)
