"""Studies by name: those that are built in, and modules beside a config."""

import contextlib
import difflib
import importlib
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from jgmm._core.errors import UserError
from jgmm.workbench.config.models import Strict, load
from jgmm.workbench.config.models import schema as config_schema

BUILT_IN = {
    "mixture": "jgmm.workbench.studies.mixture",
    "classify": "jgmm.workbench.studies.classify",
    "stream": "jgmm.workbench.studies.stream",
}

MODULE = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
"""How the dotted name of a module is written."""


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
