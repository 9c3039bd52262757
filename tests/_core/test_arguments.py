"""Keys and counts: what is accepted, and what is refused."""

import jax
import numpy as np
import pytest

from jgmm._core.arguments import check_key, check_whole
from jgmm._core.errors import DataError


@pytest.mark.parametrize("value", [2.5, "3", None, True, 0, np.float64(3)])
def test_a_count_is_a_whole_number(value):
    with pytest.raises(DataError, match="n must be a whole number of at least 1; it is"):
        check_whole("n", value, 1)
    check_whole("n", np.uint8(1), 1)


@pytest.mark.parametrize("key", [0, None, np.zeros(2, np.uint32), "key"])
def test_a_key_must_be_typed(key):
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        check_key(key)


def test_a_raw_key_is_refused():
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        check_key(jax.random.PRNGKey(0))
