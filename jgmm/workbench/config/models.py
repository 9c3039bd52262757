"""The config of a study: one TOML file, checked in full before any work starts.

A config is the record of a study, so nothing in it is ignored: an unknown key is refused
with the nearest valid name, a value of the wrong kind with the place and the value found.
Model names are looked up in the library only when a config is checked, so that importing
this module does not import JAX.
"""

import difflib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args

from jgmm._core.errors import UserError
from jgmm.workbench.config.toml import override, read_toml, short, value_to_toml

MAX_PROBLEMS = 20
"""Problems listed at once."""
MAX_NAME = 100
"""Bytes of a file's name that come from elsewhere: file systems allow 255, suffixes need some."""

try:
    import pydantic
    import pydantic.json_schema
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
    if not re.fullmatch(r"\w[\w.-]*", name) or len(name.encode("utf-8")) > MAX_NAME:
        raise ValueError(
            "must start with a letter or digit and hold only letters, digits, _, - and ., "
            f"at most {MAX_NAME} bytes of them"
        )
    return name


Count = Annotated[int, Field(ge=1, lt=2**31)]  # what JAX's 32-bit integers can count
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


def _known_models(names: list[str]) -> list[str]:
    from jgmm.covariance import models

    if names == ["all"]:
        return [entry.name for entry in models.MODELS.values()]
    for name in names:
        if name == "all":
            raise ValueError('"all" stands alone: leave the other names out')
        models.model(name)  # raises with the nearest name
    return names


COVARIANCES = (
    *("spherical", "diag", "tied", "full"),
    *("EII", "EEI", "VEI", "EVI", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV"),
)
"""Names of the covariance models, for editors and shells: here they are known without JAX."""

Covariances = Annotated[
    list[Name],
    Field(min_length=1, examples=["all", *COVARIANCES]),
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
    race: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Steps after which only the quarter of the starts that promises most goes on; 0: all do."""
    accelerate: Literal["anderson", "squarem", "none"] = "anderson"
    """How EM's steps are extrapolated; "none": EM as it is."""
    tol: Amount | None = None
    """Stop when the mean log-likelihood per sample gains less than this; default by precision."""
    rtol: Amount | None = None
    """The same, relative to the mean log-likelihood's size; default: a few roundings."""
    max_steps: Count = 1000
    """EM steps after which a restart stops, converged or not."""
    ridge: Amount = 0.0
    """Added to each covariance's diagonal, relative to the variance of the data."""
    prior: Literal["conjugate", "none"] = "none"
    """"conjugate": most probable parameters, under a prior that says little."""
    floor: Annotated[float, Field(gt=0, lt=1)] | None = None
    """No variance in any direction falls below this fraction of the data's."""
    criterion: Literal["bic", "aic", "aicc", "icl", "held_out"] = "bic"
    """What chooses among the models fitted."""
    n_folds: Annotated[int, Field(ge=2)] = 5
    """Folds for the criterion "held_out"."""

    def options(self, *without: str) -> dict[str, Any]:
        """Keyword arguments for `jgmm.select`; without some, for those who take fewer."""
        exclude = {"n_components", "covariance", "criterion", *without}
        found = self.model_dump(exclude=exclude)
        return {name: None if value == "none" else value for name, value in found.items()}

    @pydantic.field_validator("init")
    @classmethod
    def _known_start(cls, name: str) -> str:
        from jgmm.initialization import methods

        if name not in methods.STARTS:
            raise ValueError(f"unknown start {name!r}; {_nearest(name, methods.STARTS)}")
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
    name = re.sub(r"[^\w.-]", "-", text).lstrip(".-")
    return name.encode("utf-8")[:MAX_NAME].decode("utf-8", "ignore") or "run"


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
        found = error.errors()
        lines = dict.fromkeys(_sentence(model, table, e, prefix) for e in found[:MAX_PROBLEMS])
        more = len(found) - MAX_PROBLEMS
        said = [*lines, *([f"and {more} problems more"] if more > 0 else [])]
        raise UserError("\n".join(f"{source}: {line}" for line in said)) from None


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
        return f'unknown key "{short(path)}"; {_suggest_key(model, error["loc"], prefix)}'
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
    return short(value_to_toml(value))


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


def schema(settings: Mapping[str, type[Strict]]) -> dict[str, Any]:
    """Return the JSON Schema of config files, for editors that complete and check them.

    Args:
      settings: the `Settings` of each study whose table [settings] is to be checked, by the name
        of the study; that of any other study may hold anything.

    It says no more than draft 7 of JSON Schema can, the newest that editors agree on.
    """
    models = {name: settings[name] for name in sorted(settings)}
    every: list[type[pydantic.BaseModel]] = [Config, *models.values()]
    found, shared = pydantic.json_schema.models_json_schema(
        [(model, "validation") for model in every]
    )
    definitions = shared["$defs"]
    whole = definitions.pop(found[Config, "validation"]["$ref"].rpartition("/")[2])
    default = Config.model_fields["study"].default
    cases = [
        {
            "if": {
                "properties": {"study": {"const": name}},
                "required": [] if name == default else ["study"],
            },
            "then": {"properties": {"settings": found[model, "validation"]}},
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
