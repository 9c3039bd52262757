"""Data that make algorithms lose digits: errors of jgmm and scikit-learn against fifty digits.

    ./dev python -m experiments.trust.stress

EM runs three times on the same numbers, from one start and for the same number of steps: in fifty
digits, in jgmm and in scikit-learn. The program prints the errors of the last two, writes them to
`runs/trust/stress.json`, and fails if an error of jgmm exceeds its bound. Expected time: five
minutes on two cores. Expected numbers: jgmm within its bound in every row; scikit-learn beyond it,
or without a result, in every row far from zero; two variances of 0.1 from jgmm, and 0.1 and 112.1
from scikit-learn.

Errors have no units: the log-likelihood's in nats a sample, or relative to it where it is larger
than one; the means' in standard deviations of the component, L⁻¹ (found − true); and the
covariances' as the largest entry of L⁻¹ Σ L⁻ᵀ − 1, Σ found and L Lᵀ true. ``grid`` is the error in
the means that the precision makes unavoidable: that of the true means, rounded to the precision.
"""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

import jgmm
from experiments.benchmark.chart import as_table
from experiments.trust import exact
from experiments.trust.models import exact_parameters
from jgmm.covariance.models import MODELS
from jgmm.mixture.mixture import Mixture
from jgmm.workbench.runs import storage

OUTPUT = pathlib.Path("runs/trust/stress.json")
PRECISIONS = ("float32", "float64")
OFFSET = {"float32": 1e6, "float64": 1e8}
THEIRS = {"VVV": "full", "EEE": "tied", "VVI": "diag", "VII": "spherical"}

Parameters = tuple[np.ndarray, np.ndarray, np.ndarray]
Number = Callable[[Any], np.ndarray]


class Problem(NamedTuple):
    """Samples (N, D), their weights (N,), and where EM starts, all in float64."""

    x: np.ndarray
    sample_weight: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


class Errors(NamedTuple):
    """Largest errors, without units; see the top of this module."""

    log_likelihood: float
    weights: float
    means: float
    covariances: float


@dataclass(frozen=True)
class Case:
    """One kind of data, fitted with one model.

    Attributes:
      name: the difficulty.
      code: of the covariance model.
      make: ``(generator, precision) -> Problem``.
      roundings: bounds of jgmm's errors in roundings, for float32 and float64; for the means, twice
        the grid is added. None where the digits do not suffice and the status must be collapsed.
      n_steps: number of EM steps.
      long: whether to use long doubles instead of fifty digits, which would take hours.
    """

    name: str
    code: str
    make: Callable[[np.random.Generator, str], Problem]
    roundings: tuple[float | None, float | None]
    n_steps: int = 5
    long: bool = False


def clusters(
    rng: np.random.Generator, means: Any, factors: Any, sizes: tuple[int, int] = (120, 80)
) -> Problem:
    """Draw from two Gaussians; the start is near the truth, with the wrong shapes."""
    means, factors = np.asarray(means, float), np.asarray(factors, float)
    factors = np.broadcast_to(factors, (2, *factors.shape[-2:]))
    x = np.concatenate(
        [
            mean + rng.normal(size=(n, len(mean))) @ factor.T
            for n, mean, factor in zip(sizes, means, factors, strict=True)
        ]
    )
    variances = (factors**2).sum(axis=2)
    start = 1.2 * variances[:, :, None] * np.eye(x.shape[1])
    return Problem(x, np.ones(len(x)), means + 0.1 * np.sqrt(variances), start)


def far_from_zero(rng: np.random.Generator, precision: str) -> Problem:
    """Overlapping components of unit variance, far from zero: 1e6 or 1e8 standard deviations."""
    made, offset = clusters(rng, [[0, 0, 0], [3, 1, 0]], np.eye(3)), OFFSET[precision]
    return made._replace(x=made.x + offset, means=made.means + offset)


def unlike_columns(rng: np.random.Generator, precision: str) -> Problem:
    """Columns in units of 1e-12, 1 and 1e12."""
    del precision
    unit, factor = 10.0 ** np.array([-12, 0, 12]), [[1, 0, 0], [0.5, 1, 0], [-0.5, 0.5, 1]]
    made = clusters(rng, [[0, 0, 0], [3, 2, 0]], factor)
    scale = unit[:, None] * unit[None, :]
    return Problem(made.x * unit, made.sample_weight, made.means * unit, made.covariances * scale)


