"""NumPy's files are one whole matrix of real numbers, or refused, whatever their headers say."""

import numpy as np
import pytest
from workbench.readers.data_files import refused, write_csv, write_npy

from jgmm.workbench.readers import datasets


def test_npy_is_a_memory_map_unless_it_must_change(tmp_path):
    x = np.arange(12.0).reshape(4, 3)
    whole = datasets.load(write_npy(tmp_path, x))
    assert isinstance(whole.x, np.memmap)
    assert not whole.x.flags.writeable
    np.testing.assert_array_equal(whole.x, x)
    assert whole.columns == ["x0", "x1", "x2"]
    part = datasets.load(tmp_path / "data.npy", ["x2", "x0"], label="x1")
    np.testing.assert_array_equal(part.x, x[:, [2, 0]])
    assert part.label_names == ["1", "4", "7", "10"]


@pytest.mark.parametrize("kind", ["f4", ">f8", "i2", "u1", "?"])
def test_npy_of_any_real_kind_becomes_float64(tmp_path, kind):
    x = np.array([[0, 1], [1, 0], [1, 1]]).astype(kind)
    data = datasets.load(write_npy(tmp_path, x))
    assert data.x.dtype == np.dtype("f8")
    assert data.x.dtype.isnative
    np.testing.assert_array_equal(data.x, x)


@pytest.mark.parametrize("keep", [4, 60, 200])
def test_truncated_npy_is_refused(tmp_path, keep):
    path = write_npy(tmp_path, np.ones((10, 3)))
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "data.npy: not a whole .npy file")


def test_npy_of_other_content_is_refused(tmp_path):
    refused(write_csv(tmp_path, "not an array at all", "data.npy"), "(it begins otherwise)")
    refused(write_npy(tmp_path, np.array([[1, "a"]], dtype=object)), "Python objects")
    refused(write_npy(tmp_path, np.array([["a", "b"]])), "not real numbers")
    refused(write_npy(tmp_path, np.ones((2, 2), complex)), "complex128")
    refused(write_npy(tmp_path, np.ones(5)), "shape (5,)", "reshape(-1, 1)")
    refused(write_npy(tmp_path, np.ones((2, 2, 2))), "shape (2, 2, 2)")
    with write_npy(tmp_path, np.ones((2, 2))).open("ab") as file:
        np.save(file, np.ones((3, 2)))
    for mapped in (True, False):
        refused(tmp_path / "data.npy", "more in the file than one array", mapped=mapped)
    with (tmp_path / "data.npy").open("wb") as file:
        np.savez(file, x=np.ones((2, 2)))
    refused(tmp_path / "data.npy", ".npz archive")


def by_hand(folder, header, data=b""):
    """A .npy file of version 2.0 with any header."""
    raw = header.encode("latin-1") + b"\n"
    start = b"\x93NUMPY\x02\x00" + len(raw).to_bytes(4, "little")
    (folder / "data.npy").write_bytes(start + raw + data)
    return folder / "data.npy"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("(2, 2", "not a whole .npy file"),  # numpy's reader raises a TokenError
        ("(" + "-" * 3000 + "1, 1)", "not a whole .npy file"),  # a RecursionError
        ("(9223372036854775808, 1)", "not a whole .npy file"),  # an OverflowError
        ("(4611686018427387904, 4)", "not a whole .npy file"),  # overflows to 0 bytes
        ("(99999999999, 99999999999)", "not a whole .npy file"),
        ("(0, 99999999999)", "no rows"),  # of so many columns there are no names in memory
        ("(-1, 2)", "data.npy"),
    ],
)
@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.filterwarnings("ignore:overflow encountered")  # where numpy multiplies the shape
def test_npy_headers_that_lie_are_refused(tmp_path, shape, said, mapped):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    refused(by_hand(tmp_path, header), said, mapped=mapped)


@pytest.mark.parametrize("mapped", [True, False])
def test_an_array_of_arrays_is_not_misread(tmp_path, mapped):
    header = "{'descr': '4f2', 'fortran_order': False, 'shape': (4, 2), }"
    refused(by_hand(tmp_path, header, bytes(16)), "not a whole .npy file", mapped=mapped)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"PK\x05\x06" + b"\0" * 20, b"PK"])
def test_what_begins_like_an_archive_is_not_opened(tmp_path, start):
    refused(write_csv(tmp_path, start, "data.npy"), ".npz archive")


def test_numbers_that_no_double_can_hold_are_infinite(tmp_path):
    wide = np.array([[1, 2], [np.longdouble("1e400"), 3]], np.longdouble)
    if np.isinf(wide).any():
        pytest.skip("here a long double is a double")
    refused(write_npy(tmp_path, wide), "column 'x0', row 2: the value is infinite")
