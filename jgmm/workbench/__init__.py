"""The workbench: data sets, configs, runs, reports and the command line.

Two names are for users of the library: ``datasets``, which loads built-in data sets and files into
memory, and ``FileSource``, which reads files block by block for ``jgmm.streaming.fit``. Each is
imported when it is first used, so that a command line that only prints help stays instant.
"""

import importlib
from typing import Any

__all__ = ["FileSource", "datasets"]


def __getattr__(name: str) -> Any:
    if name == "datasets":
        return importlib.import_module("jgmm.workbench.readers.datasets")
    if name == "FileSource":
        return importlib.import_module("jgmm.workbench.readers.streams").FileSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
