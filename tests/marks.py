"""Marks of tests that have something to say in one precision only.

Every program is compiled for each precision anew, which is most of what a test costs. Two are worth
it where rounding could matter; where a test is of bookkeeping, one is enough.
"""

import pytest

in_single = pytest.mark.parametrize("dtype", ["float32"], indirect=True)
in_double = pytest.mark.parametrize("dtype", ["float64"], indirect=True)
