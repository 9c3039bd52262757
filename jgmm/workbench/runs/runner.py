"""Run a config: find the study, run it, and write what it found into a run folder."""

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
from typing import TYPE_CHECKING, Any

from jgmm._core.errors import UserError
from jgmm._core.files import write_text
from jgmm.workbench.config.checking import validate
from jgmm.workbench.config.models import Config, Strict, from_table, load
from jgmm.workbench.config.toml import to_toml
from jgmm.workbench.runs import memory, storage
from jgmm.workbench.runs.folder import RunFolder, run_folder
from jgmm.workbench.runs.summary import NOTES
from jgmm.workbench.studies.context import StudyContext
from jgmm.workbench.studies.registry import find_study, study_folders

if TYPE_CHECKING:
    from jgmm.streaming.reader import ProcessGroup
    from jgmm.workbench.readers.datasets import Dataset


def run_config(
    config: str | pathlib.Path | Config,
    overrides: Sequence[str] = (),
    *,
    path: str | pathlib.Path | None = None,
    progress: bool | None = None,
    group: "ProcessGroup | None" = None,
) -> pathlib.Path:
    """Run one study and return the folder it left.

    Args:
      config: a TOML file, or a config already read, which is not validated again unless there are
        overrides. Paths in it start from the current folder.
      overrides: changes such as ``"fit.n_restarts=64"``.
      path: the file that a config already read comes from: the module of the study may be near it.
      progress: show progress bars; default: when standard error is a terminal.
      group: the processes that share the work, of which the first leaves the folder.

    Returns:
      ``OUTPUT/NAME-YYYYmmdd-HHMMSS``, complete; in the other processes of a group a temporary
      folder that has been removed.

    Raises:
      UserError, DataError: something in the config or the data has to be corrected.
      FitError: no fit ended in usable parameters.

    On any failure, Ctrl-C included, nothing is left behind. JAX is set to the config's precision
    for the time of the run.
    """
    if not isinstance(config, Config):
        path, config = config, load(config, overrides)
    elif overrides:
        config = from_table(config.model_dump(mode="json", exclude_none=True), overrides)
    module, settings = _find_study(config, study_folders(path))
    config = config.model_copy(update={"settings": settings.model_dump(mode="json")})
    if progress is None:
        progress = sys.stderr.isatty()
    if group is not None and not getattr(module, "SHARES_WORK", False):
        raise UserError(f'the study "{config.study}" is not made for several processes')
    if group is not None and group.rank_and_size[0]:
        with _precision(config.precision), tempfile.TemporaryDirectory() as hidden:
            _run(pathlib.Path(hidden), config, settings, module, False, group)
        return pathlib.Path(hidden)
    place = run_folder(os.path.expanduser(config.output), config.name)
    with _precision(config.precision), place as folder, memory.out_of_memory_as_user_error():
        _fill(folder, config, settings, module, progress, group)
    if folder.final is None:  # run_folder has either published or raised
        raise AssertionError("the run folder was not published")
    return folder.final


@contextlib.contextmanager
def study_context(config: Config, progress: bool) -> Iterator[StudyContext]:
    """Give the context of a built-in study without a run folder: data read, precision set.

    Args:
      config: as ``from_table`` returns it.
      progress: show progress bars.

    Raises:
      UserError, DataError: as ``run_config``.
    """
    import jax

    _, settings = _find_study(config, [])
    with _precision(config.precision), memory.out_of_memory_as_user_error():
        key = jax.random.key(config.seed)
        yield StudyContext(config, settings, key, _data(config), pathlib.Path(os.devnull), progress)


def _find_study(config: Config, folders: Sequence[pathlib.Path]) -> tuple[Any, Strict]:
    """Import the module of the study, and validate the study's own table."""
    module = find_study(config.study, folders)
    settings: Strict = validate(module.Settings, config.settings, prefix="settings")
    return module, settings


def _run(
    path: pathlib.Path,
    config: Config,
    settings: Strict,
    module: Any,
    progress: bool,
    group: "ProcessGroup | None",
) -> StudyContext:
    """Read the data and run the study; return the context, which holds the results."""
    import jax

    data = None if getattr(module, "READS_DATA", False) else _data(config)
    study = StudyContext(config, settings, jax.random.key(config.seed), data, path, progress, group)
    for warning in () if data is None else data.warnings:
        study.note(warning)
    module.run(study)
    return study


def _data(config: Config) -> "Dataset | None":
    from jgmm.workbench.readers import datasets

    if config.data is None:
        return None
    return datasets.load(**config.data.model_dump(), mapped=False)


def _fill(
    folder: RunFolder,
    config: Config,
    settings: Strict,
    module: Any,
    progress: bool,
    group: "ProcessGroup | None",
) -> None:
    """Run the study and write its config, results, environment and report into the run folder."""
    from jgmm.workbench.runs import report

    for removed in folder.removed:
        print(f"jgmm: removed {removed}, left by a run that was killed", file=sys.stderr)
    begun = time.perf_counter()
    complete = to_toml(config.model_dump(mode="json"))
    write_text(folder.path / "config.toml", _HEADER + complete)
    study = _run(folder.path, config, settings, module, progress, group)
    seconds = time.perf_counter() - begun
    environment = describe_environment(config, study.data)
    environment["seconds"] = round(seconds, 3)
    if study.notes:
        lines = [" ".join(note.split()) for note in study.notes]  # one line a note
        write_text(folder.path / NOTES, "\n".join(lines) + "\n")
    storage.write_json(folder.path / "metrics.json", study.metrics)
    storage.write_json(folder.path / "environment.json", environment)
    record = storage.RunRecord(
        name=config.name,
        study=config.study,
        status="complete",
        started=folder.started.isoformat(timespec="seconds"),
        seconds=seconds,
        config_toml=complete,
        environment=environment,
        metrics=study.metrics,
        notes=study.notes,
        tables=study.tables,
        figures=study.figures,
        mixtures=study.mixtures,
    )
    write_text(folder.path / "report.html", report.render(record))


_HEADER = """\
# The complete config of a run. To repeat it, from the folder it was started in:
#     jgmm run PATH/OF/THIS/FILE

"""


@contextlib.contextmanager
def _precision(precision: str) -> Iterator[None]:
    """Set JAX's default precision, and restore the caller's afterwards."""
    import jax
    import jax.numpy as jnp

    before = jax.dtypes.canonicalize_dtype(jnp.float64) == jnp.float64
    jax.config.update("jax_enable_x64", precision == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def describe_environment(config: Config, data: "Dataset | None") -> dict[str, Any]:
    """Record what produced a run: versions, machine, seed, precision, command and data."""
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
        **describe_data(data),
    }


def describe_data(data: "Dataset | None") -> dict[str, Any]:
    """Return the samples' number and columns, and how they were read, if the data are known."""
    if data is None:
        return {}
    return {
        "n_samples": len(data.x),
        "columns": list(data.columns),
        "left_out": list(data.left_out),
        "id": data.id_name,
        "read_as": data.read_as,
        "warnings": list(data.warnings),
    }


def _origin(config: Config, data: "Dataset | None") -> str:
    """Return where the data come from."""
    if data is not None:
        return data.source_note
    return "made by the study" if config.data is None else f"read from {config.data.source}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"
