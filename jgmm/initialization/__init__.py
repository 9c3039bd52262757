"""Starts of a fit: drawn by name, from labels, or from given mixtures."""

from jgmm.initialization.draw import draw
from jgmm.initialization.methods import STARTS

__all__ = [
    "STARTS",
    "draw",
]
