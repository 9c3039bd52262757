"""The config of a study: one TOML file, validated in full before any work starts.

A config is the record of a study, so nothing in it is ignored: an unknown key is refused with the
nearest valid name, and a value of the wrong kind with its place and the value found. The names of
covariance models, starts, acceleration schemes and criteria are those of the library's own tables.
A table is read only when a config that names an entry is validated, when a shell completes a name,
or for the JSON Schema, so that importing this module does not import JAX.
"""

import json
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args

from jgmm._core.errors import UserError, suggest
from jgmm.workbench.config.toml import override, read_toml, short, value_to_toml

MAX_PROBLEMS = 20
"""The largest number of problems that one message lists."""
MAX_NAME = 100
"""The most bytes of a run's name: a file name may have 255, and suffixes need some of them."""

try:
    import pydantic
    import pydantic.json_schema
    from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
    from pydantic_core import core_schema
except ImportError as error:  # pragma: no cover - the test environment has every extra
    raise ImportError('the workbench needs more packages: pip install "jgmm[workbench]"') from error


class Strict(pydantic.BaseModel):
    """Base class of the tables of a config: strict types, no unknown keys, immutable.

    A study's own ``Settings`` derives from it. The docstring below a field is its description in
    the JSON Schema.

    >>> class Settings(Strict):
    ...     n_samples: int = 40
    >>> validate(Settings, {"n_samples": 50}).n_samples
    50
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",  # TOML can write both, and the record must keep them
    )


def _as_list(value: object) -> object:
    return value if isinstance(value, (list, tuple)) else [value]


def _file_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name) or len(name.encode("utf-8")) > MAX_NAME:
        raise ValueError(
            "must start with a letter or digit and hold only letters, digits, _, - and ., "
            f"at most {MAX_NAME} bytes of them"
        )
    return name


Count = Annotated[int, Field(ge=1, lt=2**31)]  # JAX counts in 32-bit integers
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


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
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        """List the names in the JSON Schema."""
        return handler(schema) | {"enum": list(self.names())}


def covariances() -> list[str]:
    """Return the names of the covariance models, those that the package writes."""
    from jgmm.covariance.models import MODELS

    return [entry.name for entry in MODELS.values()]


def criteria() -> list[str]:
    """Return the names of the criteria of model selection."""
    from jgmm.selection.criteria import CRITERIA

    return list(CRITERIA)


def starts() -> list[str]:
    """Return the names of the initialization methods."""
    from jgmm.initialization.methods import STARTS

    return list(STARTS)


def accelerations() -> list[str]:
    """Return the names of the acceleration schemes, and "none"."""
    from jgmm.em.acceleration_schemes import SCHEMES

    return [*SCHEMES, "none"]


def _known_models(names: list[str]) -> list[str]:
    from jgmm.covariance.models import model

    if names == ["all"]:
        return covariances()
    for name in names:
        if name == "all":
            raise ValueError('"all" stands alone: leave the other names out')
        model(name)  # raises an error that suggests the nearest name
    return names


def _add_examples(schema: dict[str, Any]) -> None:
    schema["examples"] = ["all", *covariances()]


Covariances = Annotated[
    list[Name],
    Field(min_length=1, json_schema_extra=_add_examples),
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    AfterValidator(_known_models),
]
"""Covariance models by name; a single name is a list of one, and "all" stands for all models."""


class Data(Strict):
    """The data set: where the samples come from and which columns are used."""

    source: Name
    """A built-in data set's name, or the path of a file: .csv, .tsv or other delimited text, JSON
    lines (.jsonl), Excel (.xlsx), .parquet, .feather, .npy, .npz.
    FILE:PART names a sheet or an array."""
    columns: Annotated[list[Name], Field(min_length=1)] | None = None
    """Columns to model, in this order; default: every other numeric column."""
    label: Name | None = None
    """Column of known classes; it is never used for fitting a mixture."""
    weight: Name | None = None
    """Column of sample weights: how many times each sample counts."""
    id: str | None = None
    """Column that says which row is which; it is not modelled. Default: an index in first place."""
    separator: Name | None = None
    """What separates values in a text file: a character, or "tab", "blank", …; default: guessed."""
    decimal: Literal[".", ","] | None = None
    """The decimal mark in a text file; default: guessed."""
    na: Annotated[list[str], BeforeValidator(_as_list)] | None = None
    """Texts or numbers that stand for a missing value, in addition to the usual ones."""
    header: bool | None = None
    """Whether the first line of a text file holds the names of the columns; default: guessed."""


class Fit(Strict):
    """What to fit and how. `criterion` chooses among lists; a single value is a list of one."""

    n_components: Annotated[
        list[Count],
        Field(min_length=1),
        BeforeValidator(_as_list, json_schema_input_type=int | list[int]),
    ] = Field(default=[1, 2, 3, 4, 5, 6, 7, 8, 9], validate_default=True)
    """Numbers of components K to try."""
    covariance: Covariances = ["full"]
    """Covariance models to try, by name or code; "all" stands for all models."""
    n_restarts: Count = 16
    """Restarts per model; the best one is kept."""
    init: Annotated[str, NameIn("start", starts)] = "kmeans"
    """Initialization method of each restart."""
    race: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Racing: steps after which only the most promising quarter of the starts goes on; 0: off."""
    accelerate: Annotated[str, NameIn("acceleration", accelerations)] = "anderson"
    """Acceleration scheme, which extrapolates the steps of EM; "none": plain EM."""
    tol: Amount | None = None
    """Stop when the log-likelihood per sample rises less than this; default: by precision."""
    rtol: Amount | None = None
    """The same, relative to the size of the log-likelihood; default: a few rounding errors."""
    max_steps: Count = 1000
    """EM steps after which a restart stops, converged or not."""
    ridge: Amount = 0.0
    """Regularization: added to each covariance's diagonal, relative to the data's variance."""
    prior: Literal["conjugate", "none"] = "none"
    """"conjugate": maximum a posteriori under a weak prior; "none": maximum likelihood."""
    floor: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Least variance in any direction, as a fraction of the variance of the data."""
    criterion: Annotated[str, NameIn("criterion", criteria)] = "bic"
    """The criterion that chooses among the fitted models."""
    n_folds: Annotated[int, Field(ge=2)] = 5
    """Folds of the cross-validation for the criterion "held_out"."""

    def options(self, *without: str) -> dict[str, Any]:
        """Return the keyword arguments for ``jgmm.select``.

        Args:
          without: names to leave out, for a function that does not take them.
        """
        exclude = {"n_components", "covariance", "criterion", *without}
        values = self.model_dump(exclude=exclude)
        return {name: None if value == "none" else value for name, value in values.items()}


class Config(Strict):
    """The config of one study: what to run, on which data, with which settings."""

    study: Name = "mixture"
    """A built-in study ("mixture", "classify", "stream"), or a module that defines one."""
    name: Annotated[str, AfterValidator(_file_name)] = "run"
    """First part of the run folder's name; default: the config file's name without suffix."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of all random numbers."""
    precision: Literal["float64", "float32"] = "float64"
    """Floating-point type of every array in the run."""
    output: Name = "runs"
    """Folder that run folders are put in; it is made if it is absent."""
    data: Data | None = None
    """The data set; absent for a study that makes its own data."""
    fit: Fit = Fit()
    """What to fit, for the studies that fit mixtures."""
    settings: dict[str, Any] = {}
    """The study's own table, validated by the study's `Settings`."""


