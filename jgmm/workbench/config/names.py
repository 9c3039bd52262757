"""Names in a config that are those of the library's own tables: models, starts, criteria, schemes.

A table is read only when a config that names an entry is validated, when a shell completes a name,
or for the JSON Schema, so that importing this module does not import JAX.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jgmm._core.errors import suggest


@dataclass(frozen=True)
class NameIn:
    """The annotation of a text that must be a name in a table of the library.

    Attributes:
      kind: what the table holds, for messages.
      names: reads the table, and returns its names.
    """

    kind: str
    names: Callable[[], Iterable[str]]

    def check(self, name: str) -> str:
        """Return a name that is in the table.

        Raises:
          ValueError: it is not; the text suggests the nearest name, or lists them all.
        """
        known = list(self.names())
        if name not in known:
            hint = suggest(name, known, question="did you mean {}?")
            listed = f"known: {', '.join(known)}"
            raise ValueError(f"unknown {self.kind} {name!r}; {hint or listed}")
        return name

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Let pydantic check a text by ``check``."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        """List the names in the JSON Schema."""
        return handler(schema) | {"enum": list(self.names())}


def covariances() -> list[str]:
    """Return the names of the covariance models, those that the package writes."""
    from jgmm.covariance.models import MODELS

    return [entry.name for entry in MODELS.values()]


def covariances_for(names: list[str], n_features: int) -> list[str]:
    """Return the covariance models that a config names, with "all" written out for D columns.

    >>> covariances_for(["all"], 1), covariances_for(["general"], 1)
    (['E', 'V'], ['general'])
    """
    from jgmm.selection.selection import models_to_try

    return list(models_to_try("all", n_features).values()) if names == ["all"] else names


def criteria() -> list[str]:
    """Return the names of the criteria of model selection."""
    from jgmm.selection.criteria import CRITERIA

    return list(CRITERIA)


def starts() -> list[str]:
    """Return the names of the initialization methods."""
    from jgmm.initialization.methods import init_names

    return init_names()


def accelerations() -> list[str]:
    """Return the names of the acceleration schemes, and "none"."""
    from jgmm.em.acceleration_schemes import SCHEMES

    return [*SCHEMES, "none"]
