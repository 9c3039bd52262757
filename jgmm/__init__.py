"""Gaussian mixtures in JAX.

Pure functions for the density, the E-step and the M-step; thousands of restarts as one program;
results that say how they came about. Start with ``jgmm.fit``.

Modules are imported when first used, so that a command line that only prints help stays instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jgmm import (
        acceleration,
        augmented,
        blocks,
        bootstrap,
        cells,
        classes,
        classifier,
        control,
        conversion,
        covariance,
        criteria,
        crossvalidation,
        dataframes,
        decomposition,
        degeneracy,
        em,
        ensemble,
        extrapolation,
        forms,
        frame,
        framing,
        gaussian,
        gradient,
        implicit,
        information,
        initialize,
        inputs,
        kmeans,
        lanes,
        likelihood_ratio,
        maximization,
        metric,
        mixture,
        natural,
        natural_gradient,
        nesting,
        newton,
        noise,
        online,
        optimizer,
        orientation,
        precision,
        prior,
        processes,
        pytree,
        racing,
        reading,
        restarts,
        results,
        samples,
        selection,
        sharding,
        stages,
        starts,
        statistics,
        status,
        streaming,
        survey,
        uncertainty,
        unconstrained,
        unrolled,
        warm,
    )
    from jgmm import estimators as estimators
    from jgmm.em import em_step
    from jgmm.maximization import m_step
    from jgmm.mixture import (
        Mixture,
        condition,
        e_step,
        log_prob,
        make_mixture,
        marginal,
        predict,
        responsibilities,
        sample,
    )
    from jgmm.restarts import fit
    from jgmm.results import FitResult
    from jgmm.selection import select
    from jgmm.statistics import Statistics, accumulate
    from jgmm.status import DataError, FitError, Status
    from jgmm.workbench import plot as plot

__version__ = "0.1.0"

_MODULES = {
    "acceleration": (),
    "augmented": (),
    "blocks": (),
    "bootstrap": (),
    "cells": (),
    "classes": (),
    "classifier": (),
    "control": (),
    "conversion": (),
    "covariance": (),
    "criteria": (),
    "crossvalidation": (),
    "dataframes": (),
    "decomposition": (),
    "degeneracy": (),
    "em": ("em_step",),
    "ensemble": (),
    "estimators": (),
    "extrapolation": (),
    "forms": (),
    "frame": (),
    "framing": (),
    "gaussian": (),
    "gradient": (),
    "implicit": (),
    "information": (),
    "initialize": (),
    "inputs": (),
    "kmeans": (),
    "lanes": (),
    "likelihood_ratio": (),
    "maximization": ("m_step",),
    "metric": (),
    "mixture": (
        "Mixture",
        "condition",
        "e_step",
        "log_prob",
        "make_mixture",
        "marginal",
        "predict",
        "responsibilities",
        "sample",
    ),
    "natural": (),
    "natural_gradient": (),
    "nesting": (),
    "newton": (),
    "noise": (),
    "online": (),
    "optimizer": (),
    "orientation": (),
    "precision": (),
    "prior": (),
    "processes": (),
    "pytree": (),
    "racing": (),
    "reading": (),
    "restarts": ("fit",),
    "results": ("FitResult",),
    "samples": (),
    "selection": ("select",),
    "sharding": (),
    "stages": (),
    "starts": (),
    "statistics": ("Statistics", "accumulate"),
    "status": ("DataError", "FitError", "Status"),
    "streaming": (),
    "survey": (),
    "uncertainty": (),
    "unconstrained": (),
    "unrolled": (),
    "warm": (),
}
# Modules of the workbench that have a short name here.
_ELSEWHERE = {"plot": "jgmm.workbench.plot"}
# Not in ``__all__``: ``from jgmm import *`` works without scikit-learn and matplotlib.
_EXTRA = ("estimators", "plot")
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "DataError",
    "FitError",
    "FitResult",
    "Mixture",
    "Statistics",
    "Status",
    "acceleration",
    "accumulate",
    "augmented",
    "blocks",
    "bootstrap",
    "cells",
    "classes",
    "classifier",
    "condition",
    "control",
    "conversion",
    "covariance",
    "criteria",
    "crossvalidation",
    "dataframes",
    "decomposition",
    "degeneracy",
    "e_step",
    "em",
    "em_step",
    "ensemble",
    "extrapolation",
    "fit",
    "forms",
    "frame",
    "framing",
    "gaussian",
    "gradient",
    "implicit",
    "information",
    "initialize",
    "inputs",
    "kmeans",
    "lanes",
    "likelihood_ratio",
    "log_prob",
    "m_step",
    "make_mixture",
    "marginal",
    "maximization",
    "metric",
    "mixture",
    "natural",
    "natural_gradient",
    "nesting",
    "newton",
    "noise",
    "online",
    "optimizer",
    "orientation",
    "precision",
    "predict",
    "prior",
    "processes",
    "pytree",
    "racing",
    "reading",
    "responsibilities",
    "restarts",
    "results",
    "sample",
    "samples",
    "select",
    "selection",
    "sharding",
    "stages",
    "starts",
    "statistics",
    "status",
    "streaming",
    "survey",
    "uncertainty",
    "unconstrained",
    "unrolled",
    "warm",
]


def __getattr__(name: str) -> Any:
    """Import a module of the package, or the module a name lives in, on first use."""
    if name in _MODULES:
        return importlib.import_module(f"jgmm.{name}")
    if name in _ELSEWHERE:
        return importlib.import_module(_ELSEWHERE[name])
    if name in _HOME:
        return getattr(importlib.import_module(f"jgmm.{_HOME[name]}"), name)
    raise AttributeError(f"module 'jgmm' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, *_EXTRA])
