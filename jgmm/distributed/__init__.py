"""EM on several devices or in several processes."""

from jgmm.distributed.fit import fit
from jgmm.distributed.mesh import bytes_per_step, make_mesh
from jgmm.distributed.processes import LostProcess, Processes, join

__all__ = [
    "LostProcess",
    "Processes",
    "bytes_per_step",
    "fit",
    "join",
    "make_mesh",
]
