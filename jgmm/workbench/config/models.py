"""The config of a study: one TOML file, validated in full before any work starts.

A config is the record of a study, so nothing in it is ignored: an unknown key is refused with the
nearest valid name, and a value of the wrong kind with its place and the value found. Importing this
module does not import JAX.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
import pydantic.json_schema
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from jgmm.workbench.config.checking import validate
from jgmm.workbench.config.names import NameIn, accelerations, covariances, criteria, starts
from jgmm.workbench.config.toml import override, read_toml

MAX_NAME = 100
"""The most bytes of a run's name: a file name may have 255, and suffixes need some of them."""


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


def _known_models(names: list[str]) -> list[str]:
    from jgmm.covariance.models import model

    if names == ["all"]:
        return names
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
"""Covariance models by name; a single name is a list of one. "all" stands for all models, which
``names.covariances_for`` writes out when the data are known: in one column they are two."""


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
    known: Name | None = None
    """Column of known components, for fitting: whole numbers from 0 to K - 1, or names, which are
    numbered in alphabetical order; empty or -1 where the component is not known."""
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


class Fitting(Strict):
    """How mixtures are fitted: the options of every function that fits by EM."""

    n_restarts: Count = 16
    """Restarts per model; the best one is kept."""
    init: Annotated[str, NameIn("start", starts)] = "portfolio"
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
    equal_weights: bool = False
    """Give all components the same weight, which saves K - 1 parameters."""
    prior: Literal["conjugate", "none"] = "none"
    """"conjugate": maximum a posteriori under a weak prior; "none": maximum likelihood."""
    floor: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Least variance in any direction, as a fraction of the variance of the data."""

    def options(self, *without: str) -> dict[str, Any]:
        """Return these options as keyword arguments of a function that fits.

        Args:
          without: names to leave out, for a function that does not take them.

        >>> Fitting(accelerate="none").options()["accelerate"] is None
        True
        """
        names = set(Fitting.model_fields) - set(without)
        values = self.model_dump(include=names)
        return {name: None if value == "none" else value for name, value in values.items()}


class Fit(Fitting):
    """What to fit and how. `criterion` chooses among lists; a single value is a list of one."""

    n_components: Annotated[
        list[Count],
        Field(min_length=1),
        BeforeValidator(_as_list, json_schema_input_type=int | list[int]),
    ] = Field(default=[1, 2, 3, 4, 5, 6, 7, 8, 9], validate_default=True)
    """Numbers of components K to try."""
    covariance: Covariances = ["full"]
    """Covariance models to try, by name or code; "all" stands for all models, in one column E and
    V."""
    criterion: Annotated[str, NameIn("criterion", criteria)] = "bic"
    """The criterion that chooses among the fitted models."""
    n_folds: Annotated[int, Field(ge=2)] = 5
    """Folds of the cross-validation for the criterion "held_out"."""
    noise: Literal["box"] | Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """A uniform component for samples that belong to no other: over the bounding box of the
    samples ("box") or over a volume; for one number of components and one covariance model."""


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
