"""Run many restarts of an iterative algorithm as one program, and report how each ended."""

from jgmm._core.status import describe, tally
from jgmm.fitting.results import raise_if_failed
from jgmm.fitting.single_run import run_em

__all__ = [
    "describe",
    "raise_if_failed",
    "run_em",
    "tally",
]
