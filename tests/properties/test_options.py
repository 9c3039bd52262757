"""Options together, of every covariance model, against an objective in plain NumPy.

Every two options that can be had together are tried together; experiments/trust/options.py tries
all cases. Those without any option are left to the tests of ``em``.
"""

import os

import numpy as np
import pytest

from experiments.trust import options
from jgmm.covariance.models import MODELS

EVERY_CASE = bool(os.environ.get("JGMM_EVERY_CHECK"))
CASES = options.pairwise_cases()
CASES = CASES if EVERY_CASE else [case for case in CASES if any(case[3:])]
REFUSED = [options.Case(code, "float64", "product", floor=True) for code in MODELS]
REFUSED = [case for case in REFUSED if not case.supported]


def id_of(case):
    return str(case)


@pytest.mark.parametrize("case", CASES, ids=id_of)
def test_every_m_step_is_an_optimum_and_em_climbs(case):
    # The opposite of what takes no other program: labels, weights and ridge.
    other = {name: not getattr(case, name) for name in ("labels", "weights", "ridge")}
    for each in (case, case._replace(**other)):
        assert not options.judge(each).wrong


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case[:2] in {("EEV", "float64"), ("VEI", "float64")}],
    ids=id_of,
)
def test_a_fit_does_the_same_from_the_same_start(case):
    assert not options.judge(case, with_fit=True).wrong


@pytest.mark.parametrize("case", REFUSED, ids=id_of)
@pytest.mark.parametrize("others", [{}, {"noise": True, "labels": True, "prior": True}])
def test_a_floor_is_refused_where_covariances_share_a_part(case, others):
    assert not options.judge(case._replace(**others)).wrong


def test_the_measure_sees_mistakes(monkeypatch):
    """A hundredth more in one number, and it is said what is wrong."""
    case, run = options.Case("VVI", "float64", "product", floor=True, noise=True), options.run
    assert not options.judge(case).wrong

    def judged(name, change):
        def wrong(case):
            found, log_volume = run(case)
            value = np.array(getattr(found, name))
            change(value)
            return found._replace(**{name: value}), log_volume

        monkeypatch.setattr(options, "run", wrong)
        return " ".join(options.judge(case).wrong)

    def more(index):
        def change(value):
            value[index] *= 1.01

        return change

    assert "gain is" in judged("means", more((1, 0, 0)))
    assert "gain is" in judged("noise", more((1,)))
    assert "above floor is" in judged("covariances", more((1, 0)))
    assert "log-likelihood is" in judged("log_likelihood", more((2,)))

    def tilt(value):
        value[1, 0, 0, 1] = value[1, 0, 1, 0] = 0.01

    assert "form is" in judged("covariances", tilt)