def thin(rng: np.random.Generator, n_shapes: int, condition: float) -> Problem:
    """Covariances along random axes; the means differ along the longest axis."""
    turns = np.linalg.qr(rng.normal(size=(n_shapes, 3, 3)))[0]
    factors = turns * (condition ** np.array([0, -0.25, -0.5]))[None, None, :]
    return clusters(rng, [[0, 0, 0], 5 * turns[0, :, 0]], np.resize(factors, (2, 3, 3)))


def narrow(rng: np.random.Generator, precision: str) -> Problem:
    """Components whose distance is 1e4 times their width."""
    del precision
    return clusters(rng, [[0, 0, 0], [1e4, 0, 5e3]], np.eye(3))


def wide(rng: np.random.Generator, sizes: tuple[int, int]) -> Problem:
    """500 columns."""
    factor = np.eye(500) + 0.02 * np.tril(rng.normal(size=(500, 500)), -1)
    return clusters(rng, rng.normal(size=(2, 500)), factor, sizes)


def rare_by_weight(rng: np.random.Generator, precision: str) -> Problem:
    """A component of weight 1e-6, whose samples count little."""
    del precision
    made = clusters(rng, [[0, 0, 0], [30, 10, 0]], np.eye(3), (180, 20))
    return made._replace(sample_weight=np.repeat([1.0, 9e-6], [180, 20]))


def rare(rng: np.random.Generator, precision: str) -> Problem:
    """A component of weight 1e-6: four samples in four millions."""
    del precision
    return clusters(rng, [[0, 0], [30, 10]], np.eye(2), (4_000_000 - 4, 4))


def outlier(rng: np.random.Generator, precision: str) -> Problem:
    """One sample 1e6 standard deviations out."""
    del precision
    made = clusters(rng, [[0, 0, 0], [40, 10, 0]], np.eye(3))
    made.x[-1] = [1e6, 0, 0]
    # With a wide start, the component that has the outlier keeps its samples.
    made.covariances[1] *= 1e9
    return made


FAR, UNLIKE, NARROW = "far from zero", "unlike columns", "narrow and far apart"
OUTLIER, WIDE = "one sample at 1e6", "500 columns"
# Bounds leave a factor of two to ten above the measured errors. Their order of magnitude: a few
# dozen roundings for sums of 200 terms; the root of the condition number where all components have
# one shape, which whitening removes; the condition number where they have two; distance over
# standard deviation; and the extent of all samples over the deviation of the narrowest component.
SMALL = (
    Case(FAR, "VVV", far_from_zero, (100, 300)),
    Case(FAR, "EEE", far_from_zero, (100, 100)),
    Case(FAR, "VVI", far_from_zero, (100, 100)),
    Case(FAR, "VII", far_from_zero, (100, 100)),
    Case(UNLIKE, "VVV", unlike_columns, (100, 100)),
    Case(UNLIKE, "VVI", unlike_columns, (100, 100)),
    Case("condition 1e10, one shape", "VVV", lambda rng, _: thin(rng, 1, 1e10), (1e5, 1e5)),
    Case("condition 1e10, one shape", "EEE", lambda rng, _: thin(rng, 1, 1e10), (1e5, 1e5)),
    Case("condition 1e5, two shapes", "VVV", lambda rng, _: thin(rng, 2, 1e5), (2e6, 2e6)),
    Case("condition 1e10, two shapes", "VVV", lambda rng, _: thin(rng, 2, 1e10), (None, 2e11)),
    Case(NARROW, "VVV", narrow, (1e4, 1e4)),
    Case(NARROW, "VII", narrow, (1e4, 1e4)),
    Case("weight 1e-6, by weights", "VVV", rare_by_weight, (1e4, 1e4)),
    Case(OUTLIER, "VVV", outlier, (2e4, 2e4)),
    Case(OUTLIER, "VVI", outlier, (2e4, 2e4)),
    Case(WIDE, "VVI", lambda rng, _: wide(rng, (40, 30)), (300, 300), 2, long=True),
)
LARGE = (
    Case(WIDE, "VVV", lambda rng, _: wide(rng, (800, 700)), (1e4, 1e4), 2, long=True),
    Case("weight 1e-6, by rows", "VVV", rare, (5e4, 5e4), 2, long=True),
)


