"""The sub-commands that fit: `jgmm run`, `jgmm fit` and `jgmm select`."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jgmm._core.errors import UserError
from jgmm.workbench.cli import terminal
from jgmm.workbench.cli.app import Exit, command, complain, print_json
from jgmm.workbench.cli.options import (
    Cluster,
    Columns,
    Components,
    ConfigFile,
    Coordinator,
    Covariance,
    Criterion,
    Decimal,
    File,
    Header,
    Id,
    Json,
    Label,
    Na,
    Output,
    Overrides,
    Precision,
    Process,
    Processes,
    Quiet,
    Restarts,
    Seed,
    Separator,
    Verbose,
    Verbosity,
    Weight,
    config_from_options,
)
from jgmm.workbench.config import toml
from jgmm.workbench.runs import summary
from jgmm.workbench.system import signals

if TYPE_CHECKING:
    from jgmm.streaming.reader import ProcessGroup
    from jgmm.workbench.config.models import Config


@command(
    "jgmm run configs/faithful.toml",
    "jgmm run configs/iris.toml --set fit.n_restarts=64 --output results",
    "jgmm run study.toml --json | jq .metrics.bic",
)
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    output: Output = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
    processes: Processes = None,
    coordinator: Coordinator = None,
    process: Process = None,
    cluster: Cluster = False,
) -> None:
    """Run the study that a config file describes, and leave a run folder with a report."""
    from jgmm.workbench.config import models

    changes = [*(overrides or []), *_output(output)]
    verbosity, checked = Verbosity(quiet, verbose, as_json), models.load(config, changes)
    if coordinator is None and not cluster:
        if process is not None:
            raise UserError("--process goes with --coordinator HOST:PORT and --processes N")
        if processes is not None and processes > 1:
            _launch(config, changes, verbosity, processes)
            return
        _run(checked, verbosity, config)
        return
    if not cluster and (processes is None or process is None or process >= processes):
        raise UserError("--coordinator goes with --processes N and --process I, from 0 to N - 1")
    _run_in_group(checked, verbosity, config, (coordinator, processes, process))


def _launch(
    config: pathlib.Path, changes: list[str], verbosity: Verbosity, n_processes: int
) -> None:
    """Run the same command in several processes of this machine."""
    from jgmm.workbench.system.launch import LOST, LostMember, launch

    settings = [part for change in changes for part in ("--set", change)]
    arguments = ["run", *settings, *verbosity.options(), "--", str(config)]
    try:
        status = launch(arguments, n_processes)
    except LostMember as error:
        status = complain(str(error), LOST)
    if status:
        raise Exit(status)


def _run_in_group(
    checked: "Config",
    verbosity: Verbosity,
    path: pathlib.Path,
    place: tuple[str | None, int | None, int | None],
) -> None:
    """Run a config as one of several processes; the place is coordinator, number and rank."""
    _use_compilation_cache()
    from jgmm.distributed import processes
    from jgmm.workbench.system.launch import LOST

    try:
        group = processes.join(*place)
        _run(checked, verbosity, path, group)
    except processes.LostProcess as error:
        # A normal exit would wait for the other processes, and one of them is gone.
        complain(str(error), LOST)
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
    id: Id = None,
    separator: Separator = None,
    decimal: Decimal = None,
    na: Na = None,
    header: Header = None,
    restarts: Restarts = None,
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

    The default is one to nine components under four covariance models, chosen by BIC. The command
    runs the study "mixture" without a config file, and leaves a run folder. To print the table
    alone and leave no file behind, use "jgmm select".
    """
    data: dict[str, object] = {"source": file, "columns": columns, "label": label, "weight": weight}
    data |= {"id": id, "separator": separator, "decimal": decimal, "na": na, "header": header}
    fitting = (components, covariance, restarts, criterion)
    changes = [*(overrides or []), *_output(output)]
    verbosity = Verbosity(quiet, verbose, as_json)
    _run(config_from_options("jgmm fit", data, fitting, seed, precision, changes), verbosity)


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
    id: Id = None,
    separator: Separator = None,
    decimal: Decimal = None,
    na: Na = None,
    header: Header = None,
    restarts: Restarts = None,
    criterion: Criterion = None,
    seed: Seed = None,
    precision: Precision = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Print the table of all fits over K and covariance models, and leave no file behind.

    The fits and the choice are those of "jgmm fit" with the same options. That command also leaves
    a run folder with the parameters, assignments, pictures and a report of the chosen model.
    """
    data: dict[str, object] = {"source": file, "columns": columns, "label": label, "weight": weight}
    data |= {"id": id, "separator": separator, "decimal": decimal, "na": na, "header": header}
    fitting = (components, covariance, restarts, criterion)
    config = config_from_options("jgmm select", data, fitting, seed, precision, overrides or [])
    _prepare()
    from jgmm.workbench.runs import runner
    from jgmm.workbench.studies import mixture

    progress = not (quiet or as_json) and sys.stderr.isatty()
    with _stdout_for_results(as_json), runner.study_context(config, progress) as study:
        rows = mixture.table(mixture.select_mixture(study))
        data_as_read = runner.describe_data(study.data)
    chosen = next((row for row in rows if row["chosen"] == "yes"), rows[0])
    if as_json:
        print_json({"criterion": config.fit.criterion, "table": rows, "data": data_as_read})
        return
    terminal.data(data_as_read)
    too_wide = not terminal.grid(rows, config.fit.criterion, chosen)
    most = None if too_wide else terminal.MOST_ROWS  # all of them, where the grid is not shown
    terminal.fits(rows, config.fit.criterion, config.fit.n_restarts, most, "with --json")


def _output(output: pathlib.Path | None) -> list[str]:
    """Return the option --output as an override of the config."""
    return [] if output is None else [f"output={toml.value_to_toml(str(output))}"]


def _prepare() -> None:
    """Set up JAX and matplotlib before either is imported."""
    os.environ.setdefault("MPLBACKEND", "Agg")  # a run opens no window
    _use_compilation_cache()


def _use_compilation_cache() -> None:
    """Keep compiled programs between runs; where that cannot be, a message says so."""
    from jgmm._core import compilation_cache

    try:
        compilation_cache.use_compilation_cache()
    except UserError as error:
        print(f"jgmm: no compilation cache: {error}", file=sys.stderr)


@contextlib.contextmanager
def _stdout_for_results(as_json: bool) -> Iterator[None]:
    """Redirect whatever is printed to standard error, if standard output is for JSON."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def _run(
    config: "Config",
    verbosity: Verbosity,
    path: pathlib.Path | None = None,
    group: "ProcessGroup | None" = None,
) -> None:
    """Run a validated config, and print its results and the place of its report.

    Args:
      config: the config, read and validated.
      verbosity: how much to print.
      path: the file it was read from, near which the module of the study may be.
      group: the processes that share the work.
    """
    _prepare()
    from jgmm.workbench.runs import runner

    progress = False if verbosity.quiet or verbosity.as_json else None
    with _stdout_for_results(verbosity.as_json):
        folder = runner.run_config(config, path=path, progress=progress, group=group)
    if group is not None and group.rank_and_size[0]:
        return
    report(folder, verbosity)
    number = signals.stop_requested()
    if number is not None:  # the study ended early, with results
        what = "interrupted; the folder holds the best so far, and a checkpoint carries on"
        raise Exit(complain(what, 128 + number))


def report(folder: pathlib.Path, verbosity: Verbosity) -> None:
    """Print the results of a run."""
    if verbosity.quiet and not verbosity.as_json:
        print(folder)
        return
    found = summary.read(folder)
    if verbosity.as_json:
        print_json(found.plain())
        return
    terminal.summary(found, None if verbosity.verbose else terminal.MOST_ROWS)
    if verbosity.verbose:
        _print_mixture(folder / "mixture.safetensors")
        _print_files(folder)
    terminal.say(f"report: {folder / 'report.html'}")


def _print_mixture(path: pathlib.Path) -> None:
    if path.is_file():
        terminal.mixture(path.name, summary.parameters(path))


def _print_files(folder: pathlib.Path) -> None:
    for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        terminal.say(f"  {file}")
