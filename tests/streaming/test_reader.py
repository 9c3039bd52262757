"""Readers of sources: block size, columns and precision, shares of several processes, progress."""

import numpy as np
import pytest

from jgmm._core.errors import DataError
from jgmm.streaming.content import Content
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
    assert next(reader.blocks(Timings())).n_rows == 0


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


class Passes:
    """A source that yields other blocks in each pass; the last of them from then on."""

    def __init__(self, *passes):
        self.passes, self.n = passes, -1

    def __iter__(self):
        self.n += 1
        return iter(self.passes[min(self.n, len(self.passes) - 1)])


SPENT = iter([X[:5], X[5:]])
ONES = np.ones(10, np.float32)
FEWER = "10 rows at first and 7 later"
VALUES = "10 rows each time, but with other values or weights"


@pytest.mark.parametrize(
    ("first", "later", "said"),
    [
        ([X], [X[:7]], FEWER),
        ([X], [], "10 rows at first and 0 later"),
        ([X[:7]], [X], "7 rows at first and 10 later"),
        ([X], [-X], VALUES),
        ([X], [X[:9], X[:1]], VALUES),
        ([(X, ONES)], [(X, 2 * ONES)], "a total weight of 10 at first and 20 later"),
        ([(X, ONES * np.arange(10))], [(X, ONES * np.arange(10)[::-1])], VALUES),
        ([X[:0]], [X], "the first pass over the source found no rows"),
        (SPENT, SPENT, "5 rows at first and 0 later"),  # the first block was for the columns
    ],
)
def test_a_pass_over_other_rows_than_the_first_is_refused(first, later, said):
    reader = open_reader(Passes(first, first, later), 4, SingleProcess())
    with pytest.raises(DataError, match=said):
        [list(reader.blocks(Timings())) for _ in range(2)]


def test_rows_in_another_order_are_the_same_rows():
    reader = open_reader(Passes([X], [X], [X[6:], X[:6]], [X[::-1]]), 4, SingleProcess())
    for _ in range(3):
        assert sum(block.n_rows for block in reader.blocks(Timings())) == 10
    assert reader.content.n_rows == 10


def test_a_pass_that_is_not_read_to_its_end_is_not_compared():
    reader = open_reader(Passes([X], [X], [X[:8]]), 4, SingleProcess())
    next(reader.blocks(Timings()))
    assert reader.content == Content()
    assert len(list(reader.blocks(Timings()))) == 2


def test_all_processes_compare_the_rows_of_all():
    """Here the other share changes, and this process says so as well."""
    group = Shares(Content(5, 5.0, 3).to_words())
    group.all_gather, gather = lambda mine: [mine], group.all_gather
    reader = open_reader([X], 4, group)
    group.all_gather = gather
    list(reader.blocks(Timings()))
    assert (reader.content.n_rows, reader.content.weight) == (15, 15.0)
    group.others = [Content(4, 4.0, 3).to_words()]
    with pytest.raises(DataError, match="15 rows at first and 14 later"):
        list(reader.blocks(Timings()))
