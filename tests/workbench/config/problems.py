"""What is said of a config that is wrong."""

import pytest

from jgmm._core.errors import UserError
from jgmm.workbench.config import models


def problem(table: dict, overrides: list[str] | None = None) -> str:
    """Return the message with which a table of settings is refused."""
    with pytest.raises(UserError) as caught:
        models.from_table(table, overrides or [], source="a.toml")
    return str(caught.value)
