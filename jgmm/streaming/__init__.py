"""EM for samples that do not fit in memory: block by block from a source, or online."""

from jgmm.streaming import online
from jgmm.streaming.fit import fit
from jgmm.streaming.reader import PassProgress
from jgmm.streaming.sources import Block, as_source

__all__ = [
    "Block",
    "PassProgress",
    "as_source",
    "fit",
    "online",
]
