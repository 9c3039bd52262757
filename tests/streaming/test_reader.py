"""Readers of sources: block size, columns and precision, shares of several processes, progress."""

import numpy as np
import pytest

from jgmm._core.errors import DataError
from jgmm.streaming.prefetch import Timings
from jgmm.streaming.reader import ProcessGroup, SingleProcess, blocks_with_progress, open_reader

X = np.arange(30, dtype=np.float32).reshape(10, 3)


class Source(list):
    """A source that says how it is to be read."""

    block_rows, first_row = 4, 100


class Shares(SingleProcess):
    """A group in which the other processes found these columns and bytes a number."""

    def __init__(self, *others):
        self.others = [np.asarray(each) for each in others]

    def all_gather(self, mine):
        return [mine, *self.others]


def test_one_process_is_a_group():
    assert isinstance(SingleProcess(), ProcessGroup)
    assert SingleProcess().all_gather([1]) == [[1]]


def test_columns_and_precision_are_those_of_the_first_block():
    reader = open_reader([X], None, SingleProcess())
    assert (reader.n_features, reader.dtype, reader.first_row) == (3, np.float32, 0)
    assert reader.rows >= 10


@pytest.mark.parametrize(("given", "expected"), [(None, 4), (3, 3)])
def test_a_source_may_say_how_many_rows_a_block_has(given, expected):
    reader = open_reader(Source([X]), given, SingleProcess())
    assert (reader.rows, reader.first_row) == (expected, 100)
    sizes = [block.n_rows for block in reader.blocks(Timings())]
    assert sizes == [min(expected, 10 - row) for row in range(0, 10, expected)]


def test_an_empty_share_learns_its_columns_from_the_others():
    reader = open_reader([], 4, Shares([2, 8], [2, 4]))
    assert (reader.n_features, reader.dtype) == (2, np.float64)
    (block,) = reader.blocks(Timings())
    assert block.n_rows == 0


@pytest.mark.parametrize(
    ("source", "block_rows", "group", "said"),
    [
        ([], None, SingleProcess(), "the source yields no samples"),
        ([X], None, Shares([0, 0], [2, 4]), r"shares of the samples have \[3, 0, 2\] columns"),
        ([X], -1, SingleProcess(), "block_rows must be a whole number of at least 1; it is -1"),
    ],
)
def test_what_cannot_be_read_is_refused(source, block_rows, group, said):
    with pytest.raises(DataError, match=said):
        open_reader(source, block_rows, group)


def test_progress_is_reported_after_each_block():
    told, timings = [], Timings()
    reader = open_reader(Source([X]), None, SingleProcess(), told.append)
    blocks = list(blocks_with_progress(reader, timings, -1, 7, -np.inf))
    assert sum(block.n_rows for block in blocks) == 10
    assert [(each.step, each.max_steps, each.n_rows) for each in told] == [
        (-1, 7, 4), (-1, 7, 8), (-1, 7, 10),
    ]  # fmt: skip
    assert timings.computing > 0
