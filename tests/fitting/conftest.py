"""Samples, weights and starts for the tests of EM from one start."""

from em_cases import converged, full, name, ones, start, weight, x

__all__ = ["converged", "full", "name", "ones", "start", "weight", "x"]
