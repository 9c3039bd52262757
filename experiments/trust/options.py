"""Every option of a fit with every covariance model: is each M-step an optimum, does EM climb?

    ./dev python -m experiments.trust.options

Noise, labels, prior, floor, ridge, equal weights and sample weights, each left out or given, with
14 models in two precisions, by products and by differences: 7,168 cases. In each, EM takes four
steps, and is compared with an objective in plain NumPy that shares no code with the package:

- What an M-step returns has the form of its model, and no change of a parameter gains more than a
  rounding. For every coordinate of the model (log weights, means, volumes, shapes, rotations), the
  gain is that of Newton's step, slope² / (2 curvature), in nats per sample.
- The objective never falls. With a ridge there is none that EM climbs, so only M-steps are tested.
- The log-likelihood that EM reports is the one computed here.
- ``jgmm.fit`` refuses what cannot be done, with a sentence: a floor for models that do not support
  one, and noise with an acceleration.

The program prints a table, writes it to `runs/trust/options.json`, and fails if a number is beyond
its bound. Expected time: an hour and a half on one core; ``--only VVV EEE`` runs some models.
Expected number: zero failures.
"""

from __future__ import annotations

import argparse
import itertools
import math
import pathlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jgmm
from experiments.benchmark.chart import show
from jgmm._core.compilation import jit
from jgmm._core.status import Status
from jgmm._data.samples import Samples, Standardization, make_samples
from jgmm._data.standardization import standardize
from jgmm.covariance.models import MODELS
from jgmm.em import cancellation
from jgmm.em.algorithm import EM, EMState
from jgmm.em.e_step import accumulate
from jgmm.em.options import Control, Options
from jgmm.fitting.results import FitResult
from jgmm.mixture.mixture import Mixture, to_original, to_standard
from jgmm.mixture.noise import as_log_volume, initial_noise
from jgmm.mixture.prior import Prior

OUTPUT = pathlib.Path("runs/trust/options.json")
PRECISIONS = ("float32", "float64")
FORMS: tuple[Literal["product", "difference"], ...] = ("product", "difference")
OPTIONS = ("noise", "labels", "prior", "floor", "ridge", "equal_weights", "weights")
N, K, D, STEPS = 64, 2, 3, 4
UNITS, OFFSET = np.array([1.0, 3.0, 0.5]), np.array([2.0, -5.0, 1.0])
# Models whose covariances keep their form when each column changes its units: a ridge and a floor
# are then fractions of each column's variance, and of the mean variance for the others.
PER_COLUMN = ("EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVV", "VVV")
WITH_FLOOR = ("EII", "VII", "EEI", "VVI", "EEE", "VVV")
COMMON_AXES = ("EVE", "VVE")
ITERATED = ("VEI", "VEE", "VEV", "EVE", "VVE")
RIDGE, FLOOR, VOLUME = 0.1, 0.3, 3000.0
KAPPA, DOF, PRIOR_MEAN = 2.0, 6.0, np.array([1.0, -4.0, 1.5])
PRIOR_SCATTER = np.array([[2.0, 0.5, 0.1], [0.5, 9.0, 0.2], [0.1, 0.2, 0.4]])


class Case(NamedTuple):
    """A model, a precision, a form of the E-step, and which options are given."""

    code: str
    precision: str
    form: Literal["product", "difference"]
    noise: bool = False
    labels: bool = False
    prior: bool = False
    floor: bool = False
    ridge: bool = False
    equal_weights: bool = False
    weights: bool = False

    def __str__(self) -> str:
        """The model, the precision, the form and the options that are given."""
        given = [name for name in OPTIONS if getattr(self, name)]
        return "-".join([*self[:3], *given])

    @property
    def supported(self) -> bool:
        """Whether a fit takes these options together."""
        return not self.floor or self.code in WITH_FLOOR


class Parameters(NamedTuple):
    """Weights (K,), means (K, D), covariances (K, D, D), and the weight of the noise or None."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    noise: float | None


class Sums(NamedTuple):
    """What an M-step reads: counts (K,), means (K, D), scatter (K, D, D), the noise's count."""

    counts: np.ndarray
    means: np.ndarray
    scatter: np.ndarray
    noise: float


