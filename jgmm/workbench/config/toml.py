"""Read and write TOML: config files, overrides from the command line, records of runs."""

import contextlib
import json
import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jgmm._core.errors import UserError, suggest
from jgmm._core.files import read_file

MAX_BYTES = 1 << 20
"""The most bytes of a config file; a longer file is something else."""
MAX_DEPTH = 50
"""The deepest nesting of tables and lists in a config: more than anybody writes by hand, and little
enough for a recursive parser."""


def read_toml(path: pathlib.Path) -> dict[str, Any]:
    """Read a TOML file, or raise a `UserError` that says why it cannot be read."""
    try:
        table = tomllib.loads(read_file(path, MAX_BYTES).decode("utf-8-sig"))
    except FileNotFoundError:
        hint = suggest(
            path.name,
            _siblings(path),
            quote=lambda name: str(path.parent / name),
            question='; did you mean "{}"?',
        )
        raise UserError(f"{path}: no such config file{hint}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a config file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error
    except ValueError as error:  # the only other exception of the parser
        raise UserError(f"{path}: a number has more digits than can be read") from error
    except RecursionError:
        table = None
    if table is None or _is_deep(table):
        raise UserError(f"{path}: tables or lists are nested deeper than {MAX_DEPTH} levels")
    return table


def _siblings(path: pathlib.Path) -> list[str]:
    """Return the names of the TOML files in the same folder."""
    names: list[str] = []
    with contextlib.suppress(OSError):  # without the names there is only no suggestion
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix == ".toml"]
    return names


def override(table: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a table with changes such as ``"a.b=c"`` applied.

    The value is read as TOML and, where it is not TOML, taken as text. Whether the key exists is
    not checked here: an unknown key is refused when the table is validated.

    >>> override({"fit": {"n_restarts": 4}}, ["fit.n_restarts=64", "data.source=faithful"])
    {'fit': {'n_restarts': 64}, 'data': {'source': 'faithful'}}
    """
    result: dict[str, Any] = {k: _copy(v) for k, v in table.items()}
    for text in overrides:
        key, equals, value = text.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts):
            raise UserError(
                f'--set {short(text)}: expected KEY=VALUE, for example "fit.n_restarts=64"'
            )
        if len(parts) > MAX_DEPTH:
            raise UserError(f"--set {short(text)}: a key of more than {MAX_DEPTH} parts")
        inner = result
        for part in parts[:-1]:
            if not isinstance(inner.get(part), dict):
                inner[part] = {}
            inner = inner[part]
        inner[parts[-1]] = _parse_value(value.strip())
    return result


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def _parse_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # not TOML, or more digits or levels than can be read
        return text
    return parsed["value"] if list(parsed) == ["value"] and not _is_deep(parsed) else text


def _is_deep(table: Any) -> bool:
    """Return whether a table is nested deeper than ``MAX_DEPTH``, without recursion."""
    level: list[Any] = [table]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            inner += value.values() if isinstance(value, Mapping) else value
        level = [value for value in inner if isinstance(value, (Mapping, list))]
        if not level:
            return False
    return True


def short(text: str) -> str:
    """Shorten a text to at most 60 characters, to quote it in a message."""
    return text if len(text) <= 60 else text[:57] + "..."


def to_toml(table: Mapping[str, Any]) -> str:
    """Write a table of plain values as TOML that reads back as the same table.

    TOML has no null: a key whose value is None is left out, and reads back as its default.

    >>> print(to_toml({"seed": 0, "fit": {"init": "kmeans", "tol": None}}))
    seed = 0
    <BLANKLINE>
    [fit]
    init = "kmeans"
    <BLANKLINE>
    """
    return "\n".join(_table_lines(table, ())).lstrip("\n") + "\n"


def _table_lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    scalars = {k: v for k, v in table.items() if not isinstance(v, Mapping) and v is not None}
    tables = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    if path and (scalars or not tables):
        yield f"\n[{'.'.join(map(_key, path))}]"
    for key, value in scalars.items():
        yield f"{_key(key)} = {value_to_toml(value)}"
    for key, inner in tables.items():
        yield from _table_lines(inner, (*path, key))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else value_to_toml(key)


def value_to_toml(value: Any) -> str:
    """Write one value as TOML, on one line.

    >>> value_to_toml(["a", 1.0, True])
    '["a", 1.0, true]'
    """
    if isinstance(value, str):
        # TOML has the escapes of JSON, and requires one for the character DEL as well.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inner = ", ".join(
            f"{_key(k)} = {value_to_toml(v)}" for k, v in value.items() if v is not None
        )
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_to_toml, value))}]"
    return value_to_toml(str(value))
