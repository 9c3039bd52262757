"""One step of EM."""

import chex
import numpy as np
import oracle
import pytest
from em_cases import beginning, same
from marks import in_double

import jgmm
from jgmm.fitting import single_run


def test_em_step_is_the_textbook(full, x, weight, tolerance):
    found, log_likelihood = jgmm.em_step(full, x, weight)
    expected = oracle.em_step(x.astype(np.float64), *beginning(), "full", weight)
    same(found, expected[:3], tolerance)
    np.testing.assert_allclose(log_likelihood, expected[3], **tolerance)


@in_double
def test_no_weights_are_weights_of_one(full, x, ones, tolerance):
    resp = jgmm.responsibilities(full, x)
    for ask in (
        lambda w: jgmm.m_step(x, resp, "full", w),
        lambda w: jgmm.em_step(full, x, w),
    ):
        chex.assert_trees_all_close(ask(None), ask(ones), **tolerance)


@in_double
def test_em_step_is_e_step_then_m_step(full, x, weight, tolerance):
    by_hand = jgmm.m_step(x, jgmm.responsibilities(full, x), "full", weight)
    stepped, _ = jgmm.em_step(full, x, weight)
    chex.assert_trees_all_close(stepped, by_hand, **tolerance)


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_columns_must_match(columns, full):
    for ask in (jgmm.em_step, single_run.run_em):
        with pytest.raises(jgmm.DataError, match=f"x has {columns} columns.*for 3"):
            ask(full, np.zeros((5, columns)))
