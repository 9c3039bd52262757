"""The config of a study: one TOML file, checked in full before any work starts.

A config is the record of a study, so nothing in it is ignored: an unknown key is refused
with the nearest valid name, a value of the wrong kind with the place and the value found.
Model names are looked up in the library only when a config is checked, so that importing
this module does not import JAX.
"""

import contextlib
import difflib
import json
import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args


class UserError(Exception):
    """Something a person can put right: what happened, where, and what to do about it.

    The command line prints it as one line without a traceback and exits with status 2.
    """


try:
    import pydantic
    from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
except ImportError as error:  # pragma: no cover - the test environment has every extra
    raise ImportError('the workbench needs more packages: pip install "jgmm[workbench]"') from error


class Strict(pydantic.BaseModel):
    """A table of a config: unknown keys are refused, values are not converted, nothing changes.

    A study's own `Settings` derives from it. The docstring below a field is its description in
    the JSON Schema.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",  # TOML has both, and a record must not lose them
    )


def _as_list(value: object) -> object:
    return value if isinstance(value, (list, tuple)) else [value]


def _file_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ValueError(
            "must start with a letter or digit and hold at most 100 letters, digits, _, - and ."
        )
    return name


Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


def _known_models(names: list[str]) -> list[str]:
    from jgmm import covariance

    if names == ["all"]:
        return [entry.name for entry in covariance.MODELS.values()]
    for name in names:
        if name == "all":
            raise ValueError('"all" stands alone: leave the other names out')
        covariance.model(name)  # raises with the nearest name
    return names


Covariances = Annotated[
    list[Name],
    Field(min_length=1),
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    AfterValidator(_known_models),
]
"""Covariance models by name; one name is a list of one, and "all" stands for every one."""


class Data(Strict):
    """Where the samples come from."""

    source: Name
    """A built-in data set's name, or the path of a .csv, .parquet or .npy file."""
    columns: Annotated[list[Name], Field(min_length=1)] | None = None
    """Columns to model, in this order; default: every numeric column left over."""
    label: Name | None = None
    """Column of known classes; never used for fitting a mixture."""
    weight: Name | None = None
    """Column saying how many times each sample counts."""


class Fit(Strict):
    """What to fit. Lists are searched by `criterion`; a single value is a list of one."""

    n_components: Annotated[
        list[Count],
        Field(min_length=1),
        BeforeValidator(_as_list, json_schema_input_type=int | list[int]),
    ] = Field(default=[1, 2, 3, 4, 5, 6, 7, 8, 9], validate_default=True)
    """Numbers of components K to try."""
    covariance: Covariances = ["full"]
    """Covariance models to try, by name or code; "all" stands for every one."""
    n_restarts: Count = 16
    """Starts per model; the best one is kept."""
    init: Name = "kmeans"
    """How each restart begins."""
    race: Annotated[int, Field(ge=0)] = 0
    """Steps after which only the quarter of the starts that promises most goes on; 0: all do."""
    tol: Amount | None = None
    """Stop when the mean log-likelihood per sample gains less than this; default by precision."""
    rtol: Amount | None = None
    """The same, relative to the mean log-likelihood's size; default: a few roundings."""
    max_steps: Count = 1000
    """EM steps after which a restart stops, converged or not."""
    ridge: Amount = 0.0
    """Added to each covariance's diagonal, relative to the variance of the data."""
    criterion: Literal["bic", "aic", "icl", "held_out"] = "bic"
    """What chooses among the models fitted."""
    n_folds: Annotated[int, Field(ge=2)] = 5
    """Folds for the criterion "held_out"."""

    @pydantic.field_validator("init")
    @classmethod
    def _known_start(cls, name: str) -> str:
        from jgmm import initialize

        if name not in initialize.STARTS:
            raise ValueError(f"unknown start {name!r}; {_nearest(name, initialize.STARTS)}")
        return name


class Config(Strict):
    """One study: what to run, on which data, with which settings."""

    study: Name = "mixture"
    """A built-in study ("mixture", "classify"), or a module that defines one."""
    name: Annotated[str, AfterValidator(_file_name)] = "run"
    """Names the run folder; default: the file's name without its suffix."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """The source of all randomness."""
    precision: Literal["float64", "float32"] = "float64"
    """Of every array in the run."""
    output: Name = "runs"
    """Folder, made if absent, in which the run folder is put."""
    data: Data | None = None
    """Absent for a study that makes its own data."""
    fit: Fit = Fit()
    """Used by the studies that fit mixtures."""
    settings: dict[str, Any] = {}
    """The study's own table, checked by the study."""


Model = TypeVar("Model", bound=pydantic.BaseModel)


