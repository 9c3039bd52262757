"""Config files: their validation, and TOML.

A study of one's own needs ``Strict``, the base class of its settings, and ``UserError``, which it
raises where the user has to correct the config or the data.
"""

from jgmm._core.errors import UserError
from jgmm.workbench.config.models import Config, Strict, from_table, load, name_from_text

__all__ = ["Config", "Strict", "UserError", "from_table", "load", "name_from_text"]
