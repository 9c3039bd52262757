"""From a config to a finished run folder: check everything, run the study, write what it found."""

import contextlib
import difflib
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jgmm.workbench import memory, storage
from jgmm.workbench.config import Config, Strict, from_table, load, validate
from jgmm.workbench.config import schema as config_schema
from jgmm.workbench.digest import NOTES
from jgmm.workbench.files import UserError, explained, write_bytes, write_text
from jgmm.workbench.folder import RunFolder, run_folder
from jgmm.workbench.toml import to_toml

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jgmm.lanes import Progress
    from jgmm.mixture import Mixture
    from jgmm.reading import Team
    from jgmm.results import FitResult
    from jgmm.workbench.datasets import Dataset

BUILT_IN = {
    "mixture": "jgmm.workbench.mixture_study",
    "classify": "jgmm.workbench.classify_study",
    "stream": "jgmm.workbench.stream_study",
}

MODULE = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
"""How the dotted name of a module is written."""

MAX_TABLE_FEATURES = 32
"""A parameter table of more features is only in the parameter file, not in the report."""


@dataclass(eq=False)
class Run:
    """What a study is given: its settings and data, and the places to put what it finds.

    Attributes:
      config: the checked config.
      settings: the study's own `Settings`.
      key: JAX key made from the config's seed.
      data: the data set, or None for a study that makes its own.
      path: folder under construction; every file a study leaves belongs in it.
      show_progress: whether `progress` draws anything.
      team: the processes that share the work, if there are several.
      metrics, notes, tables, figures, mixtures: what has been found so far.
    """

    config: Config
    settings: Any
    key: Any
    data: "Dataset | None"
    path: pathlib.Path
    show_progress: bool = False
    team: "Team | None" = None
    metrics: dict[str, float | int | str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[storage.Table] = field(default_factory=list)
    figures: list[storage.Figure] = field(default_factory=list)
    mixtures: list[storage.MixtureTable] = field(default_factory=list)

    def metric(self, name: str, value: Any) -> None:
        """Give a headline number, or a word: metrics.json, the report's top, the terminal."""
        if name in self.metrics:
            raise ValueError(f"the metric {name!r} was given already")
        number = storage.plain(value)
        if not isinstance(number, float | int | str):
            raise TypeError(f"the metric {name!r} must be one number or text, not {number!r}")
        self.metrics[name] = number

    def note(self, text: str) -> None:
        """Add a paragraph to the report."""
        self.notes.append(text)

    def table(
        self, name: str, rows: Iterable[Mapping[str, Any]], caption: str = "", show: bool = True
    ) -> None:
        """Write tables/NAME.csv and, unless show is false, put it in the report.

        Each row is a dictionary from column to value.
        """
        plain = [storage.plain(row) for row in rows]
        storage.write_csv(self._place("tables", name, ".csv"), plain)
        if show:
            self.tables.append(storage.Table(name, caption, plain))

    def figure(self, name: str, figure: "Figure", caption: str = "") -> None:
        """Write a matplotlib figure as plots/NAME.png and show it in the report."""
        from jgmm.workbench import plot

        content = plot.png(figure)
        if "matplotlib.pyplot" in sys.modules:  # pyplot holds on to the figures it made
            sys.modules["matplotlib.pyplot"].close(figure)
        write_bytes(self._place("plots", name, ".png"), content)
        self.figures.append(storage.Figure(name, caption, content))

    def mixture(self, name: str, mixture: "Mixture", columns: Sequence[str] | None = None) -> None:
        """Write parameters as NAME.safetensors and show them in the report.

        Args:
          name: of the file.
          mixture: one mixture, without a restart axis.
          columns: names of the D features; default: those of the data, or x0, x1, …
        """
        names = list(columns) if columns is not None else self._column_names(mixture.n_features)
        storage.save_mixture(self._place("", name, ".safetensors"), mixture, names)
        if mixture.n_features > MAX_TABLE_FEATURES:
            self.note(f"The parameters of {name} are in {name}.safetensors.")
            return
        weights, means, covariances = (
            storage.plain(value) for value in (mixture.weights, mixture.means, mixture.covariances)
        )
        self.mixtures.append(storage.MixtureTable(name, names, weights, means, covariances))

    def restarts(self, result: "FitResult", name: str = "restarts") -> None:
        """Write how each restart of a fit ended as NAME.csv."""
        from jgmm.status import Status

        ends = result if result.restarts is None else result.restarts
        columns = (ends.log_likelihood, ends.status, ends.n_steps)
        values = (
            column if isinstance(column, list) else [column]
            for column in map(storage.plain, columns)
        )
        rows = [
            {
                "restart": index,
                "log_likelihood": log_likelihood,
                "status": Status(status).name.lower(),
                "n_steps": n_steps,
            }
            for index, (log_likelihood, status, n_steps) in enumerate(zip(*values, strict=True))
        ]
        storage.write_csv(self._place("", name, ".csv"), rows)

    @contextlib.contextmanager
    def progress(self, total: int, description: str) -> Iterator[Callable[["Progress"], None]]:
        """Show a progress bar on the terminal for the fits within the block.

        Args:
          total: steps at most, usually `max_steps`; the time left is for that many.
          description: what is being done.

        Yields:
          A callable for `jgmm.fit(progress=…)`. Without a terminal nothing is shown.
        """
        import tqdm.auto as bars

        make: Any = bars.tqdm  # its annotations do not describe its arguments
        options = {"unit": "step", "leave": False, "file": sys.stderr}
        hidden = not self.show_progress
        with make(total=total, desc=description, disable=hidden, **options) as bar:

            def show(progress: "Progress") -> None:
                bar.set_postfix_str(
                    f"log-likelihood {float(progress.log_likelihood):.6g}, "
                    f"{int(progress.n_running)} of {int(progress.n_restarts)} running",
                    refresh=False,
                )
                bar.total = int(progress.max_steps)
                bar.update(int(progress.step) - bar.n)

            yield show

    def foresee(self, problem: memory.Problem, table: str = "fit") -> None:
        """Refuse fits for which there is not enough memory; tell if they need much of it.

        Args:
          problem: what is to be fitted.
          table: of the config in which its settings are, for proposals.

        Raises:
          UserError: it does not fit; the text says what would.
        """
        told = memory.foresee(problem, table)
        if told:
            print(f"jgmm: {told}", file=sys.stderr)

    def _column_names(self, n_features: int) -> list[str]:
        if self.data is not None and len(self.data.columns) == n_features:
            return list(self.data.columns)
        return [f"x{i}" for i in range(n_features)]

    def _place(self, folder: str, name: str, suffix: str) -> pathlib.Path:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"{name!r} cannot name a file: use letters, digits, '_', '-', '.'")
        path = self.path / folder / (name + suffix)
        if path.exists():
            raise ValueError(f"{path.name} was written already; give each result its own name")
        with explained(path):
            path.parent.mkdir(exist_ok=True)
        return path


