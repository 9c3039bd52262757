"""The methods of an ``Algorithm``, and that equal algorithms share one program."""

from dataclasses import replace

from jgmm.em.acceleration import accelerated
from jgmm.em.algorithm import EM
from jgmm.fitting import algorithm


def test_an_algorithm_is_hashable_and_has_an_approximate_form():
    anderson = accelerated(EM(10), "anderson")
    assert isinstance(anderson, algorithm.Algorithm)
    assert hash(anderson) == hash(accelerated(EM(10), "anderson"))
    assert anderson.approximate() == replace(anderson, em=EM(10).approximate())
