"""Status codes of a fit, and their sentences."""

import jax.numpy as jnp
import numpy as np
import pytest

from jgmm._core.status import VALID, Status, among, describe, tally


def test_every_status_has_a_sentence():
    sentences = [describe(status) for status in Status]
    assert all(sentence.endswith(".") for sentence in sentences)
    assert len(set(sentences)) == len(Status)


def test_the_ridge_advised_is_larger_than_the_one_given():
    assert "a larger ridge (ridge=1e-6 where there was none)" in describe(Status.COLLAPSED)


def test_describe_takes_the_array_that_a_result_carries():
    assert describe(jnp.asarray(1)) == describe(Status.CONVERGED)


def test_describe_refuses_an_unknown_code():
    with pytest.raises(ValueError, match="99"):
        describe(99)


def test_which_may_be_chosen_and_which_be_used():
    failed = {"RUNNING", "COLLAPSED", "NON_FINITE_DATA", "NON_FINITE_PARAMETERS", "OUTRUN"}
    assert {status.name for status in Status if not status.is_usable} == failed
    assert {status.name for status in Status if not status.is_valid} == {*failed, "DEGENERATE"}


def test_among_is_asked_of_any_number_of_codes():
    codes = jnp.asarray([[1, 3], [7, 2]])
    np.testing.assert_array_equal(among(codes, VALID), [[True, False], [False, True]])
    assert not bool(among(jnp.asarray(0), VALID))


def test_codes_are_stable():
    """They are stored in run folders: their numbers are part of the interface."""
    assert {status.name: int(status) for status in Status} == {
        "RUNNING": 0,
        "CONVERGED": 1,
        "STEPS_RAN_OUT": 2,
        "COLLAPSED": 3,
        "NON_FINITE_DATA": 4,
        "NON_FINITE_PARAMETERS": 5,
        "OUTRUN": 6,
        "DEGENERATE": 7,
        "INHERITED": 8,
        "INTERRUPTED": 9,
    }


def test_tally_counts_in_words():
    assert tally([1, 3, 1, 2]) == "2 converged, 1 steps ran out, 1 collapsed"
    assert tally(jnp.asarray([5])) == "1 non finite parameters"