def run_config(
    config: str | pathlib.Path | Config,
    overrides: Sequence[str] = (),
    *,
    progress: bool | None = None,
    team: "Team | None" = None,
) -> pathlib.Path:
    """Run one study and return the folder it left.

    Args:
      config: a TOML file, or a config already read. Paths in it start from the current folder.
      overrides: changes such as `"fit.n_restarts=64"`.
      progress: show progress bars; default: when standard error is a terminal.
      team: the processes that share the work, of which the first leaves the folder.

    Returns:
      `OUTPUT/NAME-YYYYmmdd-HHMMSS`, complete; of another process a folder that is gone again.

    Raises:
      UserError, DataError: something in the config or the data has to be put right.
      FitError: no fit ended in usable parameters.

    On any failure, Ctrl-C included, nothing is left behind. JAX is set to the config's precision
    for the time of the run.
    """
    if isinstance(config, Config):
        config = from_table(config.model_dump(mode="json", exclude_none=True), overrides)
        places = [pathlib.Path.cwd()]
    else:
        root = pathlib.Path(config).resolve().parent.parent
        config = load(config, overrides)
        places = [pathlib.Path.cwd(), root]
    study = find_study(config.study, places)
    settings = validate(study.Settings, config.settings, prefix="settings")
    config = config.model_copy(update={"settings": settings.model_dump(mode="json")})
    if progress is None:
        progress = sys.stderr.isatty()
    if team is not None and not getattr(study, "SHARES_WORK", False):
        raise UserError(f'the study "{config.study}" is not made for several processes')
    if team is not None and team.share[0]:
        with _precision(config.precision), tempfile.TemporaryDirectory() as hidden:
            _run(pathlib.Path(hidden), config, settings, study, False, team)
        return pathlib.Path(hidden)
    place = run_folder(os.path.expanduser(config.output), config.name)
    with _precision(config.precision), place as folder, memory.explained():
        _fill(folder, config, settings, study, progress, team)
    if folder.final is None:  # run_folder has either published or raised
        raise AssertionError("the run folder was not published")
    return folder.final


