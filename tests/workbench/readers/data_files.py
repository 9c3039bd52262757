"""Files of data for the tests of readers, and the message of their refusal."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jgmm._core.errors import UserError
from jgmm.workbench.readers import datasets

FRAME = pd.DataFrame(
    {
        "a": [1.5, 2.0, -3.25, 4e-3],
        "n": [1, 2, 3, 4],
        "kind": ["b", "a", "b", "c"],
        "w": [0.0, 1.0, 2.5, 1.0],
    }
)


def write_csv(folder, text, name="data.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_npy(folder, array):
    path = folder / "data.npy"
    np.save(path, array)
    return path


def write_parquet(folder, **columns):
    path = folder / "data.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def refused(source, *fragments, **options):
    """The message of the error, which names where, what and how: each fragment must be in it."""
    with pytest.raises(UserError) as caught:
        datasets.load(source, **options)
    message = str(caught.value)
    for fragment in fragments:
        assert fragment in message
    return message
