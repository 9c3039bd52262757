"""One likelihood maximised by EM, accelerated EM and gradient methods from the same starts.

    ./dev jgmm run configs/optimisers.toml

EM and the optimisers of optax maximise one function: EM over weights, means and covariances, by
closed-form steps that never lower it; the others over unconstrained parameters, by gradients over
all samples. The cost of a method is counted in passes over the samples: one for each step, whether
it was refused or not, one for each point that a line search evaluates, and one for each
Hessian-vector product.

A problem is a data set and a start. The other methods are compared with EM's end from that start:
how many passes they take to come as high, or at which other optimum they end.

Takes about fifteen minutes on two cores, most of it compiling. From 42 starts on eleven data sets
that EM ends well from, Anderson acceleration ends at EM's optimum in all, in 4.9 times fewer passes
(geometric mean) and in more passes in none; SQUAREM comes as high in 41, in 2.7 times fewer. Where
EM takes more than 1,000 passes, Anderson acceleration takes at least 9.1 times fewer. Newton-CG
comes as high from 41 in 3.4 times fewer. L-BFGS of optax comes as high from 37 in 1.9 times fewer,
but ends within 1e-6 nats a sample of EM's own end from 32 (0.76); with a warm start, from 39
(0.93). The others end at other optima, or run out of steps; the table ``astray`` lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from experiments import _optimisers_report
from experiments._climbing import Climb, Problem, climb, score
from experiments._shared import check_own_data
from jgmm._core.errors import UserError
from jgmm._data.samples import make_samples
from jgmm._data.standardization import standardize
from jgmm.covariance.models import model
from jgmm.em.acceleration import accelerated
from jgmm.em.acceleration_schemes import SCHEMES
from jgmm.em.algorithm import EM
from jgmm.em.options import make_control
from jgmm.fitting.algorithm import Algorithm
from jgmm.gradient import algorithm
from jgmm.gradient.fit import PARAMETRIZATIONS, make_gradient_control
from jgmm.gradient.natural_gradient import NaturalGradient, decaying
from jgmm.gradient.newton_cg import NewtonCG
from jgmm.gradient.optimizer import as_optimizer
from jgmm.gradient.warm_start import WarmStart
from jgmm.initialization.draw import draw
from jgmm.mixture.mixture import to_standard
from jgmm.workbench.config.models import Amount, Count, Name, Strict
from jgmm.workbench.readers import datasets
from jgmm.workbench.studies.context import StudyContext


class Settings(Strict):
    """Which problems, for how long, with which step sizes."""

    problems: tuple[Name, ...] = ()
    """Names of the data sets; none means all."""
    methods: tuple[Name, ...] = ()
    """Names of the methods to compare with EM; none means all."""
    n_starts: Count = 4
    """Starts per data set, the same for all methods."""
    init: Name = "kmeans++"
    """How each start is made."""
    n_samples: Count = 1000
    """Samples in the data sets that are drawn."""
    em_steps: Count = 30_000
    """Steps of EM at most, accelerated or not."""
    gradient_steps: Count = 5_000
    """Steps of the other methods at most."""
    adam: Amount = 0.02
    """Step size of Adam."""
    sgd: Amount = 0.1
    """Step size of SGD, whose gradient is that of all samples."""
    momentum: Amount = 0.9
    """Momentum of SGD."""
    batches: Count = 10
    """Number of mini-batches that the samples are divided into."""
    within: Amount = 1e-6
    """Log-likelihoods that differ by less, in nats a sample, count as the same optimum."""


def problems(n_samples: int) -> list[Problem]:
    """From easy to hard: separated, real data, many dimensions, and growing overlap."""

    def drawn(spread: float, k: int, d: int, seed: int) -> Float[np.ndarray, "N D"]:
        """Draw unit Gaussians whose centers are about ``spread`` standard deviations apart."""
        rng = np.random.default_rng(seed)
        centers = spread * rng.normal(size=(k, d))
        return centers[rng.integers(k, size=n_samples)] + rng.normal(size=(n_samples, d))

    def real(name: str) -> Float[np.ndarray, "N D"]:
        return np.asarray(datasets.load(name).x, np.float64)

    return [
        Problem("separated", drawn(5.0, 3, 2, 0), 3, "full"),
        Problem("iris spherical", real("iris"), 3, "spherical"),
        Problem("wine diag", real("wine"), 3, "diag"),
        Problem("iris full", real("iris"), 3, "full"),
        Problem("faithful 3", real("faithful"), 3, "full"),
        Problem("faithful 4", real("faithful"), 4, "full"),
        Problem("faithful 6 diag", real("faithful"), 6, "diag"),
        Problem("ten columns", drawn(0.8, 4, 10, 3), 4, "full"),
        Problem("overlap tied", drawn(0.7, 3, 2, 0), 3, "tied"),
        Problem("overlap 1-D", drawn(1.0, 4, 1, 3), 4, "full"),
        Problem("overlap full", drawn(1.0, 3, 2, 0), 3, "full"),
    ]


def run(study: StudyContext) -> None:
    """Run every method from every start of every problem, and compare."""
    check_own_data(study)
    settings: Settings = study.settings
    every = {each.name: each for each in problems(settings.n_samples)}
    chosen = [every[name] for name in _named("problems", settings.problems, list(every))]
    climbs = {each.name: _climbs(study, each) for each in chosen}
    scores = [score(each, climbs[each.name], settings.within) for each in chosen]
    _optimisers_report.passes_table(study, chosen, scores)
    _optimisers_report.seconds_table(study, chosen, scores)
    _optimisers_report.ends_table(study, chosen, scores)
    _optimisers_report.summary(study, scores)
    _optimisers_report.astray_table(study, chosen, climbs, scores)
    _optimisers_report.draw_profiles(study, scores)
    _optimisers_report.draw_curves(study, chosen, climbs, scores)
    _optimisers_report.draw_astray(study, chosen, climbs, scores)


def _named(setting: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the names asked for, in the order of the known names; all if none is given.

    Raises:
      UserError: one that is not known.
    """
    for name in names:
        if name not in known:
            raise UserError(f"settings.{setting}: unknown {name!r}. Known: {', '.join(known)}.")
    return [name for name in known if not names or name in names]