@contextlib.contextmanager
def opened(config: Config, progress: bool) -> Iterator[Run]:
    """A run of a built-in study that leaves nothing: data read, precision set, no folder.

    Args:
      config: as `from_table` gives it.
      progress: show progress bars.

    Raises:
      UserError, DataError: as `run_config`.
    """
    import jax

    from jgmm.workbench import datasets

    study = find_study(config.study)
    settings = validate(study.Settings, config.settings, prefix="settings")
    with _precision(config.precision), memory.explained():
        data = None
        if config.data is not None:
            data = datasets.load(**config.data.model_dump(), mapped=False)
        key = jax.random.key(config.seed)
        yield Run(config, settings, key, data, pathlib.Path(os.devnull), progress)


def _run(
    path: pathlib.Path,
    config: Config,
    settings: Strict,
    study: Any,
    progress: bool,
    team: "Team | None",
) -> Run:
    """Run the study, with the data it is given."""
    import jax

    from jgmm.workbench import datasets

    data = None
    if config.data is not None and not getattr(study, "READS_DATA", False):
        source = config.data
        data = datasets.load(
            source.source, source.columns, source.label, source.weight, mapped=False
        )
    run = Run(config, settings, jax.random.key(config.seed), data, path, progress, team)
    study.run(run)
    return run


def _fill(
    folder: RunFolder,
    config: Config,
    settings: Strict,
    study: Any,
    progress: bool,
    team: "Team | None",
) -> None:
    """Run the study into its folder."""
    from jgmm.workbench import report

    for gone in folder.removed:
        print(f"jgmm: removed {gone}, left by a run that was killed", file=sys.stderr)
    begun = time.perf_counter()
    resolved = to_toml(config.model_dump(mode="json"))
    write_text(folder.path / "config.toml", _HEADER + resolved)
    run = _run(folder.path, config, settings, study, progress, team)
    seconds = time.perf_counter() - begun
    environment = describe_environment(config, run.data)
    environment["seconds"] = round(seconds, 3)
    if run.notes:
        lines = [" ".join(note.split()) for note in run.notes]  # a paragraph is one
        write_text(folder.path / NOTES, "\n".join(lines) + "\n")
    storage.write_json(folder.path / "metrics.json", run.metrics)
    storage.write_json(folder.path / "environment.json", environment)
    record = storage.RunRecord(
        name=config.name,
        study=config.study,
        status="complete",
        started=folder.started.isoformat(timespec="seconds"),
        seconds=seconds,
        config_toml=resolved,
        environment=environment,
        metrics=run.metrics,
        notes=run.notes,
        tables=run.tables,
        figures=run.figures,
        mixtures=run.mixtures,
    )
    write_text(folder.path / "report.html", report.render(record))


