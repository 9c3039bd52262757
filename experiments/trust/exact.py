"""Gaussian mixtures in fifty digits, the reference for the accuracy of floating point.

Arrays hold numbers of mpmath (``exact`` makes them), or NumPy's long doubles, of 64 bits, where
mpmath would take hours; the functions are the same. Nothing here shares code or algebra with the
package: densities and determinants use Gaussian elimination, moments are written as in a textbook,
and iterations run until nothing changes in the thirtieth digit.
"""

from __future__ import annotations

from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np

FIFTY = mpmath.MPContext()
FIFTY.dps = 50
SETTLED = FIFTY.mpf(10) ** -30
MOST_ROUNDS = 1000

_exact, _log, _exp = (np.frompyfunc(f, 1, 1) for f in (FIFTY.mpf, FIFTY.log, FIFTY.exp))


def exact(values: Any) -> np.ndarray:
    """Convert floating-point numbers to fifty digits, without rounding."""
    return np.asarray(_exact(np.asarray(values, np.float64)), object)


def long(values: Any) -> np.ndarray:
    """Convert to long doubles."""
    return np.asarray(values, np.longdouble)


def log(x: np.ndarray) -> Any:
    """Logarithm of either kind of number."""
    return _log(x) if x.dtype == object else np.log(x)


def exp(x: np.ndarray) -> Any:
    """Exponential of either kind of number."""
    return _exp(x) if x.dtype == object else np.exp(x)


def log_2pi(like: np.ndarray) -> Any:
    """log 2π."""
    return FIFTY.log(2 * FIFTY.pi) if like.dtype == object else np.log(8 * np.arctan(long(1)))


