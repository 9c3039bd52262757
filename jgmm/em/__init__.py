"""Expectation-maximisation: statistics, E-step, M-step, options, and acceleration."""

from jgmm.em.acceleration_schemes import SCHEMES
from jgmm.em.algorithm import EM
from jgmm.em.m_step import maximize
from jgmm.em.statistics import expected_log_likelihood

__all__ = [
    "EM",
    "SCHEMES",
    "expected_log_likelihood",
    "maximize",
]
