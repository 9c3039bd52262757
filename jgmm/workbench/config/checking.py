"""Validation of a config, and the sentences that name everything that is wrong in it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

import pydantic

from jgmm._core.errors import UserError, suggest
from jgmm.workbench.config.toml import short, value_to_toml

MAX_PROBLEMS = 20
"""The largest number of problems that one message lists."""

Model = TypeVar("Model", bound=pydantic.BaseModel)


def validate(
    model: type[Model], table: Mapping[str, Any], *, prefix: str = "", source: str = "config"
) -> Model:
    """Validate a table of settings against a pydantic model.

    Args:
      model: a ``Strict`` model, for instance a study's ``Settings``.
      table: nested dictionaries, as a TOML file gives them.
      prefix: dotted path of the table inside the config, for messages.
      source: file the table is from, for messages.

    Raises:
      UserError: one line per problem, each with its full dotted path and the value found.
    """
    # pydantic's JSON mode accepts a list for a tuple and text for an enumeration or a path, and
    # does not convert between numbers, text and booleans: this is how strict a TOML file should be.
    try:
        text = json.dumps(table, default=str, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        near = ascii(error.object[max(0, error.start - 30) : error.end])
        raise UserError(f"{source}: this is not Unicode text: {near}; rename the file") from None
    except ValueError:
        raise UserError(f"{source}: a number has more digits than can be written") from None
    try:
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        problems = error.errors()
        sentences = (_sentence(model, table, each, prefix) for each in problems[:MAX_PROBLEMS])
        lines = list(dict.fromkeys(sentences))  # a union of types reports some problems twice
        more = len(problems) - MAX_PROBLEMS
        if more > 0:
            lines.append(f"and {more} problems more")
        raise UserError("\n".join(f"{source}: {line}" for line in lines)) from None


_KINDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text in quotes",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
}


def _sentence(model: type[Any], table: Mapping[str, Any], error: Any, prefix: str) -> str:
    """Describe one of pydantic's validation errors in the words of a config file."""
    place, value = _locate(table, error["loc"])
    path = f"{prefix}.{place}".strip(".")
    if error["type"] == "extra_forbidden":
        return f'unknown key "{short(path)}"; {_suggest_key(model, error["loc"], prefix)}'
    if error["type"] == "missing":
        missing = ".".join(str(part) for part in (prefix, *error["loc"]) if part != "")
        return f'"{missing}" is missing'
    message = re.sub(r"^(Input|\w+) should ", "must ", error["msg"].removeprefix("Value error, "))
    message = message.partition(" after validation")[0]
    return f'"{path}": {_KINDS.get(error["type"], message)}; found {_show(value)}'


def _locate(table: Any, location: tuple[str | int, ...]) -> tuple[str, Any]:
    """Follow the location that pydantic reports through the raw table, and return path and value.

    Parts of the location that are not in the file are left out: pydantic also names the members of
    unions, and the first entry of a list that was made from a single value.
    """
    path, value = "", table
    for part in location:
        if isinstance(value, Mapping) and part in value:
            path, value = f"{path}.{part}" if path else str(part), value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            path, value = f"{path}[{part}]", value[part]
    return path, value


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    return short(value_to_toml(value))


def _suggest_key(model: type[Any], location: tuple[str | int, ...], prefix: str) -> str:
    key = str(location[-1])
    parents = [str(part) for part in location[:-1]]
    fields = _fields(model, parents)
    base = "".join(f"{part}." for part in (prefix, *parents) if part)
    elsewhere = {path.rpartition(".")[2]: path for path in _paths(model)}
    question = 'did you mean "{}"?'
    return (
        suggest(key, fields, quote=lambda name: base + name, question=question)
        or suggest(key, elsewhere, cutoff=0.8, quote=elsewhere.__getitem__, question=question)
        or f"valid here: {', '.join(fields) or 'nothing'}"
    )


def _inner_model(annotation: Any) -> type[pydantic.BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _inner_model(a))), None)


def _fields(model: type[pydantic.BaseModel], path: Sequence[str]) -> list[str]:
    current: type[pydantic.BaseModel] | None = model
    for part in path:
        if current is not None and part in current.model_fields:
            current = _inner_model(current.model_fields[part].annotation)
    return list(current.model_fields) if current is not None else []


def _paths(model: type[pydantic.BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = _inner_model(field.annotation)
        if inner is not None:
            yield from _paths(inner, f"{prefix}{name}.")
