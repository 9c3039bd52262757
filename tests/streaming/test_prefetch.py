"""Blocks are read ahead in a background thread."""

import threading
import time

import pytest

from jgmm._core.errors import DataError
from jgmm.streaming.prefetch import Timings, prefetch


def test_the_reader_runs_ahead_and_no_further():
    taken = []

    def items():
        for i in range(10):
            taken.append(i)
            yield i

    stream = prefetch(items(), Timings(), depth=2)
    assert next(stream) == 0
    deadline = time.monotonic() + 10
    while len(taken) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert taken == [0, 1, 2, 3]  # one used, two waiting, one in hand
    assert list(stream) == list(range(1, 10))


def test_the_slower_of_reading_and_computing_sets_the_pace():
    def slow():
        for i in range(5):
            time.sleep(0.02)
            yield i

    timings = Timings()
    for _ in prefetch(slow(), timings):
        with timings.busy():
            time.sleep(0.06)
    assert timings.reading >= 0.1
    assert timings.computing >= 0.3
    assert timings.waiting < 0.1  # all but the first item were read while others were used
    assert timings.total == timings.computing + timings.waiting


def test_what_goes_wrong_in_the_reader_is_raised_by_the_caller():
    def items():
        yield 1
        raise DataError("row 7 is bad")

    stream = prefetch(items(), Timings())
    assert next(stream) == 1
    with pytest.raises(DataError, match="row 7 is bad"):
        next(stream)


def test_the_thread_ends_with_its_reader():
    before = threading.active_count()
    stream = prefetch(iter(int, 1), Timings())  # never ends
    next(stream)
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before
