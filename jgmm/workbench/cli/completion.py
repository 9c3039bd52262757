"""What a shell may propose after TAB; JAX is not imported for it."""

import pathlib
from typing import get_args

from jgmm.workbench.config import models


def complete_source(incomplete: str) -> list[str]:
    """Built-in data sets, files that can be read, and folders they may be in."""
    from jgmm.workbench.readers import datasets, tables

    typed = pathlib.Path(incomplete)
    place = typed if incomplete.endswith("/") else typed.parent
    found = [name for name in datasets.names() if name.startswith(incomplete)]
    try:
        entries = sorted(place.iterdir())
    except OSError:  # there is no such folder, so nothing in it to propose
        return found
    for entry in entries:
        text = str(entry)
        if text.startswith(incomplete.removeprefix("./")) and not entry.name.startswith("."):
            if entry.is_dir():
                found.append(f"{text}/")
            elif entry.suffix.lower() in tables.SUFFIXES:
                found.append(text)
    return found


def complete_covariance(incomplete: str) -> list[str]:
    """Covariance models, after a comma too."""
    before, comma, last = incomplete.rpartition(",")
    known = (*models.COVARIANCES, "all")
    return [f"{before}{comma}{name}" for name in known if name.startswith(last)]


def complete_criterion(incomplete: str) -> list[str]:
    """What can choose among models."""
    known = get_args(models.Fit.model_fields["criterion"].annotation)
    return [name for name in known if name.startswith(incomplete)]


def complete_precision(incomplete: str) -> list[str]:
    """Types of arrays."""
    known = get_args(models.Config.model_fields["precision"].annotation)
    return [name for name in known if name.startswith(incomplete)]
