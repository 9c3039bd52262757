"""The benchmark's parts, on problems so small that nothing is timed in earnest."""

import jax
import numpy as np
import pytest

from experiments.benchmark import chart, measure
from experiments.benchmark.contestants import Case, ours, scikit_learn
from experiments.benchmark.sections import _log_likelihood, overlapping


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_contestants_take_the_same_steps(covariance):
    case = Case(400, 3, 2, covariance, "float64")
    x, start = case.problem()
    reached = [_log_likelihood(build(case, x, start), case, x) for build in (ours, scikit_learn)]
    np.testing.assert_allclose(reached[0], reached[1], rtol=1e-10)


@pytest.mark.parametrize(
    ("covariance", "features"), [("full", 1 + 3 + 6), ("diag", 1 + 3 + 3)], ids=["full", "diag"]
)
def test_operations_are_two_products(covariance, features):
    case = Case(100, 3, 2, covariance, "float32")
    assert case.operations == 2 * (2 * 100 * 2 * features)
    assert case.name == f"{covariance} 100, 3, 2 float32"


def test_contestants_take_turns_and_the_first_turn_does_not_count(monkeypatch):
    calls, clock = [], iter([90.0, 80.0, 1.0, 7.0, 3.0, 5.0, 2.0, 9.0])

    def seconds(work):
        work()
        return next(clock)

    monkeypatch.setattr(measure, "seconds", seconds)
    times = measure.in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert times == {"a": 2.0, "b": 7.0}


def test_limits_run():
    assert jax.block_until_ready(measure.streaming(4000)()) == 1000
    product = measure.square_product(np.dtype("float32"))()
    assert product.shape == (measure.SQUARE, measure.SQUARE)


def test_a_process_says_what_it_held():
    code = "print('before', peak())\nx = b'1' * (50 << 20)\nprint('after', peak())\n"
    held = measure.peak_memory(code)
    assert 50 <= held["after"] - held["before"] < 55
    assert held["before"] < 50  # of its own, not of the large process that asked
    code += "del x\nforget_peak()\nprint('later', peak())\n"
    assert measure.peak_memory(code)["later"] < held["after"] - 40


def test_data_for_restarts_are_always_the_same():
    a, b = overlapping(50, 4, 3), overlapping(50, 4, 3)
    np.testing.assert_array_equal(a, b)
    assert a.dtype == np.float32


ROWS = [
    {"case": "full 1k, 2, 3", "library": "jgmm", "seconds": 0.25, "times jgmm": 1.0},
    {"case": "full 1k, 2, 3", "library": "peer", "seconds": 2.5, "times jgmm": 10.0, "target": 5},
    {"case": "full 1k, 2, 3", "library": "other", "note": "is not installed"},
]


def test_tables_have_every_column():
    head, *lines = chart.as_table(ROWS).splitlines()
    assert head.split() == ["case", "library", "seconds", "times", "jgmm", "target", "note"]
    assert lines[1].split()[-3:] == ["2.5", "10", "5"]
    assert lines[2].endswith("is not installed")


def test_the_chart_is_drawn_whatever_was_run():
    growth = [{"axis": "N", "size": 10**e, "seconds": 2.0**e, "exponent": 0.3} for e in range(3)]
    for found in ({}, {"steps": ROWS}, {"growth": growth}, {"steps": ROWS, "growth": growth}):
        assert chart.draw(found).startswith(b"\x89PNG")
