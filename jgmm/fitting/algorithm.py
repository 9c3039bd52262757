"""What an iterative algorithm must offer so that many restarts of it run as one program."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jgmm._data.samples import HasTotals, Samples


@runtime_checkable
class Algorithm(Protocol):
    """What a method must offer to run in lanes; static and hashable.

    A lane is a pytree with ``log_likelihood``, ``status``, ``n_steps`` and ``collapsed``.
    ``max_steps`` bounds ``n_steps``; the method itself sets the status when it gets there.
    """

    @property
    def max_steps(self) -> int:
        """Updates at most, a run."""

    def init(self, start: Any) -> Any:
        """The lane of one start."""

    def step(self, states: Any, samples: Samples, control: Any) -> Any:
        """One step of every lane, leading axis W; a lane that has ended stays as it is."""

    def approximate(self) -> Algorithm:
        """The same method where runs are only compared: it may leave the last digits for later."""


@runtime_checkable
class AdditiveAlgorithm(Algorithm, Protocol):
    """A method whose step is a sum over samples, and what follows from it.

    So the samples may be in blocks of a file, on several devices, or on several machines.
    """

    def approximate(self) -> AdditiveAlgorithm:
        """As ``Method.scout``."""

    def e_step(self, states: Any, samples: Samples) -> tuple[Any, Any]:
        """The ``Statistics`` of every lane, and what of them is no sum, the same for all blocks."""

    def update(
        self, states: Any, statistics: Any, precision: Any, population: HasTotals, control: Any
    ) -> Any:
        """The lanes after a step, from the statistics of all samples."""