def eliminate(matrix: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pivots (D,) of A, and columns (D, M) after the same elimination steps.

    For a symmetric A and a column b, bᵀ A⁻¹ b is the sum of the squares over the pivots, and |A|
    their product.
    """
    rest, d = np.concatenate([matrix, columns], axis=1), len(matrix)
    for j in range(d):
        factors = rest[j + 1 :, j] / rest[j, j]
        rest[j + 1 :, j:] = rest[j + 1 :, j:] - factors[:, None] * rest[j, j:][None, :]
    return np.diagonal(rest).copy(), rest[:, d:]


def log_gaussian(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """log N(xₙ | μ, Σ), (N,)."""
    pivots, away = eliminate(covariance, (x - mean[None, :]).T)
    distance = (away**2 / pivots[:, None]).sum(axis=0)
    return np.asarray(-(len(mean) * log_2pi(x) + log(pivots).sum() + distance) / 2)


def e_step(
    x: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log densities (N,) and responsibilities (N, K)."""
    parts = zip(log(weights), means, covariances, strict=True)
    joint = np.stack([w + log_gaussian(x, m, c) for w, m, c in parts], axis=1)
    largest = joint.max(axis=1)
    shares = exp(joint - largest[:, None])
    total = shares.sum(axis=1)
    return largest + log(total), shares / total[:, None]


def statistics(
    x: np.ndarray, counted: np.ndarray, center: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts (K,), first (K, D) and second moments (K, D, D) about a center a component.

    ``counted`` are responsibilities times sample weights, (N, K).
    """
    first, second = [], []
    for each, origin in zip(counted.T, center, strict=True):
        away = x - origin[None, :]
        first.append(each @ away)
        second.append((each[:, None] * away).T @ away)
    return counted.sum(axis=0), np.array(first), np.array(second)


def m_step(
    x: np.ndarray, counted: np.ndarray, code: str, near: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (K,), means (K, D) and covariances (K, D, D); ``near`` is for common axes."""
    counts = counted.sum(axis=0)
    means = counted.T @ x / counts[:, None]
    _, _, scatter = statistics(x, counted, means)
    return counts / counts.sum(), means, covariances_of(counts, scatter, code, near)


def em_step(
    x: np.ndarray, sample_weight: np.ndarray, parameters: Any, code: str
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], Any]:
    """Updated parameters, and the log-likelihood of those passed in."""
    log_prob, resp = e_step(x, *parameters)
    return m_step(x, sample_weight[:, None] * resp, code, parameters[2]), sample_weight @ log_prob


def criteria(
    log_prob: np.ndarray, resp: np.ndarray, sample_weight: np.ndarray, p: int
) -> dict[str, Any]:
    """AIC, AICc, BIC and ICL of p parameters, the lower the better."""
    n, ell = sample_weight.sum(), sample_weight @ log_prob
    entropy = -(sample_weight[:, None] * resp * log(resp)).sum()
    aic, bic = 2 * p - 2 * ell, p * log(np.asarray(n)) - 2 * ell
    aicc = aic + 2 * p * (p + 1) / (n - p - 1)
    return {"aic": aic, "aicc": aicc, "bic": bic, "icl": bic + 2 * entropy}


# Covariances.


def covariances_of(
    counts: np.ndarray, scatter: np.ndarray, code: str, near: np.ndarray | None = None
) -> np.ndarray:
    """Covariances (K, D, D) of the model that maximise -Σₖ (Nₖ log|Σₖ| + tr Σₖ⁻¹ Sₖ)/2.

    Args:
      counts: Nₖ, (K,).
      scatter: Sₖ, (K, D, D).
      code: three letters, for volume, shape and orientation.
      near: covariances with nearly the best common axes; of several optima the nearest is found.
    """
    k, d, _ = scatter.shape
    if code[1:] in ("EV", "VE"):
        turns = own_axes(scatter) if code[2] == "V" else common_axes(counts, scatter, code, near)
        along = np.array([diagonal(t.T @ s @ t) for t, s in zip(turns, scatter, strict=True)])
        found = covariances_of(counts, along, code[:2] + "I")
        return np.array([t @ f @ t.T for t, f in zip(turns, found, strict=True)])
    if code[2] == "I":
        scatter = np.array([diagonal(s) for s in scatter])
    if code[1] == "I":
        scatter = np.array([diagonal(s).trace() / d * identity(s) for s in scatter])
    if "V" not in code:
        return np.array([scatter.sum(axis=0) / counts.sum()] * k)
    if code[0] == "E":
        volume = np.array([root_of_determinant(s) for s in scatter])
        return scatter / volume[:, None, None] * volume.sum() / counts.sum()
    if code[1] == "E":
        return equal_shape(counts, scatter)
    return np.asarray(scatter / counts[:, None, None])


def identity(like: np.ndarray) -> np.ndarray:
    """The unit matrix in the kind of number given."""
    return np.eye(len(like), dtype=int) + 0 * like


def diagonal(matrix: np.ndarray) -> np.ndarray:
    """The matrix with zeros off its diagonal."""
    return np.asarray(np.diag(np.diagonal(matrix)) + 0 * matrix)


def root_of_determinant(matrix: np.ndarray) -> Any:
    """|A|^(1/D)."""
    pivots, _ = eliminate(matrix, matrix[:, :0])
    return exp(np.asarray(log(pivots).sum() / len(matrix)))


def equal_shape(counts: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    """Σₖ = λₖ C with |C| = 1; volumes and shape alternate until no λ changes."""
    d = scatter.shape[1]
    volumes = np.array([s.trace() / d / n for s, n in zip(scatter, counts, strict=True)])
    for _ in range(MOST_ROUNDS):
        shape = (scatter / volumes[:, None, None]).sum(axis=0)
        shape = shape / root_of_determinant(shape)
        inverse = inverse_of(shape)
        new = np.array([(inverse * s).sum() / d / n for s, n in zip(scatter, counts, strict=True)])
        moved, volumes = abs(new / volumes - 1).max(), new
        if moved < SETTLED:
            return np.array([v * shape for v in volumes])
    raise ArithmeticError(f"volumes still move by {moved}")


def inverse_of(matrix: np.ndarray) -> np.ndarray:
    """A⁻¹ of a symmetric positive A: Eᵀ diag(1/pivots) E, where elimination turns 1 into E."""
    pivots, made = eliminate(matrix, identity(matrix))
    return np.asarray(made.T @ (made / pivots[:, None]))


def own_axes(scatter: np.ndarray) -> np.ndarray:
    """Eigenvectors of each scatter, in columns, that of the smallest eigenvalue first."""
    return np.array([eigenvectors(s) for s in scatter])


def eigenvectors(matrix: np.ndarray) -> np.ndarray:
    """In columns, by increasing eigenvalue."""
    _, vectors = FIFTY.eigsy(FIFTY.matrix(matrix.tolist()))
    return np.array(vectors.tolist(), object).reshape(matrix.shape)


def common_axes(
    counts: np.ndarray, scatter: np.ndarray, code: str, near: np.ndarray | None
) -> np.ndarray:
    """Axes that no rotation of two of them improves, the nearest to those of ``near``."""
    k, d, _ = scatter.shape
    begin = scatter if near is None else near
    # Unequal coefficients: with equal ones, eigenvalues of the sum could coincide.
    mixed = sum((1 + j * FIFTY.mpf(1) / 7) * c / c.trace() for j, c in enumerate(begin))
    axes = eigenvectors(np.asarray(mixed))
    for _ in range(MOST_ROUNDS):
        moved = FIFTY.mpf(0)
        for i in range(d):
            for j in range(i):
                along = np.array([axes.T @ s @ axes for s in scatter])
                angle = best_angle(counts, along, code, i, j)
                axes = axes @ rotation(axes, i, j, angle)
                moved = max(moved, abs(angle))
        if moved < SETTLED:
            return np.array([axes] * k)
    raise ArithmeticError(f"axes still turn by {moved}")


def best_angle(counts: np.ndarray, scatter: np.ndarray, code: str, i: int, j: int) -> Any:
    """The angle near zero of the rotation with the lowest minus log-likelihood."""
    spread = np.diagonal(scatter, axis1=1, axis2=2).copy()
    first, second, cross = spread[:, i].copy(), spread[:, j].copy(), scatter[:, i, j]

    def slope(angle: Any) -> Any:
        c, s = FIFTY.cos(angle), FIFTY.sin(angle)
        spread[:, i] = c * c * first + 2 * c * s * cross + s * s * second
        spread[:, j] = s * s * first - 2 * c * s * cross + c * c * second
        turned = c * s * (second - first) + (c * c - s * s) * cross
        if code[0] == "V":
            pull = counts
        else:
            volume = exp(log(spread).sum(axis=1) / spread.shape[1])
            pull = volume / volume.sum()
        return (pull * turned * (1 / spread[:, i] - 1 / spread[:, j])).sum()

    if abs(slope(FIFTY.mpf(0))) < SETTLED**2:
        return FIFTY.mpf(0)
    level = FIFTY.findroot(slope, (FIFTY.mpf(0), FIFTY.mpf("1e-4")), tol=SETTLED**3)
    if slope(level + FIFTY.mpf("1e-9")) < 0:
        raise ArithmeticError("the axes given are not near the best ones")
    return level


def rotation(like: np.ndarray, i: int, j: int, angle: Any) -> np.ndarray:
    """The rotation of axis i towards axis j."""
    found = identity(like)
    found[i, i] = found[j, j] = FIFTY.cos(angle)
    found[j, i], found[i, j] = FIFTY.sin(angle), -FIFTY.sin(angle)
    return found
