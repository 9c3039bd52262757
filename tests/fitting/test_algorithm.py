"""What has the methods of an ``Algorithm``, and which of its copies are one program."""

from dataclasses import replace

from jgmm.em.acceleration import accelerated
from jgmm.em.algorithm import EM
from jgmm.fitting import algorithm


def test_a_method_is_hashable_and_scouts():
    method = accelerated(EM(10), "anderson")
    assert isinstance(method, algorithm.Algorithm)
    assert hash(method) == hash(accelerated(EM(10), "anderson"))
    assert method.approximate() == replace(method, em=EM(10).approximate())