_HEADER = """\
# The complete config of a run. To repeat it, from the folder it was started in:
#     jgmm run PATH/OF/THIS/FILE

"""


@contextlib.contextmanager
def _precision(precision: str) -> Iterator[None]:
    """Set JAX's default precision, and put the caller's back afterwards."""
    import jax
    import jax.numpy as jnp

    before = jax.dtypes.canonicalize_dtype(jnp.float64) == jnp.float64
    jax.config.update("jax_enable_x64", precision == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def find_study(name: str, places: Sequence[pathlib.Path] = ()) -> Any:
    """Import the module of a study.

    Args:
      name: a built-in study, or a module's dotted name.
      places: folders to look for modules in, besides where Python looks anyway.

    Raises:
      UserError: no such study (with the nearest name), or a module that does not define one.
    """
    target = BUILT_IN.get(name, name)
    if not re.fullmatch(MODULE, target):
        dotted = ".".join(pathlib.PurePath(name.removesuffix(".py")).parts)
        is_file = name.endswith(".py") and re.fullmatch(MODULE, dotted)
        hint = f'; for a file, write "{dotted}"' if is_file else ""
        raise UserError(f'study = "{name}" is not a module name{hint}')
    # Nothing in those folders can pass for a module that a built-in study needs.
    with _importable([] if name in BUILT_IN else places):
        try:
            module: Any = importlib.import_module(target)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{target}.".startswith(f"{error.name}."):
                raise UserError(
                    f'the study "{name}" needs the package {error.name}, which is not installed'
                ) from error
            raise UserError(f'no study "{name}"; {_suggest(name, places)}') from None
    settings = getattr(module, "Settings", None)
    is_model = isinstance(settings, type) and issubclass(settings, Strict)
    if not is_model or not callable(getattr(module, "run", None)):
        raise UserError(
            f'the module "{name}" is not a study: it needs a class Settings derived from '
            "jgmm.workbench.config.Strict, and a function run(run)"
        )
    return module


def schema(files: Sequence[pathlib.Path] = ()) -> dict[str, Any]:
    """The JSON Schema of config files of the built-in studies and of those that files name."""
    studies = {name: find_study(name) for name in BUILT_IN}
    for file in files:
        name = load(file).study
        studies[name] = find_study(name, [pathlib.Path.cwd(), file.resolve().parent.parent])
    return config_schema({name: study.Settings for name, study in studies.items()})


@contextlib.contextmanager
def _importable(places: Sequence[pathlib.Path]) -> Iterator[None]:
    """Look in more places for the time of one import, so that they shadow nothing later."""
    before = list(sys.path)
    sys.path[:0] = [str(place) for place in places]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _suggest(name: str, places: Sequence[pathlib.Path]) -> str:
    written = {
        f"experiments.{path.stem}"
        for place in places
        for path in (place / "experiments").glob("[!_]*.py")
    }
    known = [*BUILT_IN, *sorted(written)]
    close = difflib.get_close_matches(name, known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"known: {', '.join(known)}"


def describe_environment(config: Config, data: "Dataset | None") -> dict[str, Any]:
    """Say what produced a run: versions, machine, seed, precision, command and data."""
    import jax

    device = jax.devices()[0]
    versions = {name: _version(name) for name in ("jgmm", "jax", "jaxlib", "numpy")}
    return {
        **versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{jax.device_count()} × {device.platform} ({device.device_kind})",
        "seed": config.seed,
        "precision": config.precision,
        "command": shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
        "data": _origin(config, data),
        **_extent(data),
    }


def _extent(data: "Dataset | None") -> dict[str, Any]:
    """What of the data was used, where it is known."""
    if data is None:
        return {}
    columns, left_out = list(data.columns), list(data.left_out)
    return {"n_samples": len(data.x), "columns": columns, "left_out": left_out}


def _origin(config: Config, data: "Dataset | None") -> str:
    if data is not None:
        return data.source_note
    return "made by the study" if config.data is None else f"read from {config.data.source}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"
