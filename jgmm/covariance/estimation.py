"""Maximum-likelihood estimators of covariances with shared volume, shape or orientation.

    Σₖ = λₖ Dₖ Aₖ Dₖᵀ,    |Aₖ| = 1 and diagonal, Dₖ orthogonal

λ is the volume, A the shape, D the orientation; components may share each of the three or not. The
estimators rest on two ideas. First, the formulas for volume and shape are the same for diagonals,
for matrices and along given axes, so ``equal_volume`` and ``equal_shape`` are written once. Second,
a model with an orientation is a diagonal model along axes, which each component has for itself or
all have in common: ``own_axes`` and ``common_axes`` rotate the scatter to the axes, estimate a
diagonal model there, and rotate back.

All estimators have the signature of ``CovarianceModel.estimate``. Those that iterate start from the
previous scale, so the likelihood never falls. References: Celeux & Govaert (1995), section 4;
Browne & McNicholas (2014).
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jgmm.covariance.common_axes import (
    FEW_SWEEPS,
    MANY_SWEEPS,
    axes_of,
    find_axes,
    square_root,
)
from jgmm.covariance.storage import Full, Storage

Estimate = Callable[[Array, Array, Array | None], Array]

# Iterations at most between shape and volumes in one estimate.
MAX_STEPS = 100


def trailing(values: Float[Array, "K"], like: Array) -> Array:
    """Append axes of length one to values (K,), so that they broadcast against ``like`` (K, …)."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1))


def unit_if_unused(counts: Float[Array, "K"], scale: Array, storage: Storage) -> Array:
    """Replace the scale of components without samples by that of the unit covariance."""
    n_features = scale.shape[-1] if scale.ndim > 1 else 1
    unit = storage.identity(n_features, scale.dtype)  # its own square root
    return jnp.where(trailing(counts, scale) > 0, scale, unit)


def _inverse(volumes: Float[Array, "K"]) -> Float[Array, "K"]:
    """Reciprocals of the volumes; zero where a volume, and so the scatter, is zero."""
    positive = volumes > 0
    return jnp.where(positive, 1 / jnp.where(positive, volumes, 1), 0)


def _volume(storage: Storage, scale: Array, n_features: int) -> Float[Array, "K"]:
    """Volumes |Σₖ|^(1/D); zero for a covariance that is not positive definite."""
    volume = jnp.exp(2 / n_features * storage.half_log_det(scale, n_features))
    return jnp.where(volume > 0, volume, 0)


def equal_volume(storage: Storage) -> Estimate:
    """Make the estimator of equal volumes, Σₖ = λ Cₖ with |Cₖ| = 1: EVI (diagonal), EVV (full).

        Cₖ = Sₖ / |Sₖ|^(1/D),    λ = Σₖ |Sₖ|^(1/D) / N

    A singular scatter gives a singular covariance, and adds nothing to the sum for λ.
    """

    def estimate(counts: Array, scatter: Array, previous: Array | None) -> Array:
        del previous
        n_features, used = scatter.shape[-1], counts > 0
        root = storage.root(scatter)
        volumes = _volume(storage, root, n_features)
        common = jnp.where(used, volumes, 0).sum() / counts.sum()
        ratio = jnp.sqrt(common / jnp.where(used, volumes, 1))
        return unit_if_unused(counts, trailing(ratio, root) * root, storage)

    return estimate


