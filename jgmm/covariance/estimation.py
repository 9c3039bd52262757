"""Covariances whose volume, shape and orientation components share one by one.

    Σₖ = λₖ Dₖ Aₖ Dₖᵀ,    |Aₖ| = 1 and diagonal, Dₖ orthogonal

λ is the volume, A the shape, D the orientation. Two ideas make the estimators. What is said about
volume and shape is the same for diagonals, for matrices and along given axes, so ``equal_volume``
and ``equal_shape`` are written once. And a model with an orientation is a diagonal one along axes
of each component's own, or of all in common: ``own_axes`` and ``common_axes`` turn the scatter,
estimate there, and turn back.

All have the signature of ``CovarianceModel.estimate``; those that iterate start from the scale
before, and so never end lower. References: Celeux & Govaert (1995), section 4; Browne & McNicholas
(2014).
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

MOST_STEPS = 100


def trailing(values: Float[Array, "K"], like: Array) -> Array:
    """One value a component with as many axes as ``like``, to multiply or divide it by."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1))


def unit_if_unused(counts: Float[Array, "K"], scale: Array, storage: Storage) -> Array:
    """The scale, and that of the unit covariance for components without samples."""
    n_features = scale.shape[-1] if scale.ndim > 1 else 1
    unit = storage.root(storage.identity(n_features, scale.dtype))
    return jnp.where(trailing(counts, scale) > 0, scale, unit)


def _inverse(volumes: Float[Array, "K"]) -> Float[Array, "K"]:
    """One over the volumes; nothing for a component that has none, and then no scatter either."""
    positive = volumes > 0
    return jnp.where(positive, 1 / jnp.where(positive, volumes, 1), 0)


def _volume(storage: Storage, scale: Array, n_features: int) -> Float[Array, "K"]:
    """|Σₖ|^(1/D), zero for a covariance that is not positive."""
    volume = jnp.exp(2 / n_features * storage.half_log_det(scale, n_features))
    return jnp.where(volume > 0, volume, 0)


def equal_volume(storage: Storage) -> Estimate:
    """Σₖ = λ Cₖ with |Cₖ| = 1: EVI of diagonals, EVV of matrices.

        Cₖ = Sₖ / |Sₖ|^(1/D),    λ = Σₖ |Sₖ|^(1/D) / N

    A singular scatter is a singular covariance, and the others' volume without it.
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
    """Σₖ = λₖ C with |C| = 1: VEI of diagonals, VEE of matrices.

        C ∝ Σₖ Sₖ / λₖ,    λₖ = tr(Sₖ C⁻¹) / (D Nₖ)

    in turn, until no volume moves. In log λ, and in log C or along geodesics of matrices, minus the
    expected log-likelihood is convex: where the two settle is the one optimum.
    """

    def estimate(counts: Array, scatter: Array, previous: Array | None) -> Array:
        n_features = scatter.shape[-1]
        samples = n_features * jnp.where(counts > 0, counts, 1)

        def fit_shape(volumes: Array) -> Array:
            share = _inverse(volumes)
            pooled = (trailing(share, scatter) * scatter).sum(axis=0, keepdims=True)
            root = storage.root(pooled)
            volume = jnp.exp(2 / n_features * storage.half_log_det(root, n_features))
            return root / trailing(jnp.sqrt(volume), root)

        def fit_volumes(volumes: Array) -> Array:
            return storage.trace_ratio(fit_shape(volumes), scatter, n_features) / samples

        unit = storage.root(storage.identity(n_features, scatter.dtype))
        volumes = storage.trace_ratio(unit, scatter, n_features) / samples
        if previous is not None:
            before = _volume(storage, previous, n_features)
            volumes = jnp.where((volumes > 0) & jnp.isfinite(before), before, volumes)
        volumes = _settled(fit_volumes, volumes)
        shape = fit_shape(volumes)
        return unit_if_unused(counts, trailing(jnp.sqrt(volumes), shape) * shape, storage)

    return estimate


def _settled(update: Callable[[Array], Array], volumes: Float[Array, "K"]) -> Float[Array, "K"]:
    """Repeat an update until no volume moves by more than the root of a rounding, or is NaN.

    What the volumes are off then costs its square, which is a rounding of the log-likelihood.
    """
    tol = jnp.sqrt(jnp.finfo(volumes.dtype).eps)

    def going_on(carry: tuple[Array, Array, Array]) -> Array:
        _, moved, step = carry
        return (moved > tol) & (step < MOST_STEPS)

    def again(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        before, _, step = carry
        after = update(before)
        moved = jnp.abs(after - before) / jnp.where(before > 0, before, 1)
        return after, moved.max(), step + 1

    far = jnp.asarray(jnp.inf, volumes.dtype)
    return lax.while_loop(going_on, again, (volumes, far, jnp.asarray(0)))[0]


def own_axes(diagonal: Estimate) -> Estimate:
    """A diagonal model along each component's own axes, the eigenvectors of its scatter.

    EEV from EEI, VEV from VEI. What components share of the shape they share axis by axis, from the
    shortest to the longest.
    """

    def estimate(counts: Array, scatter: Array, previous: Array | None) -> Array:
        spread, axes = jnp.linalg.eigh(scatter)
        # All that is asked of the scale before is its volume, which its diagonal has too.
        before = None if previous is None else jnp.diagonal(previous, axis1=1, axis2=2)
        along = diagonal(counts, jnp.maximum(spread, 0), before)
        return unit_if_unused(counts, _turned_back(axes, along), Full)

    return estimate


def common_axes(diagonal: Estimate) -> Estimate:
    """A diagonal model along axes that all components have in common: EVE from EVI, VVE from VVI.

    The axes are as good as no rotation of two improves them, starting from those before; there may
    be several such. ``diagonal`` is asked without a scale before.
    """

    def estimate(counts: Array, scatter: Array, previous: Array | None) -> Array:
        start = jnp.linalg.eigh(scatter.sum(axis=0))[1].T if previous is None else axes_of(previous)

        def along(spread: Array) -> Array:
            return diagonal(counts, spread, None)

        def weigh(spread: Array) -> Array:
            return 1 / along(spread) ** 2

        roots = square_root(scatter)
        most = MANY_SWEEPS if previous is None else FEW_SWEEPS
        found = find_axes(roots, counts.sum(), weigh, start, most)
        return unit_if_unused(counts, _turned_back(found.axes.T[None], along(found.spread)), Full)

    return estimate


def _turned_back(axes: Float[Array, "J D D"], along: Float[Array, "L D"]) -> Float[Array, "K D D"]:
    """The factors of D diag(v) Dᵀ, for axes and √v of each component or of all.

    Without making the covariances, whose small eigenvalues rounding would blur.
    """
    upper = jnp.linalg.qr((axes * along[:, None, :]).mT, mode="r")
    sign = jnp.where(jnp.diagonal(upper, axis1=1, axis2=2) < 0, -1, 1).astype(upper.dtype)
    return (sign[:, :, None] * upper).mT
