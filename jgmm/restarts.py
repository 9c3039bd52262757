"""Many starts as one compiled program, the best valid one, and what became of all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Array, Key

from jgmm import lanes, natural, racing
from jgmm.control import Options
from jgmm.em import Start, method_of
from jgmm.inputs import check_key
from jgmm.lanes import ProgressCallback
from jgmm.mixture import Mixture
from jgmm.noise import as_log_volume, at_start
from jgmm.precision import jit
from jgmm.prior import Prior
from jgmm.results import FitResult, finish
from jgmm.samples import Samples, make_samples
from jgmm.starts import Extra, check_problem, in_waves
from jgmm.status import DataError, check


def fit(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    covariance: str = "full",
    n_restarts: int = 1,
    init: Any = "kmeans",
    sample_weight: Any = None,
    labels: Any = None,
    tol: float | None = None,
    rtol: float | None = None,
    max_steps: int = 1000,
    ridge: Any = 0.0,
    equal_weights: bool = False,
    prior: Any = None,
    floor: Any = None,
    noise: Any = None,
    race: int = 0,
    accelerate: str | None = None,
    progress: ProgressCallback | None = None,
    mesh: Any = None,
) -> FitResult:
    """Fit a mixture of Gaussians by EM from many starts, and keep the best that ended well.

    Args:
      key: typed key; restart r uses ``fold_in(key, r)``, whatever the number of restarts.
      x: samples in rows, (N, D): an array, a list, or a data frame of numbers.
      n_components: K.
      covariance: name of the covariance model, see ``jgmm.covariance``.
      n_restarts: R, run side by side in one program.
      init: a name in ``jgmm.initialize.STARTS``, labels (N,), or a ``Mixture`` in the units of x,
        which with a leading axis of R is R starts.
      sample_weight: how many times each sample counts, (N,); zero equals a missing row.
      labels: the component each sample is known to be of, (N,), whole numbers from 0 to K - 1, and
        -1 where it is not known. The log-likelihood is then that of samples and known labels, Σ log
        p(x) + Σ log p(x, z), and starts have those components where their samples are.
      tol: a fit has converged when the mean log-likelihood per sample changes by less, in nats;
        by default 1e-8 in float64 and 1e-6 in float32.
      rtol: the same relative to the mean log-likelihood, by default four roundings.
      max_steps: M-steps at most, a restart.
      ridge: added to every variance, as a fraction of the data's. Zero, the default, makes EM
        monotone; components that then collapse are reported, not hidden.
      equal_weights: give all components the same weight, which saves K - 1 parameters.
      prior: None, "conjugate", or a ``jgmm.prior.Prior``. With one, EM finds the parameters that
        maximise log-likelihood and log prior together, which are bounded: no component collapses.
        ``log_likelihood`` stays that of the samples alone, ``log_prior`` is beside it. "conjugate"
        says little, in the units of the samples.
      floor: no variance in any direction falls below this fraction of the data's; None for none.
        What ends resting on it is ``DEGENERATE``. For models whose covariances are all alike or
        all free: full, tied, diag, EEI, spherical, EII.
      noise: None, "box", or a volume: a uniform component beside the mixture, over the samples'
        bounding box or over that volume, for samples that belong nowhere (``jgmm.noise``). It is in
        ``result.noise``, and counts one parameter more.
      race: steps after which only the quarter of the starts that promises most goes on, for four
        times as many, and so on until eight run to their ends; the others end as ``OUTRUN``. Zero,
        the default, runs every start to its end. Several times faster with many restarts; may miss
        an optimum that few starts lead to, the less the longer the steps (``jgmm.racing``).
      accelerate: "anderson" or "squarem" extrapolate EM's steps, which saves most of them where
        components overlap (``jgmm.acceleration``); None, the default, is EM as it is. ``n_steps``
        and ``max_steps`` then count passes over the samples.
      progress: called on the host with a ``Progress`` every few steps.
      mesh: of devices that share the samples, and the restarts, see ``jgmm.sharding.fit``; nothing
        is reported on the way then.

    Returns:
      A ``FitResult`` with the best valid restart, and the outcome of each in ``restarts``. Where
      all ended in spikes it holds the best of those, and its status, ``DEGENERATE``, says so.

    Raises:
      DataError: bad samples, weights or arguments, before any work starts.
      FitError: no restart ended in usable parameters. Inside ``jit`` or ``vmap`` nothing is
        raised: read ``status``.

    >>> import jax, jgmm
    >>> x = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]]
    >>> result = jgmm.fit(jax.random.key(0), x, 2, covariance="tied", n_restarts=4)
    >>> jgmm.Status(int(result.status)).name, result.mixture.weights.round(3).tolist()
    ('CONVERGED', [0.5, 0.5])

    Thousands of small data sets are one program: fill them up to one length with rows of weight
    zero, which may hold anything, and ``vmap``. Each ends with a status of its own.

    >>> sets = jax.numpy.asarray([x, [[9.0], [9.2], [1.0], [1.3], [0.0], [0.0]]])
    >>> held = jax.numpy.asarray([[1.0] * 6, [1.0] * 4 + [0.0] * 2])
    >>> kept = {"covariance": "tied", "init": "points", "n_restarts": 4}
    >>> def one(key, x, weight):
    ...     return jgmm.fit(key, x, 2, **kept, sample_weight=weight)
    >>> results = jax.vmap(one)(jax.random.split(jax.random.key(0), 2), sets, held)
    >>> results.mixture.means.shape, [jgmm.Status(int(code)).name for code in results.status]
    ((2, 2, 1), ['CONVERGED', 'CONVERGED'])
    """
    options = Options(
        covariance=covariance,
        n_restarts=n_restarts,
        init=init,
        race=race,
        tol=tol,
        rtol=rtol,
        max_steps=max_steps,
        ridge=ridge,
        equal_weights=equal_weights,
        prior=prior,
        floor=floor,
        accelerate=accelerate,
    )
    if mesh is not None:
        alone = {"labels": labels, "noise": noise, "progress": progress}
        given = [name for name, value in alone.items() if value is not None]
        if given:
            raise DataError(f"{', '.join(given)} cannot be had on a mesh: leave out one of both.")
        from jgmm import sharding  # it stands on this module

        return sharding.fit_on(key, x, n_components, options, mesh, sample_weight)
    samples = make_samples(x, sample_weight, labels)
    return check(fit_unchecked(key, samples, n_components, options, noise=noise, progress=progress))


def fit_unchecked(
    key: Key[Array, ""],
    samples: Samples,
    n_components: int,
    options: Options,
    *,
    slots: int | None = None,
    noise: Any = None,
    extra: Extra | None = None,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """``fit`` of checked samples that leaves a failure in the status instead of raising it.

    Args:
      options: of these the ridge may be one number, or one a column, (D,); all equal unless the
        model is closed per column.
      slots: components the program is made for, K by default. Those beyond K are switched off, so
        that one program serves every K up to it; the mixture returned still has them.
      extra: starts that take the place of some of those drawn, see ``Extra``.

    The other arguments are those of ``fit``.

    Raises:
      DataError: arguments that cannot be used, before any work starts.
    """
    check_problem(samples, n_components, options)
    racing.check_steps(options.race)
    control, method = options.control(samples, n_components), method_of(options)
    log_volume = as_log_volume(noise, samples)
    if log_volume is not None and options.accelerate is not None:
        raise DataError("noise is fitted by EM as it is: leave accelerate out.")

    def wave(mixtures: Mixture, inside: Samples) -> FitResult:
        n_slots, d = mixtures.means.shape[1:]
        work = natural.work(mixtures.model, d, n_slots, inside.n_samples)
        starts: Start = mixtures
        if log_volume is not None:
            starts = mixtures, at_start(log_volume, inside.frame, len(mixtures.means))
        if options.race:
            queue = racing.run(method, starts, inside, control, work, options.race, progress)
        else:
            queue = lanes.run(method, starts, inside, control, work, progress)
        return _finish(queue, inside, control.prior)

    active = np.arange(slots or n_components) < n_components
    return in_waves(wave, check_key(key), samples, active, options, extra)


@jit
def _finish(queue: lanes.Queue, samples: Samples, prior: Prior | None) -> FitResult:
    best, table = queue.best, queue.table
    history = queue.best_history
    ended_at = best.log_likelihood
    return finish(best.mixture, ended_at, best, history, table, samples, prior, best.noise)
