"""Config files: their validation, and TOML.

A study of one's own needs ``Strict``, the base class of its settings, and ``UserError``, which it
raises where the user has to correct the config or the data. All names but that are imported when
they are first used, so that a command line that only prints help stays instant.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from jgmm._core.errors import UserError

if importlib.util.find_spec("pydantic") is None:
    raise ImportError('the workbench needs more packages: pip install "jgmm[workbench]"')

if TYPE_CHECKING:
    from jgmm.workbench.config.models import Config, Strict, from_table, load, name_from_text

__all__ = ["Config", "Strict", "UserError", "from_table", "load", "name_from_text"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("jgmm.workbench.config.models"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