# One array shape and one model, so that all share one compiled program.
QUICK = tuple(case for case in SMALL if case.code == "VVV")


def measure(case: Case, precision: str, peer: bool = True) -> dict[str, Any]:
    """Errors of jgmm and of scikit-learn in one case, the grid, and the bound."""
    with jax.enable_x64(True):
        return _measure(case, np.dtype(precision), peer)


def _measure(case: Case, dtype: np.dtype[Any], peer: bool) -> dict[str, Any]:
    made = case.make(np.random.default_rng(0), str(dtype))
    x = made.x.astype(dtype)
    start = starting(made, case.code, dtype)
    number = exact.long if case.long else exact.exact
    sample_weight = made.sample_weight.astype(dtype)
    rows, counts = number(x), number(sample_weight)

    truth = exact_parameters(start, number)
    for _ in range(case.n_steps):
        truth, _ = exact.em_step(rows, counts, truth, case.code)
    log_prob, _ = exact.e_step(rows, *truth)
    expected = (counts @ log_prob, counts.sum(), truth)

    row: dict[str, Any] = {"case": case.name, "model": case.code, "precision": str(dtype)}
    rounded = (truth[0], number(truth[1].astype(dtype)), truth[2])
    row["grid"] = grid = compare(float(expected[0]), rounded, expected).means
    allowed = case.roundings[PRECISIONS.index(str(dtype))]
    try:
        ours = compare(*fitted(start, x, sample_weight, case.n_steps, number), expected)
    except jgmm.FitError as error:
        row |= {"jgmm": str(error).split(".")[0], "within": allowed is None}
    else:
        bound = (allowed or 0.0) * float(np.finfo(dtype).eps)
        # Means moved by the grid cost half its square; the log-likelihood is that of these means.
        log_likelihood = ours.log_likelihood - grid**2 / 2
        within = max(log_likelihood, ours.weights, ours.covariances, ours.means - 2 * grid)
        row |= {**_named("jgmm", ours), "bound": bound, "within": within <= bound}
    return row | (_peer(case, made, start, x, number, expected) if peer else {})


def fitted(
    start: Mixture, x: np.ndarray, sample_weight: np.ndarray, n_steps: int, number: Number
) -> tuple[float, Parameters]:
    """Log-likelihood and parameters after as many steps of jgmm."""
    result = jgmm.fit(
        jax.random.key(0),
        x,
        start.n_components,
        covariance=start.covariance,
        init=start,
        sample_weight=sample_weight,
        max_steps=n_steps,
        tol=0.0,
        rtol=0.0,
    )
    mixture = result.mixture
    weights, means, factors = map(number, (mixture.weights, mixture.means, mixture.cholesky))
    covariances = np.array([factor @ factor.T for factor in factors])
    return float(result.log_likelihood), (weights, means, covariances)


def starting(made: Problem, code: str, dtype: np.dtype[Any]) -> Mixture:
    """The mixture to start from, in the precision: diagonal covariances and equal weights."""
    entry, k = MODELS[code], len(made.means)
    variances = np.diagonal(made.covariances, axis1=1, axis2=2).copy()
    if entry.shared:
        variances = variances[:1]
    scale = np.sqrt(
        {1: variances.mean(axis=1), 2: variances, 3: variances[:, :, None] * np.eye(len(made.x.T))}[
            entry.storage.ndim
        ]
    )
    return Mixture(
        jax.numpy.full(k, -np.log(k), dtype),
        jax.numpy.asarray(made.means, dtype),
        jax.numpy.asarray(scale, dtype),
        entry.name,
    )


def compare(log_likelihood: float, found: Parameters, expected: tuple[Any, Any, Any]) -> Errors:
    """Errors of parameters and of the log-likelihood reported with them."""
    ell, total, truth = expected
    means, covariances = [], []
    for mean, sigma, true_mean, true_sigma in zip(*found[1:], *truth[1:], strict=True):
        columns = np.concatenate([sigma - true_sigma, (mean - true_mean)[:, None]], axis=1)
        pivots, once = exact.eliminate(true_sigma, columns)
        _, twice = exact.eliminate(true_sigma, once[:, :-1].T)
        root = np.sqrt(pivots.astype(np.float64))
        covariances.append(np.abs(twice.astype(np.float64) / root[:, None] / root[None, :]).max())
        means.append(np.abs(once[:, -1].astype(np.float64) / root).max())
    return Errors(
        float(abs(log_likelihood - ell) / max(total, abs(ell))),
        float(abs(found[0] / truth[0] - 1).max()),
        float(max(means)),
        float(max(covariances)),
    )