# The data and the start of all cases.


@cache
def data(precision: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples (N, D) of two components and some that belong to none, labels and weights, (N,)."""
    rng = np.random.default_rng(0)
    truth = rng.integers(K, size=N)
    x = np.array([[0.0, 0.0, 0.0], [2.5, 1.0, -1.5]])[truth]
    x = x + rng.normal(size=(N, D)) @ np.array([[1.0, 0.4, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 0.5]])
    x[:6] = rng.uniform(-6, 6, size=(6, D))
    labels = np.where(np.arange(N) % 5 == 4, truth, -1)
    weights = np.resize([1.0, 2.0, 0.0, 0.5, 3.0, 1.0], N)
    return (x * UNITS + OFFSET).astype(precision), labels, weights.astype(precision)


def start(code: str) -> Parameters:
    """Components that differ in all that the model lets them differ in."""
    rng = np.random.default_rng(1)
    variances = data("float64")[0].var(axis=0)
    unit = variances if code in PER_COLUMN else np.full(D, variances.mean())
    axes = np.linalg.qr(rng.normal(size=(K, D, D)))[0]
    parts = Parts(
        shared(code[0], np.array([0.1, -0.2])),
        shared(code[1], np.array([[-0.3, 0.4, -0.1], [0.2, 0.1, -0.3]])),
        np.broadcast_to(np.eye(D), (K, D, D)) if code[2] == "I" else shared(code[2], axes),
    )
    # A change of the columns' units keeps the form where the model is closed under it.
    covariances = compose(parts) * np.sqrt(np.outer(unit, unit))
    means = OFFSET + np.array([[-0.4, 0.3, 0.5], [1.5, -0.2, -0.6]]) * UNITS
    return Parameters(np.array([0.6, 0.4]), means, covariances, None)


# The objective.


def given_data(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples in float64, labels (-1 where unknown) and weights of a case."""
    x, labels, weights = data(case.precision)
    return (
        x.astype(np.float64),
        labels if case.labels else np.full(N, -1),
        weights.astype(np.float64) if case.weights else np.ones(N),
    )


def unit_variances(case: Case) -> np.ndarray:
    """The variances, (D,), of which a ridge and a floor are fractions."""
    x, _, weights = given_data(case)
    mean = weights @ x / weights.sum()
    variances = weights @ (x - mean) ** 2 / weights.sum()
    return variances if case.code in PER_COLUMN else np.full(D, variances.mean())


def log_gaussian(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """log N(xₙ | μ, Σ), (N,)."""
    away = x - mean
    distance = (away @ np.linalg.inv(covariance) * away).sum(axis=1)
    return -0.5 * (D * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1] + distance)


def e_step(case: Case, at: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Log densities (N,), of sample and label where one is known, and responsibilities (N, K + 1).

    The last column is that of the noise.
    """
    x, labels, _ = given_data(case)
    joint = np.full((N, K + 1), -np.inf)
    for k in range(K):
        score = np.log(at.weights[k]) + log_gaussian(x, at.means[k], at.covariances[k])
        joint[:, k] = score if at.noise is None else score + math.log1p(-at.noise)
    if at.noise is not None:
        joint[:, K] = math.log(at.noise / VOLUME)
    for n in np.flatnonzero(labels >= 0):
        joint[n, np.arange(K + 1) != labels[n]] = -np.inf
    log_prob = np.logaddexp.reduce(joint, axis=1)
    return log_prob, np.exp(joint - log_prob[:, None])


def log_prior(case: Case, at: Parameters) -> float:
    """Σₖ −(ν + D + 2)/2 log|Σₖ| − ½ tr Σₖ⁻¹ (Λ + κ (μₖ − m)(μₖ − m)ᵀ); zero without a prior."""
    if not case.prior:
        return 0.0
    total = 0.0
    for mean, covariance in zip(at.means, at.covariances, strict=True):
        away = mean - PRIOR_MEAN
        spread = PRIOR_SCATTER + KAPPA * np.outer(away, away)
        total -= (DOF + D + 2) * np.linalg.slogdet(covariance)[1]
        total -= np.trace(np.linalg.solve(covariance, spread))
    return total / 2


def observed(case: Case, at: Parameters) -> float:
    """What EM climbs: the log-likelihood of samples and known labels, and the log prior."""
    return float(given_data(case)[2] @ e_step(case, at)[0]) + log_prior(case, at)


def sums(case: Case, at: Parameters) -> Sums:
    """The sums over samples with the responsibilities of some parameters."""
    x, _, weights = given_data(case)
    counted = weights[:, None] * e_step(case, at)[1]
    counts = counted.sum(axis=0)
    means = counted[:, :K].T @ x / counts[:K, None]
    away = x[:, None, :] - means[None, :, :]
    scatter = np.einsum("nk,nkd,nke->kde", counted[:, :K], away, away)
    return Sums(counts[:K], means, scatter, float(counts[K]))


def scatter_about(case: Case, known: Sums, means: np.ndarray) -> np.ndarray:
    """Scatter about any means, and what a ridge and a prior add to it, (K, D, D)."""
    away = means - known.means
    found = known.scatter + np.einsum("k,kd,ke->kde", known.counts, away, away)
    if case.ridge:
        found = found + known.counts[:, None, None] * RIDGE * np.diag(unit_variances(case))
    if case.prior:
        away = means - PRIOR_MEAN
        found = found + PRIOR_SCATTER + KAPPA * np.einsum("kd,ke->kde", away, away)
    return found


def scattered(case: Case, known: Sums) -> np.ndarray:
    """The number of samples and pseudo-samples behind each scatter, (K,)."""
    return known.counts + (DOF + D + 2) * case.prior


def expected(case: Case, known: Sums, at: Parameters) -> float:
    """What an M-step maximises: expected log-likelihood, ridge and log prior, nats per sample.

    The ridge adds −½ Nₖ tr Σₖ⁻¹ R to the expected log-likelihood of component k.
    """
    total = float(known.counts @ np.log(at.weights))
    if at.noise is not None:
        total += known.noise * math.log(at.noise)
        total += float(known.counts.sum()) * math.log1p(-at.noise)
    scatter = scatter_about(case, known, at.means)
    for n, spread, covariance in zip(scattered(case, known), scatter, at.covariances, strict=True):
        total -= n * np.linalg.slogdet(covariance)[1] / 2
        total -= float(np.trace(np.linalg.solve(covariance, spread))) / 2
    return total / float(given_data(case)[2].sum())


# The coordinates of a model.


class Parts(NamedTuple):
    """Log volumes (K,), log shapes (K, D) that sum to zero, and axes in columns, (K, D, D)."""

    volumes: np.ndarray
    shapes: np.ndarray
    axes: np.ndarray


def shared(letter: str, values: np.ndarray) -> np.ndarray:
    """Values of each component as a letter of the code has them: zero, those of one, or own."""
    if letter == "V":
        return values
    return np.broadcast_to(values[0] * (letter == "E"), values.shape)


def decompose(code: str, covariances: np.ndarray) -> Parts:
    """Volumes, shapes and axes of covariances that have the form of the model up to rounding."""
    if code[2] == "I":
        axes = np.array([np.eye(D)] * K)
    elif code[2] == "E":  # unequal coefficients: eigenvalues of the sum could coincide
        mixed = sum((1 + k / 7) * c / np.trace(c) for k, c in enumerate(covariances))
        axes = np.array([np.linalg.eigh(mixed)[1]] * K)
    else:
        axes = np.array([np.linalg.eigh(c)[1] for c in covariances])
    along = np.einsum("kde,kdf,kfe->ke", axes, covariances, axes)
    volumes = np.log(along).mean(axis=1)
    shapes = np.log(along) - volumes[:, None]
    if code[0] == "E":
        volumes = np.full(K, volumes.mean())
    if code[1] != "V":
        shapes = np.broadcast_to(shapes.mean(axis=0) * (code[1] == "E"), (K, D))
    return Parts(volumes, shapes, axes)


def compose(parts: Parts) -> np.ndarray:
    """Covariances (K, D, D) from volumes, shapes and axes."""
    along = np.exp(parts.volumes[:, None] + parts.shapes)
    return np.einsum("kde,ke,kfe->kdf", parts.axes, along, parts.axes)


def rotation(i: int, j: int, angle: float) -> np.ndarray:
    """The rotation of axis i towards axis j."""
    found = np.eye(D)
    found[i, i] = found[j, j] = math.cos(angle)
    found[j, i], found[i, j] = math.sin(angle), -math.sin(angle)
    return found


Curve = Callable[[float], Parameters]


def of_weights(case: Case, at: Parameters) -> Iterator[Curve]:
    """Curves that change one weight in proportion to the last, and that of the noise."""

    def tilted(k: int, t: float) -> Parameters:
        new = at.weights * np.exp(t * (np.arange(K) == k))
        return at._replace(weights=new / new.sum())

    def noisier(t: float) -> Parameters:
        assert at.noise is not None
        odds = at.noise / (1 - at.noise) * math.exp(t)
        return at._replace(noise=odds / (1 + odds))

    if not case.equal_weights:
        for k in range(K - 1):
            yield partial(tilted, k)
    if at.noise is not None:
        yield noisier


def of_means(at: Parameters) -> Iterator[Curve]:
    """Curves that move one mean along one axis, in standard deviations."""

    def moved(k: int, d: int, t: float) -> Parameters:
        means = at.means.copy()
        means[k, d] += t * math.sqrt(at.covariances[k, d, d])
        return at._replace(means=means)

    for k, d in itertools.product(range(K), range(D)):
        yield partial(moved, k, d)


GROUPS = {"V": [[k] for k in range(K)], "E": [list(range(K))], "I": []}


def of_covariances(case: Case, at: Parameters) -> Iterator[Curve]:
    """Curves through covariances of the model, which change a volume or a shape."""
    parts = decompose(case.code, at.covariances)

    def swelled(which: list[int], t: float) -> Parameters:
        new = parts.volumes + t * np.isin(np.arange(K), which)
        return at._replace(covariances=compose(parts._replace(volumes=new)))

    def stretched(which: list[int], d: int, t: float) -> Parameters:
        new = np.array(parts.shapes)
        new[which, d] += t
        new[which, d + 1] -= t
        return at._replace(covariances=compose(parts._replace(shapes=new)))

    for which in GROUPS[case.code[0]]:
        yield partial(swelled, which)
    for which, d in itertools.product(GROUPS[case.code[1]], range(D - 1)):
        yield partial(stretched, which, d)


def of_axes(case: Case, at: Parameters) -> Iterator[Curve]:
    """Curves through covariances of the model, which turn two axes."""
    parts = decompose(case.code, at.covariances)

    def turned(which: list[int], i: int, j: int, t: float) -> Parameters:
        new = np.array(parts.axes)
        new[which] = new[which] @ rotation(i, j, t)
        return at._replace(covariances=compose(parts._replace(axes=new)))

    planes = itertools.combinations(range(D), 2)
    for which, (i, j) in itertools.product(GROUPS[case.code[2]], planes):
        yield partial(turned, which, i, j)


def gain(score: Callable[[float], float], h: float = 1e-3) -> float:
    """What Newton's step along a curve gains, slope² / (2 curvature); infinite if it is no maximum.

    Differences of fourth order: their error is that of rounding.
    """
    before, left, here, right, after = (score(t * h) for t in (-2, -1, 0, 1, 2))
    slope = (8 * (right - left) - (after - before)) / (12 * h)
    curvature = (after + before - 16 * (left + right) + 30 * here) / (12 * h**2)
    return slope**2 / (2 * curvature) if curvature > 0 else math.inf


def largest_gains(case: Case, known: Sums, at: Parameters) -> dict[str, float]:
    """The largest gain along the coordinates of the model, that of common axes by itself.

    With a floor covariances are left to ``gain_above_floor``.
    """
    curves, turns = [*of_weights(case, at), *of_means(at)], list(of_axes(case, at))
    if not case.floor:
        curves += of_covariances(case, at)
        if case.code not in COMMON_AXES:
            curves += turns
    each = {"gain": curves, "common axes": turns if case.code in COMMON_AXES else []}
    return {
        name: max((gain(partial(expected_along, case, known, one)) for one in some), default=0.0)
        for name, some in each.items()
    }


def expected_along(case: Case, known: Sums, curve: Curve, t: float) -> float:
    """What an M-step maximises, at a point of a curve."""
    return expected(case, known, curve(t))


def gain_above_floor(case: Case, known: Sums, at: Parameters) -> float:
    """A bound of what other covariances above the floor F could gain, nats per sample.

    In the precisions P = Σ⁻¹ the objective is concave, with the gradient Z/2, Z = N Σ − S, and the
    constraint is P ≤ F⁻¹. So no P′ gains more than the largest ½ tr Z (P′ − P), which is ½ (the sum
    of the positive eigenvalues of Z relative to F, less tr Z P).
    """
    slack = scattered(case, known)[:, None, None] * at.covariances
    slack = slack - scatter_about(case, known, at.means)
    if case.code[2] == "I":
        slack = np.array([np.diag(np.diag(z)) for z in slack])
    if case.code[1] == "I":
        slack = np.array([np.trace(z) / D * np.eye(D) for z in slack])
    covariances = at.covariances
    if "V" not in case.code:
        slack, covariances = slack.sum(axis=0, keepdims=True), covariances[:1]
    root = np.sqrt(FLOOR * unit_variances(case))
    total = 0.0
    for z, covariance in zip(slack, covariances, strict=True):
        relative = np.linalg.eigvalsh(z / np.outer(root, root))
        total += float(np.maximum(relative, 0).sum() - np.trace(np.linalg.solve(covariance, z)))
    return total / 2 / float(given_data(case)[2].sum())


def below_floor(case: Case, at: Parameters) -> float:
    """By which fraction of the floor a variance in some direction is below it."""
    root = np.sqrt(FLOOR * unit_variances(case))
    least = [np.linalg.eigvalsh(c / np.outer(root, root))[0] for c in at.covariances]
    return max(0.0, 1 - float(min(least)))


def out_of_form(case: Case, at: Parameters) -> float:
    """How far covariances are from the form of the model, relative to their deviations."""
    deviation = np.sqrt(np.diagonal(at.covariances, axis1=1, axis2=2))
    unit = deviation[:, :, None] * deviation[:, None, :]
    nearest = compose(decompose(case.code, at.covariances))
    return float(np.abs((nearest - at.covariances) / unit).max())


# What jgmm does.


class Climb(NamedTuple):
    """Steps of EM, leading axis; parameters in the units of the samples.

    ``log_likelihood`` is that of the parameters at the same step, with the log prior, in the frame.
    """

    weights: Any
    means: Any
    covariances: Any
    noise: Any
    log_likelihood: Any
    status: Any


@partial(jit, static_argnums=(0, 1))
def climb(
    algorithm: EM,
    form: Literal["product", "difference"],
    mixture: Mixture,
    samples: Samples,
    control: Control,
    log_volume: Any,
) -> tuple[Climb, Any]:
    """Take steps of EM from a mixture; return them, and log |S| of the frame."""
    inside = standardize(samples, mixture.model)
    begin: Any = to_standard(mixture, inside.frame)
    if log_volume is not None:
        noise = initial_noise(log_volume, inside.frame, 1)
        begin = begin, jax.tree.map(lambda leaf: leaf[0], noise)
    state = jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), algorithm.init(begin))

    def step(state: EMState, _: None) -> tuple[EMState, Climb]:
        density = None if state.noise is None else state.noise.density()
        statistics = accumulate(state.mixture, inside, form=form, noise_density=density)
        given = state, statistics, cancellation.assess(state.mixture)
        batch = jax.tree.map(lambda leaf: leaf[None], given)  # of one run
        states, sums, precision = batch
        stepped = algorithm.update(states, sums, precision, inside, control)
        after = jax.tree.map(lambda leaf: leaf[0], stepped)
        return after, in_user_units(state, after, inside.frame)

    _, found = lax.scan(step, state, None, length=STEPS + 1)
    return found, inside.frame.log_volume()


def in_user_units(state: EMState, after: EMState, frame: Standardization) -> Climb:
    """The parameters before a step, their log-likelihood, which the step computes, and its end."""
    mixture = to_original(state.mixture, frame)
    noise = None if state.noise is None else state.noise.weight
    parameters = mixture.weights, mixture.means, mixture.covariances, noise
    return Climb(*parameters, after.log_likelihood, after.status)


def prior_of(case: Case) -> Prior | None:
    """The prior of a case, in its precision."""
    if not case.prior:
        return None
    given = PRIOR_MEAN, KAPPA, DOF, np.linalg.cholesky(PRIOR_SCATTER)
    return Prior(*(jnp.asarray(value, case.precision) for value in given))


def options_of(case: Case) -> Options:
    """The options of a case, for EM that does not end by itself."""
    return Options(
        covariance=MODELS[case.code].name,
        tol=0.0,
        rtol=0.0,
        ridge=RIDGE if case.ridge else 0.0,
        equal_weights=case.equal_weights,
        prior=prior_of(case),
        floor=FLOOR if case.floor else None,
    )


def mixture_of(case: Case) -> Mixture:
    """The start of a case as a ``Mixture``, rounded to its precision."""
    begin, entry = start(case.code), MODELS[case.code]
    roots = np.linalg.cholesky(begin.covariances)[: 1 if entry.shared else K]
    stored = {
        1: roots[:, 0, 0],
        2: np.diagonal(roots, axis1=1, axis2=2),
        3: roots,
    }[entry.storage.ndim]
    log_weights, means, scale = (
        jnp.asarray(leaf, case.precision) for leaf in (np.log(begin.weights), begin.means, stored)
    )
    return Mixture(log_weights, means, scale, entry.name)


def run(case: Case) -> tuple[Climb, float]:
    """What jgmm makes of a case, as NumPy arrays, and the log volume of the frame.

    Labels and weights are always given, -1 and one where the option is not: so cases that differ in
    them share one program.
    """
    x, labels, weights = data(case.precision)
    samples = make_samples(
        x if not case.weights else np.where(weights[:, None] > 0, x, np.nan),
        weights if case.weights else np.ones_like(weights),
        labels if case.labels else np.full(N, -1),
    )
    options = options_of(case)
    control, volume = options.control(samples, K), VOLUME if case.noise else None
    algorithm, log_volume = EM(100, case.equal_weights), as_log_volume(volume, samples)
    return jax.device_get(
        climb(algorithm, case.form, mixture_of(case), samples, control, log_volume)
    )


# The comparison.


def bounds(case: Case) -> dict[str, float]:
    """The largest numbers that rounding explains."""
    eps = float(np.finfo(case.precision).eps)
    exact = case.code not in ITERATED
    return {
        "form": 100 * eps if exact else 10 * eps**0.5,
        # Numerical differences see no less than 1e-23.
        "gain": max((300 * eps) ** 2, 1e-21) if exact else 100 * eps,
        "common axes": 1e-2,
        "fall": 50 * eps,
        "log-likelihood": 500 * eps,
        "floor": 100 * eps,
        "above floor": 1e4 * eps,
        "fit": 1e3 * eps,
    }


def measure(case: Case) -> dict[str, float]:
    """Measure the worst of all steps.

    - gain: what a parameter could still gain after an M-step, nats per sample; common axes by
      themselves, for a step of EM leaves the last of their iterations to the next step.
    - form: how far covariances are from the form of the model.
    - fall: by how much the objective falls in a step, relative to it; zero with a ridge.
    - log-likelihood: its error, relative to it.
    - floor: how far covariances are below it; above floor: what others above it could gain.
    """
    with jax.enable_x64(True):
        found, log_volume = run(case)
    if (found.status != Status.RUNNING).any():
        raise AssertionError(f"{case}: EM ended, as {found.status.tolist()}")
    each = [parameters_at(found, step) for step in range(STEPS + 1)]
    values = [observed(case, at) for at in each]
    worst = {
        "log-likelihood": error_of_log_likelihood(case, found, float(log_volume), values),
        "fall": largest_fall(case, values),
        **dict.fromkeys(("gain", "common axes", "form", "floor", "above floor"), 0.0),
    }
    for before, at in itertools.pairwise(each):
        known = sums(case, before)
        step = {**largest_gains(case, known, at), "form": out_of_form(case, at)}
        if case.floor:
            step["floor"] = below_floor(case, at)
            step["above floor"] = gain_above_floor(case, known, at)
        # NaN is the worst of all.
        worst |= {name: float(np.maximum(worst[name], value)) for name, value in step.items()}
    return worst


def error_of_log_likelihood(
    case: Case, found: Climb, log_volume: float, values: list[float]
) -> float:
    """Largest error of the objective that jgmm reports, relative to it."""
    pseudo = K * (DOF + D + 2) * case.prior
    shift = (float(given_data(case)[2].sum()) + pseudo) * log_volume
    reported = found.log_likelihood.astype(np.float64) - shift
    return float(np.abs(reported / values - 1).max())


def largest_fall(case: Case, values: list[float]) -> float:
    """Largest fall of the objective in a step, relative to it, or zero.

    With a ridge it may fall, and so it may in the first step from a start below the floor.
    """
    climbs = [] if case.ridge else list(itertools.pairwise(values))[int(case.floor) :]
    return float(np.max([0.0, *((before - after) / abs(before) for before, after in climbs)]))


def parameters_at(found: Climb, step: int) -> Parameters:
    """The parameters after a number of steps, in float64."""
    leaves = found.weights, found.means, found.covariances
    weights, means, covariances = (np.asarray(leaf[step], np.float64) for leaf in leaves)
    return Parameters(
        weights, means, covariances, None if found.noise is None else float(found.noise[step])
    )


def fit(case: Case, **others: Any) -> FitResult:
    """Fit a case as users do, from the same start, for the same number of steps.

    The tolerance is zero: some cases converge earlier otherwise.
    """
    x, labels, weights = data(case.precision)
    with jax.enable_x64(True):
        return jgmm.fit(
            jax.random.key(0),
            x,
            K,
            sample_weight=weights if case.weights else None,
            labels=labels if case.labels else None,
            noise=VOLUME if case.noise else None,
            options=options_of(case),
            init=mixture_of(case),
            max_steps=STEPS,
            tol=0.0,
            rtol=0.0,
            **others,
        )


def error_of_fit(case: Case) -> float:
    """Error of the objective that ``jgmm.fit`` reports, and of that of its parameters, relative.

    After the same steps both are those of ``climb``.
    """
    result = jax.device_get(fit(case))
    with jax.enable_x64(True):
        noise = None if result.noise is None else float(result.noise.weight)
        mixture = result.mixture
        leaves = (np.asarray(leaf) for leaf in (mixture.weights, mixture.means))
        covariances = np.asarray(mixture.covariances)
        found, _ = run(case)
    weights, means, dense = (np.asarray(leaf, np.float64) for leaf in (*leaves, covariances))
    at = Parameters(weights, means, dense, noise)
    wanted = observed(case, parameters_at(found, STEPS))
    got = observed(case, at), float(result.log_likelihood) + log_prior(case, at)
    return max(abs(value - wanted) / abs(wanted) for value in got)


def refusal(case: Case, **others: Any) -> str:
    """The sentence with which ``jgmm.fit`` refuses a case; empty if it does not."""
    try:
        fit(case, **others)
    except jgmm.DataError as error:
        return str(error)
    return ""


class Outcome(NamedTuple):
    """What was measured of a case, nothing if it is refused; and what is wrong with it."""

    case: Case
    measured: dict[str, float]
    wrong: list[str]


def judge(case: Case, with_fit: bool = False) -> Outcome:
    """Measure a case that fits take, and see that the others are refused.

    Args:
      case: the model, the precision and the options.
      with_fit: whether ``jgmm.fit`` is compared, too, which takes a program of its own; and
        refuses an acceleration where there is noise.
    """
    if not case.supported:
        said = refusal(case)
        return Outcome(case, {}, [] if "takes no floor" in said else [f"refused with {said!r}"])
    found, limits, wrong = measure(case), bounds(case), []
    if with_fit:
        found["fit"] = error_of_fit(case)
        why = refusal(case, accelerate="anderson") if case.noise else None
        if why is not None and "leave accelerate out" not in why:
            wrong.append(f"noise with an acceleration is refused with {why!r}")
    for name, value in found.items():
        if not value <= limits[name]:
            wrong.append(f"{name} is {value:.2g}, more than {limits[name]:.2g}")
    return Outcome(case, found, wrong)


# Which cases.


def all_cases(codes: tuple[str, ...] = tuple(MODELS)) -> list[Case]:
    """Every model, precision and choice of options; those of one program follow one another."""
    # The last vary fastest. A program is for a model, a precision, a form, and four options.
    order = ("noise", "prior", "floor", "equal_weights", "ridge", "labels", "weights")
    choices = itertools.product((False, True), repeat=len(order))
    chosen = [dict(zip(order, choice, strict=True)) for choice in choices]
    return [
        Case(code, precision, form, **each)
        for code, precision, form, each in itertools.product(codes, PRECISIONS, FORMS, chosen)
    ]


def pairs(case: Case) -> set[tuple[Any, ...]]:
    """Every two settings of a case."""
    return set(itertools.combinations(enumerate(case), 2))


def pairwise_cases() -> list[Case]:
    """Few cases that fits take, in which every two settings that can be had together are.

    One case for every model and precision, which adds most to those before; then what is left.
    """
    cases = [case for case in all_cases() if case.supported]
    covered: set[tuple[Any, ...]] = set()
    wanted = set().union(*(pairs(case) for case in cases))
    chosen: list[Case] = []
    groups = [
        [case for case in cases if case[:2] == each]
        for each in itertools.product(MODELS, PRECISIONS)
    ]
    for group in itertools.chain(groups, itertools.repeat(cases)):
        if covered == wanted:
            return chosen
        chosen.append(max(group, key=lambda case: len(pairs(case) - covered)))
        covered |= pairs(chosen[-1])
    return chosen


def row(outcomes: list[Outcome]) -> dict[str, Any]:
    """A line of the table: a model in a precision, with the worst number of all its cases."""
    names = dict.fromkeys(name for each in outcomes for name in each.measured)
    return {
        "model": outcomes[0].case.code,
        "precision": outcomes[0].case.precision,
        "cases": len(outcomes),
        "refused": sum(not each.case.supported for each in outcomes),
        "failures": sum(bool(each.wrong) for each in outcomes),
        **{name: max(each.measured.get(name, 0.0) for each in outcomes) for name in names},
    }


def main() -> None:
    """Judge all cases, or those of some models."""
    parser = argparse.ArgumentParser(prog="python -m experiments.trust.options")
    parser.add_argument("--only", nargs="+", choices=list(MODELS), help="models, such as VVV")
    codes = tuple(parser.parse_args().only or MODELS)
    rows, failed = [], []
    for (code, precision), group in itertools.groupby(all_cases(codes), lambda case: case[:2]):
        # One fit for each of its programs, whatever the form.
        outcomes = [
            judge(case, case.form == "product" and case.ridge and case.labels and case.weights)
            for case in group
        ]
        wrong = [f"{each.case}: {'; '.join(each.wrong)}" for each in outcomes if each.wrong]
        rows.append(row(outcomes))
        failed += wrong
        print(code, precision, "failures:", *(wrong or ["none"]), sep="\n  ", flush=True)
        jax.clear_caches()
    show(rows, OUTPUT)
    if failed:
        raise SystemExit(f"{len(failed)} cases fail")


if __name__ == "__main__":
    main()
