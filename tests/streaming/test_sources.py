"""Sources of blocks: what is one, and blocks of one shape from blocks of any."""

import numpy as np
import pytest

from jgmm._core.errors import DataError
from jgmm.streaming.sources import as_source, peek, rebatch


def rows(blocks):
    """The rows that count, and their weights."""
    parts = [(np.asarray(b.x)[: b.n_rows], np.asarray(b.weights)[: b.n_rows]) for b in blocks]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


@pytest.mark.parametrize("sizes", [[7], [3, 0, 4], [1] * 7, [6, 1]])
@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_blocks_are_cut_and_joined_to_one_shape(sizes, size):
    x = np.arange(14.0, dtype=np.float32).reshape(7, 2)
    parts = np.split(x, np.cumsum(sizes)[:-1])
    blocks = list(rebatch(parts, size, 2, np.dtype("float32")))
    assert {b.x.shape for b in blocks} == {(size, 2)}
    assert [b.n_rows for b in blocks] == [min(size, 7 - s) for s in range(0, 7, size)]
    found, weights = rows(blocks)
    np.testing.assert_array_equal(found, x)
    assert (weights == 1).all()
    assert all((np.asarray(b.weights)[b.n_rows :] == 0).all() for b in blocks)


def test_a_block_may_be_overwritten_once_it_was_given():
    def source():
        room = np.zeros((2, 1))
        for i in range(3):
            room[:] = i
            yield room, np.full(2, float(i))

    found, weights = rows(rebatch(source(), 2, 1, np.dtype("float64")))
    np.testing.assert_array_equal(found[:, 0], [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(weights, found[:, 0])


def test_blocks_may_be_masked_and_of_any_byte_order():
    x = np.arange(6.0).reshape(3, 2)
    masked = np.ma.masked_equal(x.astype(">f8"), 3)
    weighted = (masked, np.asarray([1, 0, 1], ">i4"))
    found, weights = rows(rebatch([weighted], 4, 2, np.dtype("float64")))
    np.testing.assert_array_equal(found, [[0, 1], [2, np.nan], [4, 5]])
    np.testing.assert_array_equal(weights, [1, 0, 1])
    assert peek([x.astype(">f4")]) == (2, np.dtype("float32"))
    assert peek([x.astype(">f4")])[1].isnative


@pytest.mark.parametrize("wrong", [np.ones(2), np.ones(4), np.ones((3, 1)), ["a", "b", "c"]])
def test_weights_of_an_array_are_one_a_row(wrong):
    with pytest.raises(DataError, match="sample_weight"):
        as_source(np.zeros((3, 2)), wrong)


def test_no_samples_are_one_block_of_none():
    (block,) = rebatch([], 4, 3, np.dtype("float32"))
    assert block.n_rows == 0
    assert not np.asarray(block.weights).any()


@pytest.mark.parametrize(
    ("given", "expected"),
    [("float16", "float32"), ("float32", "float32"), ("float64", "float64"), ("int8", "float64")],
)
def test_the_type_follows_the_samples(given, expected):
    assert peek([np.ones((2, 3), given)]) == (3, np.dtype(expected))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ([np.ones((2, 2)), np.ones((2, 3))], "block 1 has 3 columns; the first has 2"),
        ([np.ones(2)], "block 0 is an array of float64 of shape"),
        ([np.asarray([["a", "b"]])], "block 0 holds 'a' in row 0"),
        ([(np.ones((2, 2)), np.ones(3))], "one for each of its 2 rows"),
    ],
)
def test_blocks_that_do_not_fit_are_named(source, text):
    with pytest.raises(DataError, match=text):
        list(rebatch(source, 4, 2, np.dtype("float64")))


def test_an_iterator_is_refused_and_a_function_that_makes_one_taken():
    def make():
        yield np.ones((2, 1))

    with pytest.raises(DataError, match="read only once"):
        as_source(make())
    with pytest.raises(DataError, match="yields no blocks"):
        as_source(3)
    with pytest.raises(DataError, match="two-dimensional"):
        as_source(np.ones(3))
    with pytest.raises(DataError, match="goes with an array"):
        as_source(make, np.ones(2))
    source = as_source(make)
    assert len(list(source)) == len(list(source)) == 1
