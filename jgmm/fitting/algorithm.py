"""The methods an iterative algorithm must have, so that many restarts of it run as one program."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jgmm._data.samples import HasTotals, Samples


@runtime_checkable
class Algorithm(Protocol):
    """An iterative algorithm that ``jgmm.fitting.restarts`` can run from many starts.

    EM, accelerated EM and the gradient methods are such algorithms. An algorithm is static and
    hashable: it is part of the compiled program. The state of one run is a pytree with the
    attributes ``log_likelihood``, ``status``, ``n_steps`` and ``collapsed``. ``max_steps`` bounds
    ``n_steps``; the algorithm itself sets the status when a run reaches the bound.
    """

    @property
    def max_steps(self) -> int:
        """Maximal number of parameter updates of a run."""

    def init(self, start: Any) -> Any:
        """Return the state before the first step from one start."""

    def step(self, states: Any, samples: Samples, control: Any) -> Any:
        """Take one step of W runs, leading axis W; a run that has ended keeps its state."""

    def approximate(self) -> Algorithm:
        """Return the same algorithm for runs that are only compared with one another.

        It may leave the last digits of a result to a later run.
        """


@runtime_checkable
class AdditiveAlgorithm(Algorithm, Protocol):
    """An algorithm whose step is a sum over samples, followed by an update that reads the sum.

    So the samples may be in blocks of a file, on several devices, or on several machines.
    """

    def approximate(self) -> AdditiveAlgorithm:
        """Return the same algorithm for runs that are only compared, as ``Algorithm`` does."""

    def e_step(self, states: Any, samples: Samples) -> tuple[Any, Any]:
        """Return the sums over samples, and what depends on the states alone.

        Args:
          states: W runs, leading axis.
          samples: all samples, or one block of them.

        Returns:
          The ``Statistics`` of every run, which are added up over blocks; and a pytree that is the
          same for all blocks, such as the precision of the E-step.
        """

    def update(
        self, states: Any, statistics: Any, precision: Any, totals: HasTotals, control: Any
    ) -> Any:
        """Return the states after a step.

        Args:
          states: W runs, leading axis.
          statistics, precision: what ``e_step`` returns, the statistics summed over all samples.
          totals: the frame and the total weight of all samples.
          control: leaves that the algorithm reads, such as tolerances.
        """