def _named(who: str, errors: Errors) -> dict[str, float]:
    names = ("log p", "weights", "means", "covariances")
    return {f"{who} {name}": value for name, value in zip(names, errors, strict=True)}


def _peer(
    case: Case,
    made: Problem,
    start: Mixture,
    x: np.ndarray,
    number: Number,
    expected: tuple[Any, Any, Any],
) -> dict[str, Any]:
    """Errors of scikit-learn from the same start, or the error message it raises."""
    if (made.sample_weight != 1).any():
        return {"scikit-learn": "has no such fit"}
    try:
        found = scikit_learn(THEIRS[case.code], start, x, case.n_steps)
    except (ValueError, FloatingPointError) as error:
        return {"scikit-learn": str(error).split(".")[0][:60]}
    log_likelihood, *parameters = found
    errors = compare(log_likelihood, tuple(map(number, parameters)), expected)  # type: ignore[arg-type]
    return _named("scikit-learn", errors)


def scikit_learn(
    kind: str, start: Mixture, x: np.ndarray, n_steps: int
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood, weights, means and covariances after as many steps from the same start."""
    from sklearn.mixture import GaussianMixture

    k, d = start.means.shape
    variances = np.asarray(start.variances)
    precisions = {
        "full": (1 / variances)[:, :, None] * np.eye(d, dtype=x.dtype),
        "tied": np.diag(1 / variances[0]),
        "diag": 1 / variances,
        "spherical": 1 / variances[:, 0],
    }[kind]
    model = GaussianMixture(
        k,
        covariance_type=kind,
        tol=0.0,
        reg_covar=0.0,
        max_iter=n_steps,
        weights_init=np.full(k, 1 / k, x.dtype),
        means_init=np.asarray(start.means),
        precisions_init=precisions,
        random_state=0,
        init_params="random_from_data",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x)
        log_likelihood = float(model.score_samples(x).astype(np.float64).sum())
    sigma = np.asarray(model.covariances_)
    dense = {
        "full": lambda: sigma,
        "tied": lambda: np.broadcast_to(sigma, (k, d, d)),
        "diag": lambda: sigma[:, :, None] * np.eye(d),
        "spherical": lambda: sigma[:, None, None] * np.eye(d),
    }[kind]()
    return log_likelihood, np.asarray(model.weights_), np.asarray(model.means_), dense


def two_points(precision: str) -> dict[str, Any]:
    """Variances of two components on one sample each, in one column, with 0.1 added to each.

    jgmm's ridge is a fraction of the data's variance, here (9999 / 2)².
    """
    x = np.asarray([[9999], [0]], precision)
    with jax.enable_x64(True):
        ridge = 0.1 / (9999 / 2) ** 2
        ours = jgmm.fit(jax.random.key(0), x, 2, covariance="spherical", ridge=ridge)
    from sklearn.mixture import GaussianMixture

    theirs = GaussianMixture(2, covariance_type="spherical", reg_covar=0.1, random_state=0).fit(x)
    return {
        "precision": precision,
        "jgmm": [float(v) for v in ours.mixture.variances[:, 0]],
        "scikit-learn": [float(v) for v in theirs.covariances_],
    }


def main() -> None:
    """Measure all cases in both precisions, and check the bounds."""
    rows = []
    for case in (*SMALL, *LARGE):
        for precision in PRECISIONS:
            rows.append(measure(case, precision))
            print(as_table(rows[-1:]), flush=True)
    pairs = [two_points(precision) for precision in PRECISIONS]
    print(as_table(rows), as_table(pairs), sep="\n\n")
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    storage.write_json(OUTPUT, {"cases": rows, "two points": pairs})
    print(OUTPUT)
    if not all(row["within"] for row in rows):
        raise SystemExit("an error of jgmm exceeds its bound")


if __name__ == "__main__":
    main()
