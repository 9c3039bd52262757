"""The `jgmm` command: a thin layer over the runner.

JAX is imported inside the sub-commands that need it, so that `jgmm --help` is instant.
"""

import functools
import io
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

from jgmm.workbench import cache, signals, toml
from jgmm.workbench import config as configs
from jgmm.workbench.files import UserError, read_file

try:
    import rich.console
    import rich.markup
    import rich.table
    import typer
except ImportError as error:  # pragma: no cover - the test environment has every extra
    raise ImportError('the workbench needs more packages: pip install "jgmm[workbench]"') from error

if TYPE_CHECKING:
    from jgmm.streaming import Team

P = ParamSpec("P")

MAX_COUNTS = 10_000  # numbers of components tried in one go
MAX_JSON = 1 << 26  # bytes of metrics or environment of a run

app = typer.Typer(
    name="jgmm",
    help="Gaussian mixtures in JAX: run studies, fit files, look at what came out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and no summary.")]
Output = Annotated[pathlib.Path | None, typer.Option(help="Folder in which the run folder is put.")]


def main() -> None:
    """Run the command line."""
    with signals.obeyed():
        app()


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Add a sub-command that shows what a person can put right without a traceback.

    Exit status 2 stands for such a problem, 130 for Ctrl-C, 143 for SIGTERM; any other exception
    is a defect of ours, and keeps its traceback.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # names may be what it cannot encode
                stream.reconfigure(errors="backslashreplace")
        try:
            function(*args, **kwargs)
        except (KeyboardInterrupt, signals.Stopped):
            raise typer.Exit(_ended()) from None
        except UserError as error:
            raise typer.Exit(_complain(str(error), 2)) from None
        except Exception as error:
            if signals.asked() is not None:  # what came of it, as in a library's import
                raise typer.Exit(_ended()) from None
            if not isinstance(error, _shown()):
                raise
            raise typer.Exit(_complain(str(error), 2)) from None

    app.command()(guarded)
    return guarded


def _ended() -> int:
    number = signals.asked() or signal.SIGINT
    what = "interrupted" if number == signal.SIGINT else "told to end"
    return _complain(f"{what}; nothing was left behind", 128 + number)  # as shells expect


def _complain(text: str, status: int) -> int:
    for line in text.splitlines() or ["of an unknown kind"]:
        print(f"error: {visible(line)}", file=sys.stderr)
    return status


