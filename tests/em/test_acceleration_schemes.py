"""The schemes of acceleration: their names, and where they lead on a linear iteration."""

from typing import get_args

import jax
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm.em.acceleration import accelerated
from jgmm.em.acceleration_schemes import SCHEMES
from jgmm.em.algorithm import EM

KEY = jax.random.key(0)


def test_names():
    em = EM(10)
    assert accelerated(em, None) is em
    with pytest.raises(DataError, match="Did you mean 'squarem'"):
        accelerated(em, "sqarem")
    with pytest.raises(DataError, match="Known: squarem, anderson"):
        jgmm.fit(KEY, [[0.0], [1.0], [2.0]], 1, accelerate="fast")
    from jgmm.workbench.config.models import Fit

    known = set(get_args(Fit.model_fields["accelerate"].annotation))
    assert known == {*SCHEMES, "none"}