Model = TypeVar("Model", bound=pydantic.BaseModel)


def load(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> Config:
    """Read and validate one config file.

    Args:
      path: a TOML file.
      overrides: changes such as ``"fit.n_restarts=64"``, applied before validation.

    Returns:
      The complete config, with the default of every key that is absent.

    Raises:
      UserError: the file cannot be read, is not TOML, or does not describe a study.
    """
    path = pathlib.Path(path)
    table = read_toml(path)
    table.setdefault("name", name_from(path))
    return from_table(table, overrides, source=str(path))


def name_from(path: pathlib.Path) -> str:
    """Make the name of a run from the name of a file.

    >>> name_from(pathlib.Path("data/old faithful.csv"))
    'old-faithful'
    """
    return name_from_text(path.stem)


def name_from_text(text: str) -> str:
    """Make the name of a file from any text.

    >>> name_from_text("Iris (versicolor)")
    'Iris--versicolor-'
    """
    name = re.sub(r"[^\w.-]", "-", text).lstrip(".-")
    return name.encode("utf-8")[:MAX_NAME].decode("utf-8", "ignore") or "run"


def from_table(
    table: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "config"
) -> Config:
    """Apply overrides to a table of settings, validate it, and return it as a ``Config``.

    Args:
      table: nested dictionaries, as a TOML file gives them.
      overrides: changes such as ``"data.source=faithful"``.
      source: where the table is from, for error messages.

    Raises:
      UserError: the table is not a config; the text names every problem, one line each.

    >>> from_table({"seed": 1}, ["seed=3"]).seed
    3
    """
    merged = override(table, overrides)
    return validate(Config, merged, source=source)


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


def schema(settings: Mapping[str, type[Strict]]) -> dict[str, Any]:
    """Return the JSON Schema of config files, for editors that complete and check them.

    Args:
      settings: the ``Settings`` of each study whose table [settings] is to be validated, by the
        name of the study; the table of any other study may hold anything.

    The schema uses draft 7 of JSON Schema, the newest that all common editors support.
    """
    models = {name: settings[name] for name in sorted(settings)}
    every: list[type[pydantic.BaseModel]] = [Config, *models.values()]
    schemas, shared = pydantic.json_schema.models_json_schema(
        [(model, "validation") for model in every]
    )
    definitions = shared["$defs"]
    whole = definitions.pop(schemas[Config, "validation"]["$ref"].rpartition("/")[2])
    default = Config.model_fields["study"].default
    cases = [
        {
            "if": {
                "properties": {"study": {"const": name}},
                "required": [] if name == default else ["study"],
            },
            "then": {"properties": {"settings": schemas[model, "validation"]}},
        }
        for name, model in models.items()
    ]
    whole["properties"]["study"]["examples"] = list(models)
    whole["properties"]["settings"]["additionalProperties"] = True  # older pydantic leaves it out
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **whole,
        "allOf": cases,
        "$defs": definitions,
    }
