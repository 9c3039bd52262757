"""From a config to a finished run folder: check everything, run the study, write what it found."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from jgmm._core.errors import UserError
from jgmm.workbench.config.models import (Config, Strict, from_table, load, validate)
from jgmm.workbench.config.toml import to_toml
from jgmm.workbench.runs import memory, storage
from jgmm.workbench.runs.folder import RunFolder, run_folder
from jgmm.workbench.runs.summary import NOTES
from jgmm.workbench.studies.context import StudyContext
from jgmm.workbench.studies.registry import find_study
from jgmm.workbench.system.files import write_text
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    from jgmm.streaming.reader import ProcessGroup
    from jgmm.workbench.readers.datasets import Dataset

def run_config(
    config: str | pathlib.Path | Config,
    overrides: Sequence[str] = (),
    *,
    progress: bool | None = None,
    group: "ProcessGroup | None" = None,
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
    if group is not None and not getattr(study, "SHARES_WORK", False):
        raise UserError(f'the study "{config.study}" is not made for several processes')
    if group is not None and group.rank_and_size[0]:
        with _precision(config.precision), tempfile.TemporaryDirectory() as hidden:
            _run(pathlib.Path(hidden), config, settings, study, False, group)
        return pathlib.Path(hidden)
    place = run_folder(os.path.expanduser(config.output), config.name)
    with _precision(config.precision), place as folder, memory.describe_estimate():
        _fill(folder, config, settings, study, progress, group)
    if folder.final is None:  # run_folder has either published or raised
        raise AssertionError("the run folder was not published")
    return folder.final


@contextlib.contextmanager
def study_context(config: Config, progress: bool) -> Iterator[StudyContext]:
    """A run of a built-in study that leaves nothing: data read, precision set, no folder.

    Args:
      config: as `from_table` gives it.
      progress: show progress bars.

    Raises:
      UserError, DataError: as `run_config`.
    """
    import jax

    study = find_study(config.study)
    settings = validate(study.Settings, config.settings, prefix="settings")
    with _precision(config.precision), memory.describe_estimate():
        key = jax.random.key(config.seed)
        yield StudyContext(config, settings, key, _data(config), pathlib.Path(os.devnull), progress)


def _run(
    path: pathlib.Path,
    config: Config,
    settings: Strict,
    study: Any,
    progress: bool,
    group: "ProcessGroup | None",
) -> StudyContext:
    """Run the study, with the data it is given."""
    import jax

    data = None if getattr(study, "READS_DATA", False) else _data(config)
    run = StudyContext(config, settings, jax.random.key(config.seed), data, path, progress, group)
    study.run(run)
    return run


def _data(config: Config) -> "Dataset | None":
    from jgmm.workbench.readers import datasets

    if config.data is None:
        return None
    return datasets.load(**config.data.model_dump(), mapped=False)


def _fill(
    folder: RunFolder,
    config: Config,
    settings: Strict,
    study: Any,
    progress: bool,
    group: "ProcessGroup | None",
) -> None:
    """Run the study into its folder."""
    from jgmm.workbench.runs import report

    for gone in folder.removed:
        print(f"jgmm: removed {gone}, left by a run that was killed", file=sys.stderr)
    begun = time.perf_counter()
    resolved = to_toml(config.model_dump(mode="json"))
    write_text(folder.path / "config.toml", _HEADER + resolved)
    run = _run(folder.path, config, settings, study, progress, group)
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
