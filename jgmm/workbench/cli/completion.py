"""Completion of the command line in a shell.

The names of covariance models and criteria are read from the library's tables, so completing one of
those imports JAX; completing a command, a file or a folder does not.
"""

import pathlib
from typing import get_args


def complete_source(incomplete: str) -> list[str]:
    """Return built-in data sets, files that can be read, and folders they may be in."""
    from jgmm.workbench.readers import datasets, formats

    typed = pathlib.Path(incomplete)
    place = typed if incomplete.endswith("/") else typed.parent
    found = [name for name in datasets.names() if name.startswith(incomplete)]
    suffixes = formats.table_openers()
    try:
        entries = sorted(place.iterdir())
    except OSError:  # there is no such folder, so nothing in it to propose
        return found
    for entry in entries:
        text = str(entry)
        if text.startswith(incomplete.removeprefix("./")) and not entry.name.startswith("."):
            if entry.is_dir():
                found.append(f"{text}/")
            elif formats.suffix_of(entry.name) in suffixes:
                found.append(text)
    return found


def complete_covariance(incomplete: str) -> list[str]:
    """Return covariance models, also after a comma in a list of them.

    >>> complete_covariance("full,ti")
    ['full,tied']
    """
    from jgmm.workbench.config import names

    before, comma, last = incomplete.rpartition(",")
    known = (*names.covariances(), "all")
    return [f"{before}{comma}{name}" for name in known if name.startswith(last)]


def complete_criterion(incomplete: str) -> list[str]:
    """Return the criteria of model selection.

    >>> complete_criterion("ai")
    ['aic', 'aicc']
    """
    from jgmm.workbench.config import names

    return [name for name in names.criteria() if name.startswith(incomplete)]


def complete_precision(incomplete: str) -> list[str]:
    """Return the types of arrays that a run can compute with."""
    from jgmm.workbench.config import models

    known = get_args(models.Config.model_fields["precision"].annotation)
    return [name for name in known if name.startswith(incomplete)]
