"""The `jgmm` command: a thin layer over the runner.

JAX is imported inside the sub-commands that need it, so that `jgmm --help` is instant.
"""

import contextlib
import functools
import io
import json
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

from jgmm.workbench import cache, digest, signals, terminal, toml
from jgmm.workbench import config as configs
from jgmm.workbench.files import UserError
from jgmm.workbench.options import (
    Columns,
    Components,
    Covariance,
    Criterion,
    File,
    Json,
    Label,
    Output,
    Overrides,
    Precision,
    Quiet,
    Seed,
    Starts,
    Verbose,
    Voice,
    Weight,
    asked,
)
from jgmm.workbench.terminal import visible

try:
    import typer
except ImportError as error:  # pragma: no cover - the test environment has every extra
    raise ImportError('the workbench needs more packages: pip install "jgmm[workbench]"') from error

if TYPE_CHECKING:
    from jgmm.reading import Team

P = ParamSpec("P")


EXIT_CODES = """
Exit status: 0, done; 1, a defect of jgmm, with its traceback; 2, something in the command, the
config or the data that can be put right; 3, one of several processes was lost; 4, no fit ended in
usable parameters; 130, Ctrl-C; 143, told to end (SIGTERM).
"""

app = typer.Typer(
    name="jgmm",
    help="Gaussian mixtures in JAX: run studies, fit files, look at what came out.",
    epilog=" ".join(EXIT_CODES.split()),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    with signals.obeyed():
        app()


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Print the version where it is asked for."""
    if version:
        import jgmm

        print(f"jgmm {jgmm.__version__}")
        raise typer.Exit


def command(*examples: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Add a sub-command that shows what a person can put right without a traceback.

    Exit status 2 stands for such a problem, 4 for a fit that failed, 130 for Ctrl-C, 143 for
    SIGTERM; any other exception is a defect of ours, and keeps its traceback.

    Args:
      examples: command lines for its help.
    """

    def add(function: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):  # names may be what it cannot encode
                    stream.reconfigure(errors="backslashreplace")
            try:
                function(*args, **kwargs)
            except typer.Exit:  # all has been said
                raise
            except (KeyboardInterrupt, signals.Stopped):
                raise typer.Exit(_ended()) from None
            except UserError as error:
                raise typer.Exit(_complain(str(error), 2)) from None
            except Exception as error:
                if signals.asked() is not None:  # what came of it, as in a library's import
                    raise typer.Exit(_ended()) from None
                status = _status(error)
                if status is None:
                    raise
                raise typer.Exit(_complain(str(error), status)) from None

        paragraphs = (function.__doc__ or "").split("\n\n")
        shown = "\n\n".join(" ".join(each.split()) for each in paragraphs)
        app.command(help=shown, epilog="\n\n".join(["Examples:", *examples]))(guarded)
        return guarded

    return add


def _ended() -> int:
    number = signals.asked() or signal.SIGINT
    what = "interrupted" if number == signal.SIGINT else "told to end"
    return _complain(f"{what}; nothing was left behind", 128 + number)  # as shells expect


def _complain(text: str, status: int) -> int:
    for line in text.splitlines() or ["of an unknown kind"]:
        print(f"error: {visible(line)}", file=sys.stderr)
    return status


def _status(error: Exception) -> int | None:
    """The exit status of an exception whose text is written for people; None for a defect."""
    from jgmm.status import DataError, FitError

    return 2 if isinstance(error, DataError) else 4 if isinstance(error, FitError) else None


@command(
    "jgmm run configs/faithful.toml",
    "jgmm run configs/iris.toml --set fit.n_restarts=64 --output results",
    "jgmm run study.toml --json | jq .metrics.bic",
)
def run(
    config: Annotated[pathlib.Path, typer.Argument(help="A TOML file, for instance in configs/.")],
    overrides: Overrides = None,
    output: Output = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
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
    voice, checked = Voice(quiet, verbose, as_json), configs.load(config, changes)
    if coordinator is None and not cluster:
        if process is not None:
            raise UserError("--process goes with --coordinator HOST:PORT and --processes N")
        if processes is not None and processes > 1:
            _launch(config, changes, voice, processes)
            return
        _run(checked, config, changes, voice)
        return
    if not cluster and (processes is None or process is None or process >= processes):
        raise UserError("--coordinator goes with --processes N and --process I, from 0 to N - 1")
    _share(checked, config, changes, voice, (coordinator, processes, process))


def _launch(config: pathlib.Path, changes: list[str], voice: Voice, n_processes: int) -> None:
    """The same command in several processes."""
    from jgmm.workbench.launch import LOST, LostMember, launch

    settings = [part for change in changes for part in ("--set", change)]
    arguments = ["run", *settings, *voice.options(), "--", str(config)]
    try:
        status = launch(arguments, n_processes)
    except LostMember as error:
        status = _complain(str(error), LOST)
    if status:
        raise typer.Exit(status)


def _share(
    checked: configs.Config,
    config: pathlib.Path,
    changes: list[str],
    voice: Voice,
    place: tuple[str | None, int | None, int | None],
) -> None:
    """One of several processes."""
    cache.use_compilation_cache()
    from jgmm import processes
    from jgmm.workbench.launch import LOST

    try:
        team = processes.join(*place)
        _run(checked, config, changes, voice, team)
    except processes.LostProcess as error:
        # At its end a process waits for the others, of which one is no more.
        _complain(str(error), LOST)
        sys.stderr.flush()
        os._exit(LOST)


@command(
    "jgmm fit measurements.csv",
    "jgmm fit measurements.csv --components 1:5 --covariance all --criterion icl",
    "jgmm fit iris --label species --json | jq .metrics",
)
def fit(
    file: File,
    components: Components = None,
    covariance: Covariance = None,
    columns: Columns = None,
    label: Label = None,
    weight: Weight = None,
    restarts: Starts = None,
    criterion: Criterion = None,
    seed: Seed = None,
    precision: Precision = None,
    overrides: Overrides = None,
    output: Output = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Fit mixtures to a file, choose K and the covariance model, and leave a report.

    With nothing but a file: one to nine components under four models, chosen by BIC. It is the
    study "mixture" without a config file, and leaves a run folder. To see the table alone, and
    leave nothing behind, use "jgmm select".
    """
    data = (file, columns, label, weight)
    fitting = (components, covariance, restarts, criterion)
    changes = [*(overrides or []), *_output(output)]
    voice = Voice(quiet, verbose, as_json)
    _run(asked("jgmm fit", data, fitting, seed, precision, changes), None, changes, voice)


@command(
    "jgmm select measurements.csv",
    "jgmm select faithful --components 1:6 --covariance all",
    "jgmm select iris --columns 'petal length (cm),petal width (cm)' --json",
)
def select(
    file: File,
    components: Components = None,
    covariance: Covariance = None,
    columns: Columns = None,
    label: Label = None,
    weight: Weight = None,
    restarts: Starts = None,
    criterion: Criterion = None,
    seed: Seed = None,
    precision: Precision = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Print the table over K and covariance models, and leave no file behind.

    The same fits and the same choice as "jgmm fit" with the same options, which also leaves a run
    folder: parameters, assignments, pictures and a report of the model chosen.
    """
    data = (file, columns, label, weight)
    fitting = (components, covariance, restarts, criterion)
    config = asked("jgmm select", data, fitting, seed, precision, overrides or [])
    _prepare()
    from jgmm.workbench import mixture_study, runner, storage

    progress = not (quiet or as_json) and sys.stderr.isatty()
    with _stdout_for_results(as_json), runner.opened(config, progress) as found:
        rows = mixture_study.table(mixture_study.choose(found))
    chosen = next((row for row in rows if row["chosen"] == "yes"), rows[0])
    if as_json:
        print(storage.json_text({"criterion": config.fit.criterion, "table": rows}))
        return
    crowded = not terminal.grid(rows, config.fit.criterion, chosen)
    most = None if crowded else terminal.MOST_ROWS
    terminal.fits(rows, config.fit.criterion, config.fit.n_restarts, most)


def _output(output: pathlib.Path | None) -> list[str]:
    return [] if output is None else [f"output={toml.value_to_toml(str(output))}"]


def _prepare() -> None:
    os.environ.setdefault("MPLBACKEND", "Agg")  # a run needs no window
    cache.use_compilation_cache()


@contextlib.contextmanager
def _stdout_for_results(as_json: bool) -> Iterator[None]:
    """Send what anything else prints to standard error, if standard output is for JSON."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def _run(
    config: configs.Config,
    path: pathlib.Path | None,
    changes: list[str],
    voice: Voice,
    team: "Team | None" = None,
) -> None:
    """Run a config that has been checked, and say what came out and where it is."""
    _prepare()
    from jgmm.workbench import runner

    progress = False if voice.quiet or voice.as_json else None
    with _stdout_for_results(voice.as_json):
        if path is None:
            folder = runner.run_config(config, progress=progress)
        else:  # by path, so that studies beside the config are found
            folder = runner.run_config(path, changes, progress=progress, team=team)
    if team is not None and team.share[0]:
        return
    _report(folder, voice)
    number = signals.asked()
    if number is not None:  # the study has made the best of it
        what = "interrupted; the folder holds the best so far, and a checkpoint carries on"
        raise typer.Exit(_complain(what, 128 + number))


def _report(folder: pathlib.Path, voice: Voice) -> None:
    """Say what a run found."""
    if voice.quiet and not voice.as_json:
        print(folder)
        return
    found = digest.read(folder)
    if voice.as_json:
        _print_json(found.plain())
        return
    terminal.summary(found, None if voice.verbose else terminal.MOST_ROWS)
    if voice.verbose:
        _print_mixture(folder / "mixture.safetensors")
        _print_files(folder)
    terminal.say(f"report: {folder / 'report.html'}")


def _print_json(value: Any) -> None:
    from jgmm.workbench import storage

    print(storage.json_text(value))


def _print_mixture(path: pathlib.Path) -> None:
    if path.is_file():
        terminal.mixture(path.name, digest.parameters(path))


def _print_files(folder: pathlib.Path) -> None:
    for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        terminal.say(f"  {file}")


@command("jgmm datasets", "jgmm datasets --json")
def datasets(as_json: Json = False) -> None:
    """List the built-in data sets."""
    from jgmm.workbench import datasets as library

    entries = library.describe()
    if as_json:
        _print_json([vars(entry) for entry in entries])
        return
    table = terminal.table("name", "what it is")
    for entry in entries:
        names = ", ".join(entry.columns[:7]) + (", …" if len(entry.columns) > 7 else "")
        lines = [
            entry.summary,
            f"{entry.rows} rows; {len(entry.columns)} columns: {names}",
            *([f"labels: {', '.join(entry.labels)}"] if entry.labels else []),
            f"source: {entry.source}",
        ]
        for i, line in enumerate(lines):
            last = i == len(lines) - 1
            table.add_row(entry.name if i == 0 else "", terminal.cell(line), end_section=last)
    terminal.console().print(table)


@command(
    "jgmm show runs/faithful-20250101-120000",
    "jgmm show runs/faithful-20250101-120000/mixture.safetensors --json",
)
def show(
    path: Annotated[pathlib.Path, typer.Argument(help="A run folder or a .safetensors file.")],
    as_json: Json = False,
) -> None:
    """Show what a run found, or the parameters of a saved mixture."""
    if as_json:
        _print_json(digest.read(path).plain() if path.is_dir() else digest.parameters(path))
    elif path.is_dir():
        _report(path, Voice(verbose=True))
    else:
        terminal.mixture(path.name, digest.parameters(path))


@command("jgmm compare runs/faithful-20250101-120000 runs/faithful-20250102-093000")
def compare(
    first: Annotated[pathlib.Path, typer.Argument(help="A run folder.")],
    second: Annotated[pathlib.Path, typer.Argument(help="Another run folder.")],
    as_json: Json = False,
) -> None:
    """Show two runs side by side: settings, criteria, parameters and assignments.

    Settings only where they differ; components are paired so that their means are close; the
    adjusted Rand index says how far the assignments of the same samples agree.
    """
    from jgmm.workbench import comparison

    found = comparison.compare(*map(digest.read, (first, second)))
    if as_json:
        _print_json(found)
    else:
        comparison.show(found, [str(run.name or run) for run in (first, second)])


@command("jgmm schema > schema.json", "jgmm schema configs/*.toml > configs/schema.json")
def schema(
    files: Annotated[
        list[pathlib.Path] | None, typer.Argument(help="Configs whose studies to know, too.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Of this study's [settings] instead of the whole file.")
    ] = None,
) -> None:
    """Print the JSON Schema of config files, for editors that complete and check them.

    It knows the settings of the built-in studies and of those the given configs name. A TOML file
    says where it is in its first line: "#:schema ./schema.json" (Taplo, Even Better TOML).
    """
    from jgmm.workbench import studies

    if study is not None:
        found = studies.find_study(study, [pathlib.Path.cwd()]).Settings.model_json_schema()
    else:
        found = studies.schema(files or [])
    print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
