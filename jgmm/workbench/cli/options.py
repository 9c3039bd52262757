"""The options of the `jgmm` command, and what they stand for."""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from jgmm._core.errors import UserError
from jgmm.workbench.cli import completion
from jgmm.workbench.config import models, toml

try:
    import typer
except ImportError as error:  # pragma: no cover - the test environment has every extra
    raise ImportError('the workbench needs more packages: pip install "jgmm[workbench]"') from error

MAX_COUNTS = 10_000  # numbers of components tried in one go
MODELS = ("spherical", "diag", "tied", "full")
"""What is tried where no model is named: from the simplest to the most general."""

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated."),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress bars; print the run folder only.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also every fit, the parameters and the files.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")
]
Output = Annotated[pathlib.Path | None, typer.Option(help="Folder in which the run folder is put.")]
File = Annotated[
    str,
    typer.Argument(
        help="A .csv, .parquet or .npy file, or a built-in name.",
        autocompletion=completion.complete_source,
    ),
]
Components = Annotated[str | None, typer.Option(help="K: 3, or 1:9 (the default), or 2,3,5.")]
Covariance = Annotated[
    str | None,
    typer.Option(
        help=f'Models, by comma: {",".join(MODELS)} (the default), or "all" fourteen.',
        autocompletion=completion.complete_covariance,
    ),
]
Columns = Annotated[
    str | None, typer.Option(help="Columns to model, by comma; else all of numbers.")
]
Label = Annotated[str | None, typer.Option(help="Column of known classes, to compare with.")]
Weight = Annotated[str | None, typer.Option(help="Column of sample weights.")]
Starts = Annotated[int | None, typer.Option(help="Starts per model.")]
Criterion = Annotated[
    str | None,
    typer.Option(
        help="bic (the default), aic, aicc, icl or held_out.",
        autocompletion=completion.complete_criterion,
    ),
]
Seed = Annotated[int | None, typer.Option(help="The source of all randomness.")]
Precision = Annotated[
    str | None,
    typer.Option(
        help="float64 (the default) or float32.", autocompletion=completion.complete_precision
    ),
]

ConfigFile = Annotated[pathlib.Path, typer.Argument(help="A TOML file, for instance in configs/.")]
ConfigFiles = Annotated[
    list[pathlib.Path] | None, typer.Argument(help="Configs whose studies to know, too.")
]
Study = Annotated[
    str | None, typer.Option(help="Of this study's [settings] instead of the whole file.")
]
Saved = Annotated[pathlib.Path, typer.Argument(help="A run folder or a .safetensors file.")]
FirstRun = Annotated[pathlib.Path, typer.Argument(help="A run folder.")]
SecondRun = Annotated[pathlib.Path, typer.Argument(help="Another run folder.")]
Processes = Annotated[
    int | None, typer.Option(min=1, help="Share the work among so many processes.")
]
Coordinator = Annotated[
    str | None, typer.Option(help="HOST:PORT of process 0, where they are started one by one.")
]
Process = Annotated[int | None, typer.Option(min=0, help="Which of them this is.")]
Cluster = Annotated[
    bool, typer.Option("--cluster", help="This is one of them, under SLURM or the like.")
]


@dataclass(frozen=True)
class Verbosity:
    """How much is said of a run, and to whom."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.quiet and self.verbose:
            raise UserError("--quiet and --verbose contradict each other; give one of them")

    def options(self) -> list[str]:
        """The options that say so."""
        said = {"--quiet": self.quiet, "--verbose": self.verbose, "--json": self.as_json}
        return [option for option, given in said.items() if given]


def config_from_options(
    source: str,
    data: tuple[str, str | None, str | None, str | None],
    fitting: tuple[str | None, str | None, int | None, str | None],
    seed: int | None,
    precision: str | None,
    changes: list[str],
) -> models.Config:
    """The config of the study "mixture" that options stand for."""
    file, columns, label, weight = data
    components, covariance, restarts, criterion = fitting
    table = {
        "study": "mixture",
        "name": models.name_from(pathlib.Path(file)),
        "seed": seed,
        "precision": precision,
        "data": {
            "source": file,
            "columns": columns.split(",") if columns else None,
            "label": label,
            "weight": weight,
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
    """The same without what was left out."""
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
