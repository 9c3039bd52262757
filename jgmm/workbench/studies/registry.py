"""Find a study by name: a built-in study, or a module near the config."""

import contextlib
import importlib
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from jgmm._core.errors import UserError, suggest
from jgmm.workbench.config.models import Strict, load
from jgmm.workbench.config.models import schema as config_schema

BUILT_IN = {
    "mixture": "jgmm.workbench.studies.mixture",
    "classify": "jgmm.workbench.studies.classify",
    "stream": "jgmm.workbench.studies.stream",
}

MODULE = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
"""The regular expression of a module's dotted name."""


def find_study(name: str, places: Sequence[pathlib.Path] = ()) -> Any:
    """Import the module of a study.

    Args:
      name: a built-in study, or the dotted name of a module.
      places: folders to look for modules in, before the folders of ``sys.path``.

    Returns:
      The module, with a class ``Settings`` and a function ``run``.

    Raises:
      UserError: there is no such study (the text suggests the nearest name), or the module does not
        define a study.

    >>> find_study("mixture").Settings().certainty
    0.9
    """
    target = BUILT_IN.get(name, name)
    if not re.fullmatch(MODULE, target):
        dotted = ".".join(pathlib.PurePath(name.removesuffix(".py")).parts)
        is_file = name.endswith(".py") and re.fullmatch(MODULE, dotted)
        hint = f'; for a file, write "{dotted}"' if is_file else ""
        raise UserError(f'study = "{name}" is not a module name{hint}')
    # For a built-in study the folders are not searched: a file there could hide a module it needs.
    with _importable([] if name in BUILT_IN else places):
        try:
            module: Any = importlib.import_module(target)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{target}.".startswith(f"{error.name}."):
                raise UserError(
                    f'the study "{name}" needs the package {error.name}, which is not installed'
                ) from error
            raise UserError(f'no study "{name}"; {_hint(name, places)}') from None
    settings = getattr(module, "Settings", None)
    is_model = isinstance(settings, type) and issubclass(settings, Strict)
    if not is_model or not callable(getattr(module, "run", None)):
        raise UserError(
            f'the module "{name}" is not a study: it needs a class Settings derived from '
            "jgmm.workbench.config.Strict, and a function run(study)"
        )
    return module


def schema(files: Sequence[pathlib.Path] = ()) -> dict[str, Any]:
    """Return the JSON Schema of config files.

    Args:
      files: config files whose studies the schema knows, in addition to the built-in ones.
    """
    modules = {name: find_study(name) for name in BUILT_IN}
    for file in files:
        name = load(file).study
        modules[name] = find_study(name, study_folders(file))
    return config_schema({name: module.Settings for name, module in modules.items()})


def study_folders(config: str | pathlib.Path | None = None) -> list[pathlib.Path]:
    """Return the folders that modules of studies are looked for in.

    Args:
      config: the config file that names the study; None where there is no file.

    Returns:
      The current folder, and the parent of the folder of the config file.
    """
    folders = [pathlib.Path.cwd()]
    return folders if config is None else [*folders, pathlib.Path(config).resolve().parent.parent]


@contextlib.contextmanager
def _importable(places: Sequence[pathlib.Path]) -> Iterator[None]:
    """Search more folders for the time of one import, so that they hide no module later."""
    before = list(sys.path)
    sys.path[:0] = [str(place) for place in places]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _hint(name: str, places: Sequence[pathlib.Path]) -> str:
    """Suggest the nearest built-in study or experiment, or list all of them."""
    written = {
        f"experiments.{path.stem}"
        for place in places
        for path in (place / "experiments").glob("[!_]*.py")
    }
    known = [*BUILT_IN, *sorted(written)]
    return suggest(name, known, quote=str, question='did you mean "{}"?') or (
        f"known: {', '.join(known)}"
    )