def _methods(settings: Settings, n_samples: int, covariance: str) -> dict[str, Algorithm]:
    """Return the methods by name; the first, EM, is what the others are compared with."""
    em, name = EM(settings.em_steps), model(covariance).name

    def climbing(optimizer: Any, by: str = "log", batch: int | None = None) -> Algorithm:
        own, most = as_optimizer(optimizer), settings.gradient_steps
        return algorithm.GradientAlgorithm(own, PARAMETRIZATIONS[by], name, batch, most)

    part = max(1, n_samples // settings.batches)
    others = {
        **{f"EM + {scheme}": accelerated(em, scheme) for scheme in SCHEMES},
        "Newton-CG": climbing(NewtonCG()),
        "L-BFGS": climbing(optax.lbfgs()),
        "L-BFGS warm": climbing(WarmStart(optax.lbfgs())),
        "L-BFGS softplus": climbing(optax.lbfgs(), "softplus"),
        "L-BFGS augmented": climbing(optax.lbfgs(), "augmented"),
        "Adam": climbing(optax.adam(settings.adam)),
        "SGD": climbing(optax.sgd(settings.sgd, momentum=settings.momentum)),
        "natural batches": climbing(NaturalGradient(decaying()), batch=part),
        "Adam batches": climbing(optax.adam(settings.adam), batch=part),
    }
    chosen = _named("methods", settings.methods, list(others))
    own = [each for each in chosen if name == "full" or "augmented" not in each]
    return {"EM": em, **{each: others[each] for each in own}}


def _climbs(study: StudyContext, problem: Problem) -> dict[str, Climb]:
    """Run every method from the same starts, on standardized samples."""
    settings: Settings = study.settings
    samples, entry = make_samples(problem.x), model(problem.covariance)
    begun = draw(
        study.key,
        samples,
        problem.n_components,
        covariance=entry.name,
        init=settings.init,
        n_restarts=settings.n_starts,
    )
    inside = jax.jit(standardize, static_argnums=1)(samples, entry)
    starts = jax.vmap(to_standard, in_axes=(0, None))(begun, inside.frame)
    dtype = samples.x.dtype
    found = {}
    for name, method in _methods(settings, len(problem.x), entry.name).items():
        if isinstance(method, algorithm.GradientAlgorithm):
            steepest = make_gradient_control(study.key, dtype, gradient_tol=1e-9)
            numbered = (starts, jnp.arange(settings.n_starts))
            found[name] = climb(method, numbered, inside, steepest)
        else:
            found[name] = climb(method, starts, inside, make_control(dtype, 1e-14, 0.0, 0.0))
    return found
