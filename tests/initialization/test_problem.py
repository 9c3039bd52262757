"""Problems that cannot be fitted are refused before any work starts."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jgmm._core.errors import DataError
from jgmm._data.samples import make_samples
from jgmm._data.standardization import center_and_scale
from jgmm.em.options import Options
from jgmm.initialization.problem import check_constant_columns, check_problem

X = np.random.default_rng(0).normal(size=(10, 3))


@pytest.mark.parametrize(
    ("n_components", "change", "said"),
    [
        (0, {}, "n_components must be a whole number of at least 1"),
        (11, {}, "11 components need at least as many samples"),
        (2, {"n_restarts": 0}, "n_restarts must be a whole number of at least 1"),
        (2, {"max_steps": -1}, "max_steps must be a whole number of at least 0; it is -1"),
    ],
)
def test_numbers_that_make_no_sense(n_components, change, said):
    samples = make_samples(X)
    check_problem(samples, 2, Options())
    with pytest.raises(DataError, match=said):
        check_problem(samples, n_components, replace(Options(), **change))


def test_a_label_beyond_the_components():
    samples = replace(make_samples(X), labels=np.resize([0, 2, -1], 10))
    check_problem(samples, 3, Options())
    with pytest.raises(DataError, match="labels hold 2; with 2 components they go from 0 to 1"):
        check_problem(samples, 2, Options())
    jax.jit(lambda labels: check_problem(replace(samples, labels=labels), 2, Options()))(
        samples.labels
    )


def test_constant_columns_are_named_where_they_matter():
    x, weight = X.copy(), np.ones(10)
    x[:, 1], x[4, 1], weight[4] = 7.0, 8.0, 0.0  # constant but for a missing row
    samples = make_samples(x, weight)
    scaled = center_and_scale(samples, True)
    with pytest.raises(DataError, match=r"column\(s\) 1 of x are constant.*ridge=1e-6"):
        check_constant_columns(samples, scaled, True)
    check_constant_columns(samples, scaled, False)
    other = make_samples(x, np.ones(10))
    check_constant_columns(other, center_and_scale(other, True), True)
