"""Sample from a known mixture, fit it again, and measure how the error falls as 1/√N.

    ./dev jgmm run configs/recovery.toml

Maximum likelihood is consistent and asymptotically efficient: the error of every parameter is
about 1/√N times a constant. Data sets of growing size are drawn from one mixture of three
overlapping components, each is fitted by EM, and the components, whose order is arbitrary, are put
into the order of the truth. On logarithmic axes the errors should lie on lines of slope −1/2.

Takes about 40 s on two cores, 55 s the first time, when the program has to be compiled. It prints
the slopes and their 95 % intervals: weights −0.517 (−0.601 to −0.433), means −0.495 (−0.541 to
−0.449), covariances −0.522 (−0.562 to −0.482); and that no fit failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from pydantic import Field

import jgmm
from experiments._shared import aligned, check_own_data, slope_interval
from jgmm import plot
from jgmm._core.status import VALID
from jgmm.mixture.mixture import Mixture
from jgmm.workbench.config.models import Count, Strict
from jgmm.workbench.studies.context import StudyContext

PARAMETERS = ("weights", "means", "covariances")


class Settings(Strict):
    """How much to do."""

    n_samples: Annotated[tuple[Annotated[int, Field(ge=50)], ...], Field(min_length=2)]
    """Sizes of the data sets."""
    n_repetitions: Annotated[int, Field(ge=2)] = 40
    """Data sets per size."""
    n_restarts: Count = 4
    """Starts of EM per data set."""
    max_steps: Count = 1000
    """EM steps at most."""


def run(study: StudyContext) -> None:
    """Measure the errors at every size, and the slopes of the fitted lines."""
    check_own_data(study)
    settings: Settings = study.settings
    truth = known_mixture()
    study.mixture("truth", truth)
    sizes, errors, table, failed = settings.n_samples, [], [], 0
    for i, n in enumerate(sizes):
        keys = jax.random.split(jax.random.fold_in(study.key, i), settings.n_repetitions)
        error, status = refit(keys, truth, settings, jnp.asarray(n))
        valid = np.isin(status, VALID)
        failed += int((~valid).sum())
        errors.append(np.where(valid[:, None], error, np.nan))
        table.append({"n_samples": n, **_by_parameter(np.nanmedian(errors[-1], axis=0))})
    stacked = np.stack(errors)  # (sizes, repetitions, parameters)
    slopes = []
    for name, values in _by_parameter(np.moveaxis(stacked, 2, 0)).items():
        where = np.isfinite(values)
        sizes_of = np.broadcast_to(np.array(sizes)[:, None], values.shape)
        slope = slope_interval(np.log(sizes_of[where]), np.log(values[where]))
        slopes.append(
            {"scenario": name, "method": "least squares on the logarithms", **slope._asdict()}
        )
        study.metric(f"slope of {name}", slope.mean)
        study.metric(f"slope of {name}: 95 % interval", f"{slope.low:.3f} to {slope.high:.3f}")
    study.metric("fits that failed", failed)
    _report(study, sizes, stacked, table, slopes)


def known_mixture() -> Mixture:
    """Return the mixture to recover: three components that overlap."""
    return jgmm.make_mixture(
        [0.5, 0.3, 0.2],
        [[0.0, 0.0], [3.5, 1.0], [0.0, 4.5]],
        [[[1.0, 0.5], [0.5, 1.0]], [[0.5, -0.2], [-0.2, 1.0]], [[1.5, 0.0], [0.0, 0.5]]],
    )


@partial(jax.jit, static_argnums=2)
def refit(
    keys: Key[Array, "R"], truth: Mixture, settings: Settings, n: Int[Array, ""]
) -> tuple[Float[Array, "R 3"], Array]:
    """Return each repetition's errors in weights, means and covariances, and its status.

    Every data set has the largest size, with weight zero for all samples but the first n, which
    equals a data set of size n. So one program, compiled once, serves all sizes.
    """

    def one(key: Array) -> tuple[Array, Array]:
        draw, start = jax.random.split(key)
        most, k = max(settings.n_samples), truth.n_components
        x, _ = jgmm.sample(draw, truth, most)
        result = jgmm.fit(
            start,
            x,
            k,
            init="kmeans",  # all methods in turn would be one large program
            n_restarts=settings.n_restarts,
            sample_weight=(jnp.arange(most) < n).astype(x.dtype),
            max_steps=settings.max_steps,
        )
        found = aligned(result.mixture, truth)
        pairs = [(getattr(found, name), getattr(truth, name)) for name in PARAMETERS]
        return jnp.stack([jnp.linalg.norm((a - b).ravel()) for a, b in pairs]), result.status

    return jax.vmap(one)(keys)


def _by_parameter(values: Any) -> dict[str, Any]:
    return dict(zip(PARAMETERS, values, strict=True))


def _report(
    study: StudyContext,
    sizes: Sequence[int],
    errors: np.ndarray,
    table: list[Any],
    slopes: list[Any],
) -> None:
    repetitions = errors.shape[1]
    study.table(
        "errors",
        table,
        f"Error, the Euclidean length of estimate less truth over all components: median of "
        f"{repetitions} data sets.",
    )
    study.table("slopes", slopes, "Slope of log error against log N, with its 95 % interval.")
    figure, (ax,) = plot.new_figure(size=(7, 4.5))
    plot.errors(sizes, _by_parameter(np.moveaxis(errors, 2, 0)), ax)
    study.figure(
        "errors",
        figure,
        f"Median error and the band from the first to the third quartile, {repetitions} data sets "
        "of each size.",
    )
    figure, (ax,) = plot.new_figure(size=(7, 2.4))
    plot.intervals(slopes, ax, xlabel="slope and 95 % interval", reference=-0.5)
    study.figure("slopes", figure, "Theory says −1/2, the dashed line.")
