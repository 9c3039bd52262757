"""The options of the ``jgmm`` command, and the config that they stand for."""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from jgmm._core.errors import UserError
from jgmm.workbench.cli import completion
from jgmm.workbench.config import toml

if TYPE_CHECKING:
    from jgmm.workbench.config.models import Config

try:
    import typer
except ImportError as error:  # pragma: no cover - the test environment has every extra
    raise ImportError('the workbench needs more packages: pip install "jgmm[workbench]"') from error

MAX_COUNTS = 10_000
"""The most numbers of components that one command tries."""
MODELS = ("spherical", "diag", "tied", "full")
"""The covariance models that are tried where none is named, from simple to general."""

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated."),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress bars; print the run folder only.")
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Also print every fit, the parameters and the files."),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")
]
Output = Annotated[pathlib.Path | None, typer.Option(help="Folder that the run folder is put in.")]
File = Annotated[
    str,
    typer.Argument(
        help="A built-in data set or a file: .csv and other text, also compressed, JSON lines, "
        "Excel (.xlsx), .parquet, .feather, .npy, .npz; FILE:PART names a sheet or an array.",
        autocompletion=completion.complete_source,
    ),
]
Components = Annotated[
    str | None, typer.Option(help="Numbers of components K: 3, or 1:9 (the default), or 2,3,5.")
]
Covariance = Annotated[
    str | None,
    typer.Option(
        help=f'Covariance models: {",".join(MODELS)} (the default); "all" for all of them.',
        autocompletion=completion.complete_covariance,
    ),
]
Columns = Annotated[
    str | None, typer.Option(help="Columns to model, by comma; default: all numeric columns.")
]
Label = Annotated[str | None, typer.Option(help="Column of known classes to compare with.")]
Weight = Annotated[str | None, typer.Option(help="Column of sample weights.")]
Id = Annotated[
    str | None,
    typer.Option("--id", help="Column that says which row is which; it is not modelled."),
]
Separator = Annotated[
    str | None,
    typer.Option(help="What separates values: a character, or comma, semicolon, tab, pipe, blank."),
]
Decimal = Annotated[str | None, typer.Option(help='The decimal mark, "." or ",".')]
Na = Annotated[
    str | None, typer.Option("--na", help="What stands for a missing value, by comma: ?,-999.")
]
Header = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether the first line holds the names of columns."),
]
Restarts = Annotated[int | None, typer.Option(help="Restarts per model; the best is kept.")]
Criterion = Annotated[
    str | None,
    typer.Option(
        help="Criterion of the choice: bic (the default), or another such as icl or held_out.",
        autocompletion=completion.complete_criterion,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of all random numbers.")]
Precision = Annotated[
    str | None,
    typer.Option(
        help="Type of all arrays: float64 (the default) or float32.",
        autocompletion=completion.complete_precision,
    ),
]

ConfigFile = Annotated[pathlib.Path, typer.Argument(help="A TOML file, for instance in configs/.")]
ConfigFiles = Annotated[
    list[pathlib.Path] | None, typer.Argument(help="Configs whose studies the schema contains.")
]
Study = Annotated[
    str | None, typer.Option(help="Print the schema of this study's table of settings only.")
]
Saved = Annotated[pathlib.Path, typer.Argument(help="A run folder or a .safetensors file.")]
FirstRun = Annotated[pathlib.Path, typer.Argument(help="A run folder.")]
SecondRun = Annotated[pathlib.Path, typer.Argument(help="Another run folder.")]
Processes = Annotated[
    int | None, typer.Option(min=1, help="Share the work among this number of processes.")
]
Coordinator = Annotated[
    str | None, typer.Option(help="HOST:PORT of process 0, if processes are started one by one.")
]
Process = Annotated[int | None, typer.Option(min=0, help="Number of this process, from 0.")]
Cluster = Annotated[
    bool, typer.Option("--cluster", help="This is one process of a job of SLURM or the like.")
]


@dataclass(frozen=True)
class Verbosity:
    """How much the command line prints about a run, and whether as JSON."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if self.quiet and self.verbose:
            raise UserError("--quiet and --verbose contradict each other; give one of them")

    def options(self) -> list[str]:
        """Return the command line's options for it.

        >>> Verbosity(quiet=True).options()
        ['--quiet']
        """
        flags = {"--quiet": self.quiet, "--verbose": self.verbose, "--json": self.as_json}
        return [option for option, given in flags.items() if given]


def config_from_options(
    source: str,
    data: Mapping[str, Any],
    fitting: tuple[str | None, str | None, int | None, str | None],
    seed: int | None,
    precision: str | None,
    changes: list[str],
) -> "Config":
    """Return the config of the study "mixture" that command-line options stand for.

    Args:
      source: the name of the command, for messages.
      data: the file as "source", and the options --columns, --label, --weight and those that say
        how the file is written, by the names of the table `[data]`.
      fitting: the options --components, --covariance, --restarts and --criterion.
      seed: the option --seed.
      precision: the option --precision.
      changes: overrides such as ``"fit.init=points"``.

    Raises:
      UserError: an option does not have a valid value.
    """
    from jgmm.workbench.config import models

    file, columns, na = data["source"], data.get("columns"), data.get("na")
    components, covariance, restarts, criterion = fitting
    table = {
        "study": "mixture",
        "name": models.name_from(pathlib.Path(file)),
        "seed": seed,
        "precision": precision,
        "data": {
            **data,
            "columns": columns.split(",") if columns else None,
            "na": na.split(",") if na else None,
        },
        "fit": {
            "n_components": parse_components(components) if components is not None else None,
            "covariance": covariance.split(",") if covariance is not None else list(MODELS),
            "n_restarts": restarts,
            "criterion": criterion,
        },
    }
    return models.from_table(_given(table), changes, source=source)


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table without the options that were not given."""
    return {
        key: _given(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


def parse_components(text: str) -> list[int]:
    """Read numbers of components: one, several by comma, or a range with both ends.

    >>> parse_components("1:4"), parse_components("2,5")
    ([1, 2, 3, 4], [2, 5])
    """
    counts: list[int] = []
    for part in text.split(","):
        first, colon, last = part.partition(":")
        try:
            low, high = int(first), int(last if colon else first)
        except ValueError:
            raise UserError(f"--components {toml.short(text)}: write 3, or 1:9, or 2,3,5") from None
        if not 1 <= low <= high:
            raise UserError(f"--components {toml.short(text)}: needs 1 <= first <= last")
        if high - low + len(counts) >= MAX_COUNTS:
            raise UserError(
                f"--components {toml.short(text)}: more than {MAX_COUNTS} numbers to try"
            )
        counts += range(low, high + 1)
    return counts
