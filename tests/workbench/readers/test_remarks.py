"""Values that may be wrong are pointed out; ``corpus`` holds what is told of whole files."""

import numpy as np
import pytest

from jgmm.workbench.readers import datasets


@pytest.mark.parametrize("code", [-999, 9999, -99.9, 1e20])
def test_codes_of_missing_values_are_pointed_out(tmp_path, code):
    x = np.random.default_rng(0).uniform(1, 9, (40, 2))
    x[[3, 8], 1] = code
    np.save(tmp_path / "a.npy", x)
    (warning,) = datasets.load(tmp_path / "a.npy").warnings
    assert warning.startswith(f"Column 'x1': 2 values are {code:g}, far from all others (1.")
    x[:, 1] = np.linspace(-1000, 1000, 40)
    x[0, 1] = -999.0  # as good as any other value
    x[0, 0] = 12.0
    np.save(tmp_path / "a.npy", x)
    assert datasets.load(tmp_path / "a.npy").warnings == ()
