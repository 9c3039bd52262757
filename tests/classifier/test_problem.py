"""Problems that cannot be learned are refused, with the class and the reason."""

import numpy as np
import pytest
from classifier_cases import KEY, TEXT, N, X

import jgmm
from jgmm.classifier.fit import fit

# --- what cannot be learned --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": TEXT[:9]}, r"labels must be one a sample, shape \(45,\)"),
        ({"labels": ["ant"] * N}, "labels hold one class only, 'ant'"),
        (
            {"labels": [*["dog"] * 3, *TEXT.tolist()[3:]]},
            "class 'dog' has 3 .*'full'.* need at least 4",
        ),
        (
            {"labels": ["dog", *TEXT.tolist()[1:]], "covariance": "diag"},
            "class 'dog' has 1 .*'diag'.* need at least 2",
        ),
        ({"priors": [0.5, 0.5]}, r"priors must have shape \(3,\)"),
        ({"priors": [0.5, 0.5, 0.5]}, "nonnegative and sum to one"),
        ({"n_components": 0}, "n_components must be a whole number of at least 1, or 3 of them"),
        ({"n_components": [1, 2]}, "or 3 of them, one a class"),
        ({"n_components": 2, "shared": True, "key": KEY}, "shared=True is for one Gaussian"),
        ({"n_components": 16, "key": KEY}, "class 'ant' has 15 .* need at least 16"),
        ({"n_components": 2, "key": KEY, "n_restarts": 0}, "n_restarts must be a whole number"),
        ({"ridge": -1.0}, "ridge must be at least zero"),
        ({"covariance": "ful"}, "unknown covariance model 'ful'"),
        ({"x": X * np.nan}, "x holds nan in row 0"),
    ],
)
def test_refuses(change, said):
    arguments = {"x": X, "labels": TEXT, **change}
    with pytest.raises(ValueError, match=said):
        fit(arguments.pop("x"), arguments.pop("labels"), **arguments)


def test_a_ridge_is_advised_only_where_there_is_none():
    few = [*["dog"] * 3, *TEXT.tolist()[3:]]
    for ridge in (0.0, 1e-6):
        with pytest.raises(jgmm.DataError, match="class 'dog' has 3 ") as told:
            fit(X, few, n_components=4, key=KEY, ridge=ridge)
        assert ("ridge" in str(told.value)) == (ridge == 0)


def test_one_covariance_needs_as_many_samples_as_columns():
    with pytest.raises(jgmm.DataError, match=r"there are 3 samples; .* needs at least 5"):
        fit(X[[0, 1, 3]], TEXT[[0, 1, 3]], shared=True)


def test_a_mixture_needs_a_key():
    with pytest.raises(TypeError, match="key must be a typed key"):
        fit(X, TEXT, n_components=2)