def equal_shape(storage: Storage) -> Estimate:
    """Make the estimator of equal shapes, Σₖ = λₖ C with |C| = 1: VEI (diagonal), VEE (full).

    It alternates between two updates until no volume changes:

        C ∝ Σₖ Sₖ / λₖ,    λₖ = tr(Sₖ C⁻¹) / (D Nₖ)

    Minus the expected log-likelihood is convex in log λ and in log C (for matrices, along their
    geodesics), so the fixed point of the two updates is its only optimum.
    """

    def estimate(counts: Array, scatter: Array, previous: Array | None) -> Array:
        n_features = scatter.shape[-1]
        samples = n_features * jnp.where(counts > 0, counts, 1)

        def fit_shape(volumes: Array) -> Array:
            weights = _inverse(volumes)
            pooled = (trailing(weights, scatter) * scatter).sum(axis=0, keepdims=True)
            root = storage.root(pooled)
            volume = jnp.exp(2 / n_features * storage.half_log_det(root, n_features))
            return root / trailing(jnp.sqrt(volume), root)

        def fit_volumes(volumes: Array) -> Array:
            return storage.trace_ratio(fit_shape(volumes), scatter, n_features) / samples

        unit = storage.identity(n_features, scatter.dtype)  # its own square root
        volumes = storage.trace_ratio(unit, scatter, n_features) / samples
        if previous is not None:
            known = _volume(storage, previous, n_features)
            volumes = jnp.where((volumes > 0) & jnp.isfinite(known), known, volumes)
        volumes = _fixed_point(fit_volumes, volumes)
        shape = fit_shape(volumes)
        return unit_if_unused(counts, trailing(jnp.sqrt(volumes), shape) * shape, storage)

    return estimate


def _fixed_point(update: Callable[[Array], Array], volumes: Float[Array, "K"]) -> Float[Array, "K"]:
    """Repeat an update until no volume changes by more than √ε, relatively, or one is NaN.

    ε is the machine precision. At an optimum the log-likelihood depends on the error of the volumes
    through its square, which is then no more than a rounding error.
    """
    tol = jnp.sqrt(jnp.finfo(volumes.dtype).eps)

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, change, step = carry
        return (change > tol) & (step < MAX_STEPS)

    def body(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        before, _, step = carry
        after = update(before)
        change = jnp.abs(after - before) / jnp.where(before > 0, before, 1)
        return after, change.max(), step + 1

    infinite = jnp.asarray(jnp.inf, volumes.dtype)
    return lax.while_loop(unfinished, body, (volumes, infinite, jnp.asarray(0)))[0]


def own_axes(diagonal: Estimate) -> Estimate:
    """Make the estimator of a diagonal model along each component's own axes: EEV, VEV.

    The axes are the eigenvectors of the component's scatter. EEV comes from EEI and VEV from VEI.
    Components with a shape in common share it axis by axis, from the shortest to the longest.
    """

    def estimate(counts: Array, scatter: Array, previous: Array | None) -> Array:
        spread, axes = jnp.linalg.eigh(scatter)
        # Diagonal estimators use only the volume of the previous scale, which its diagonal gives.
        previous_diagonal = None if previous is None else jnp.diagonal(previous, axis1=1, axis2=2)
        along = diagonal(counts, jnp.maximum(spread, 0), previous_diagonal)
        return unit_if_unused(counts, _factors_along(axes, along), Full)

    return estimate


def common_axes(diagonal: Estimate) -> Estimate:
    """Make the estimator of a diagonal model along common axes: EVE from EVI, VVE from VVI.

    The axes are a local optimum: no rotation of two of them improves the likelihood. The search
    starts from the previous axes; there may be several local optima. ``diagonal`` is called without
    a previous scale.
    """

    def estimate(counts: Array, scatter: Array, previous: Array | None) -> Array:
        start = jnp.linalg.eigh(scatter.sum(axis=0))[1].T if previous is None else axes_of(previous)

        def along(spread: Array) -> Array:
            return diagonal(counts, spread, None)

        def weigh(spread: Array) -> Array:
            return 1 / along(spread) ** 2

        roots = square_root(scatter)
        max_sweeps = MANY_SWEEPS if previous is None else FEW_SWEEPS
        found = find_axes(roots, counts.sum(), weigh, start, max_sweeps)
        scale = _factors_along(found.axes.T[None], along(found.spread))
        return unit_if_unused(counts, scale, Full)

    return estimate


def _factors_along(
    axes: Float[Array, "J D D"], along: Float[Array, "L D"]
) -> Float[Array, "K D D"]:
    """Cholesky factors of D diag(v) Dᵀ from the axes D and the standard deviations √v along them.

    Both are those of each component, or one for all (J or L is 1). The covariances themselves are
    never made: rounding would blur their small eigenvalues.
    """
    upper = jnp.linalg.qr((axes * along[:, None, :]).mT, mode="r")
    sign = jnp.where(jnp.diagonal(upper, axis1=1, axis2=2) < 0, -1, 1).astype(upper.dtype)
    return (sign[:, :, None] * upper).mT
