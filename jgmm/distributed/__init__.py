"""EM on several devices or in several processes."""

from jgmm.distributed.mesh import bytes_per_step, make_mesh
from jgmm.distributed.processes import LostProcess, Processes, join

__all__ = [
    "LostProcess",
    "Processes",
    "bytes_per_step",
    "join",
    "make_mesh",
]