def visible(text: str) -> str:
    r"""Text with escapes for what a terminal would obey instead of show.

    >>> print(visible("red: \x1b[31m"))
    red: \x1b[31m
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _cell(text: object) -> str:
    """Text for a table, none of which is taken for markup."""
    return rich.markup.escape(visible(str(text)))


def _shown() -> tuple[type[Exception], ...]:
    """The exceptions whose text is written for people."""
    from jgmm.status import DataError, FitError

    return DataError, FitError


@command
def run(
    config: Annotated[pathlib.Path, typer.Argument(help="A TOML file, for instance in configs/.")],
    overrides: Overrides = None,
    output: Output = None,
    quiet: Quiet = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Share the work among so many processes.")
    ] = None,
    coordinator: Annotated[
        str | None, typer.Option(help="HOST:PORT of process 0, where they are started one by one.")
    ] = None,
    process: Annotated[int | None, typer.Option(min=0, help="Which of them this is.")] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="This is one of them, under SLURM or the like.")
    ] = False,
) -> None:
    """Run the study that a config file describes."""
    changes = [*(overrides or []), *_output(output)]
    checked = configs.load(config, changes)
    if coordinator is None and not cluster:
        if process is not None:
            raise UserError("--process goes with --coordinator HOST:PORT and --processes N")
        if processes is not None and processes > 1:
            _launch(config, changes, quiet, processes)
            return
        _run(checked, config, changes, quiet)
        return
    if not cluster and (processes is None or process is None or process >= processes):
        raise UserError("--coordinator goes with --processes N and --process I, from 0 to N - 1")
    _share(checked, config, changes, quiet, (coordinator, processes, process))


def _launch(config: pathlib.Path, changes: list[str], quiet: bool, n_processes: int) -> None:
    """The same command in several processes."""
    from jgmm.workbench.launch import launch

    settings = [part for change in changes for part in ("--set", change)]
    arguments = ["run", *settings, *(["--quiet"] if quiet else []), "--", str(config)]
    status = launch(arguments, n_processes)
    if status:
        raise typer.Exit(status)


def _share(
    checked: configs.Config,
    config: pathlib.Path,
    changes: list[str],
    quiet: bool,
    place: tuple[str | None, int | None, int | None],
) -> None:
    """One of several processes."""
    cache.use_compilation_cache()
    from jgmm import processes

    try:
        team = processes.join(*place)
        _run(checked, config, changes, quiet, team)
    except processes.LostProcess as error:
        # At its end a process waits for the others, of which one is no more.
        _complain(str(error), 3)
        sys.stderr.flush()
        os._exit(3)


@command
def fit(
    file: Annotated[str, typer.Argument(help="A .csv, .parquet or .npy file, or a built-in name.")],
    components: Annotated[
        str | None, typer.Option(help="K: 3, or 1:9 (the default), or 2,3,5.")
    ] = None,
    covariance: Annotated[
        str | None, typer.Option(help='Models, by comma: full (the default), tied, …; or "all".')
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to model, by comma.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of known classes.")] = None,
    weight: Annotated[str | None, typer.Option(help="Column of sample weights.")] = None,
    restarts: Annotated[int | None, typer.Option(help="Starts per model.")] = None,
    criterion: Annotated[str | None, typer.Option(help="bic, aic, aicc, icl or held_out.")] = None,
    seed: Annotated[int | None, typer.Option(help="The source of all randomness.")] = None,
    precision: Annotated[str | None, typer.Option(help="float64 or float32.")] = None,
    overrides: Overrides = None,
    output: Output = None,
    quiet: Quiet = False,
) -> None:
    """Fit mixtures to a file and choose among them: the study "mixture" without a config file."""
    data = {
        "source": file,
        "columns": columns.split(",") if columns else None,
        "label": label,
        "weight": weight,
    }
    fitting = {
        "n_components": parse_components(components) if components is not None else None,
        "covariance": covariance.split(",") if covariance is not None else None,
        "n_restarts": restarts,
        "criterion": criterion,
    }
    table = {
        "study": "mixture",
        "name": configs.name_from(pathlib.Path(file)),
        "seed": seed,
        "precision": precision,
        "data": _given(data),
        "fit": _given(fitting),
    }
    changes = [*(overrides or []), *_output(output)]
    _run(configs.from_table(_given(table), changes, source="jgmm fit"), None, changes, quiet)


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _output(output: pathlib.Path | None) -> list[str]:
    return [] if output is None else [f"output={toml.value_to_toml(str(output))}"]


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


def _run(
    config: configs.Config,
    path: pathlib.Path | None,
    changes: list[str],
    quiet: bool,
    team: "Team | None" = None,
) -> None:
    """Run a config that has been checked, and say what came out and where it is."""
    os.environ.setdefault("MPLBACKEND", "Agg")  # a run needs no window
    cache.use_compilation_cache()
    from jgmm.workbench import runner

    progress = False if quiet else None
    if path is None:
        folder = runner.run_config(config, progress=progress)
    else:  # by path, so that studies beside the config are found
        folder = runner.run_config(path, changes, progress=progress, team=team)
    if team is not None and team.share[0]:
        return
    if quiet:
        print(folder)
    else:
        _print_metrics(folder)
        print(f"report: {visible(str(folder / 'report.html'))}")
    number = signals.asked()
    if number is not None:  # the study has made the best of it
        what = "interrupted; the folder holds the best so far, and a checkpoint carries on"
        raise typer.Exit(_complain(what, 128 + number))


@command
def datasets() -> None:
    """List the built-in data sets."""
    from jgmm.workbench import datasets as library

    table = rich.table.Table("name", "rows", "columns", "labels", "what it is")
    for entry in library.describe():
        shown = ", ".join(entry.columns[:8]) + (", …" if len(entry.columns) > 8 else "")
        cells = (entry.name, str(entry.rows), shown, ", ".join(entry.labels), entry.summary)
        table.add_row(*map(_cell, cells))
    _console().print(table)


@command
def show(
    path: Annotated[pathlib.Path, typer.Argument(help="A run folder or a .safetensors file.")],
) -> None:
    """Show the headline numbers of a run, or the parameters of a saved mixture."""
    if path.is_dir():
        _print_metrics(path)
        for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
            print(f"  {visible(str(file))}")
    else:
        _print_mixture(path)


def _print_metrics(folder: pathlib.Path) -> None:
    metrics, environment = _read(folder, "metrics.json"), _read(folder, "environment.json")
    title = f"{folder.name}, {environment.get('seconds', '?')} s"
    table = rich.table.Table("metric", "value", title=_cell(title))
    for name, value in metrics.items():
        table.add_row(_cell(name), _cell(_number(value)))
    _console().print(table)


def _print_mixture(path: pathlib.Path) -> None:
    import jax

    from jgmm.workbench import storage

    jax.config.update("jax_enable_x64", True)  # to show what is stored, whatever its precision
    mixture = storage.load_mixture(path)
    names = storage.mixture_columns(path) or [f"x{i}" for i in range(mixture.n_features)]
    weights, means, variances = map(
        storage.plain, (mixture.weights, mixture.means, mixture.variances)
    )
    title = f"{path.name}: {mixture.covariance}, K={mixture.n_components}, D={mixture.n_features}"
    table = rich.table.Table("component", "weight", "column", "mean", "standard deviation")
    table.title = _cell(title)
    for k, weight in enumerate(weights):
        for d, name in enumerate(names):
            first = (str(k), _number(weight)) if d == 0 else ("", "")
            spread = _number(variances[k][d] ** 0.5)
            table.add_row(*first, _cell(name), _number(means[k][d]), spread)
    _console().print(table)


@command
def compare(
    first: Annotated[pathlib.Path, typer.Argument(help="A run folder.")],
    second: Annotated[pathlib.Path, typer.Argument(help="Another run folder.")],
) -> None:
    """Show two runs side by side: what differs between their configs, and every metric."""
    settings = [dict(_flat(toml.read_toml(run / "config.toml"))) for run in (first, second)]
    surroundings = [_read(run, "environment.json") for run in (first, second)]
    metrics = [_read(run, "metrics.json") for run in (first, second)]
    heads = [_cell(run.name or run) for run in (first, second)]
    sections = (
        ("config", settings, False),
        ("environment", surroundings, False),
        ("metrics", metrics, True),
    )
    for title, (left, right), everything in sections:
        table = rich.table.Table("", *heads, title=title, title_justify="left")
        for key in dict.fromkeys([*left, *right]):
            a, b = left.get(key, "–"), right.get(key, "–")
            if everything or a != b:
                style = "bold" if everything and a != b else None
                cells = (key, _number(a), _number(b))
                table.add_row(*map(_cell, cells), style=style)
        if table.row_count:
            _console().print(table)
        else:
            _console().print(f"{title}: the same")


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _read(folder: pathlib.Path, name: str) -> dict[str, Any]:
    import json

    try:
        content = json.loads(read_file(folder / name, MAX_JSON))
    except OSError as error:
        raise UserError(f"{folder}: not the folder of a run: {name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{folder / name}: damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{folder / name}: damaged: not a table")
    return content


def _number(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _console() -> rich.console.Console:
    return rich.console.Console(highlight=False, emoji=False)


@command
def schema(
    study: Annotated[
        str | None, typer.Option(help="Of this study's [settings] instead of the whole file.")
    ] = None,
) -> None:
    """Print the JSON Schema of a config file, for editors that check while one types."""
    import json

    found = configs.schema()
    if study is not None:
        from jgmm.workbench import runner

        found = runner.find_study(study, [pathlib.Path.cwd()]).Settings.model_json_schema()
    print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