def load(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check one config file.

    Args:
      path: a TOML file.
      overrides: changes such as `"fit.n_restarts=64"`, applied before checking.

    Returns:
      The config, complete: every key present or at its default.

    Raises:
      UserError: the file cannot be read, is not TOML, or does not describe a study.
    """
    path = pathlib.Path(path)
    table = read_toml(path)
    table.setdefault("name", name_from(path))
    return from_table(table, overrides, source=str(path))


def name_from(path: pathlib.Path) -> str:
    """Make a run's name of a file's.

    >>> name_from(pathlib.Path("data/old faithful.csv"))
    'old-faithful'
    """
    return name_from_text(path.stem)


def name_from_text(text: str) -> str:
    """Make a file's name of any text.

    >>> name_from_text("Iris (versicolor)")
    'Iris--versicolor-'
    """
    return re.sub(r"[^\w.-]", "-", text).lstrip(".-")[:100] or "run"


def from_table(
    table: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "config"
) -> Config:
    """Check a table of settings, with overrides applied, and return it as a `Config`.

    Args:
      table: nested dictionaries, as a TOML file gives them.
      overrides: changes such as `"data.source=faithful"`.
      source: where the table is from, for error messages.

    Raises:
      UserError: naming every problem, one line each.

    >>> from_table({"seed": 1}, ["seed=3"]).seed
    3
    """
    merged = override(table, overrides)
    return validate(Config, merged, source=source)


def read_toml(path: pathlib.Path) -> dict[str, Any]:
    """Read a TOML file, or raise a `UserError` that says why it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = difflib.get_close_matches(path.name, _siblings(path), n=1)
        hint = f'; did you mean "{path.parent / found[0]}"?' if found else ""
        raise UserError(f"{path}: no such config file{hint}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a config file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error


def _siblings(path: pathlib.Path) -> list[str]:
    names: list[str] = []
    with contextlib.suppress(OSError):  # only a suggestion hangs on it
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix == ".toml"]
    return names


def override(table: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a table with changes such as `"a.b=c"` made.

    The value is read as TOML and, where it is not TOML, taken as text. Whether the key exists
    is not decided here: an unknown one is refused when the table is checked.

    >>> override({"fit": {"n_restarts": 4}}, ["fit.n_restarts=64", "data.source=faithful"])
    {'fit': {'n_restarts': 64}, 'data': {'source': 'faithful'}}
    """
    result: dict[str, Any] = {k: _copy(v) for k, v in table.items()}
    for text in overrides:
        key, equals, value = text.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts):
            raise UserError(f'--set {text}: expected KEY=VALUE, for example "fit.n_restarts=64"')
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
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if list(parsed) == ["value"] else text


def validate(
    model: type[Model], table: Mapping[str, Any], *, prefix: str = "", source: str = "config"
) -> Model:
    """Check a table against a model.

    Args:
      model: a `Strict` model, for instance a study's `Settings`.
      table: nested dictionaries, as a TOML file gives them.
      prefix: dotted path of the table inside the config, for messages.
      source: file the table is from, for messages.

    Raises:
      UserError: one line per problem, each with its full dotted path and the value found.
    """
    # In JSON mode a list may fill a tuple and text may fill an enumeration or a path, while
    # numbers, text and booleans stay apart: the strictness a TOML file calls for.
    text = json.dumps(table, default=str)
    try:
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        lines = dict.fromkeys(_sentence(model, table, e, prefix) for e in error.errors())
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
    place, value = _locate(table, error["loc"])
    path = f"{prefix}.{place}".strip(".")
    if error["type"] == "extra_forbidden":
        return f'unknown key "{path}"; {_suggest_key(model, error["loc"], prefix)}'
    if error["type"] == "missing":
        missing = ".".join(str(part) for part in (prefix, *error["loc"]) if part != "")
        return f'"{missing}" is missing'
    message = re.sub(r"^(Input|\w+) should ", "must ", error["msg"].removeprefix("Value error, "))
    message = message.partition(" after validation")[0]
    return f'"{path}": {_KINDS.get(error["type"], message)}; found {_show(value)}'


def _locate(table: Any, location: tuple[str | int, ...]) -> tuple[str, Any]:
    """Follow pydantic's location through the raw table, leaving out what is not in the file.

    (It also names members of unions, and the first entry of a list we made of a single value.)
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
    text = value_to_toml(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _suggest_key(model: type[Any], location: tuple[str | int, ...], prefix: str) -> str:
    key = str(location[-1])
    here = [str(part) for part in location[:-1]]
    fields = _fields(model, here)
    base = ".".join(part for part in (prefix, *here) if part)
    local = difflib.get_close_matches(key, fields, n=1, cutoff=0.6)
    if local:
        return f'did you mean "{base}.{local[0]}"?'.replace('".', '"')
    elsewhere = {path.rpartition(".")[2]: path for path in _paths(model)}
    moved = difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.8)
    if moved:
        return f'did you mean "{elsewhere[moved[0]]}"?'
    return f"valid here: {', '.join(fields) or 'nothing'}"


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


def _nearest(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a config file, for editors that check while one types."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(mode="validation"),
    }


def to_toml(config: pydantic.BaseModel | Mapping[str, Any]) -> str:
    """Write a config, or any table of plain values, as TOML that reads back to the same table.

    TOML has no null: a key whose value is None is left out, which reads back as its default.

    >>> print(to_toml({"seed": 0, "fit": {"init": "kmeans", "tol": None}}))
    seed = 0
    <BLANKLINE>
    [fit]
    init = "kmeans"
    <BLANKLINE>
    """
    if isinstance(config, pydantic.BaseModel):
        config = config.model_dump(mode="json")
    return "\n".join(_table_lines(config, ())).lstrip("\n") + "\n"


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
        # JSON's escapes are TOML's, save that TOML wants DEL escaped as well.
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
