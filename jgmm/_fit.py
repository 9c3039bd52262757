"""``jgmm.fit``: fit a mixture by EM, in memory or on a mesh of devices."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Key

from jgmm._core.errors import DataError
from jgmm._data.samples import make_samples
from jgmm.em.options import Options
from jgmm.fitting.in_memory import fit_unchecked
from jgmm.fitting.restarts import ProgressCallback
from jgmm.fitting.results import FitResult, raise_if_failed


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
      init: a name in ``jgmm.initialization.STARTS``, labels (N,), or a ``Mixture`` in the units of
        x, which with a leading axis of R is R starts.
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
      prior: None, "conjugate", or a ``jgmm.mixture.Prior``. With one, EM finds the parameters that
        maximise log-likelihood and log prior together, which are bounded: no component collapses.
        ``log_likelihood`` stays that of the samples alone, ``log_prior`` is beside it. "conjugate"
        says little, in the units of the samples.
      floor: no variance in any direction falls below this fraction of the data's; None for none.
        What ends resting on it is ``DEGENERATE``. For models whose covariances are all alike or
        all free: full, tied, diag, EEI, spherical, EII.
      noise: None, "box", or a volume: a uniform component beside the mixture, over the samples'
        bounding box or over that volume, for samples that belong nowhere (``jgmm.mixture.noise``).
        It is in ``result.noise``, and counts one parameter more.
      race: steps after which only the quarter of the starts that promises most goes on, for four
        times as many, and so on until eight run to their ends; the others end as ``OUTRUN``. Zero,
        the default, runs every start to its end. Several times faster with many restarts; may miss
        an optimum that few starts lead to, the less the longer the steps (``jgmm.fitting.racing``).
      accelerate: "anderson" or "squarem" extrapolate EM's steps, which saves most of them where
        components overlap (``jgmm.em.acceleration``); None, the default, is EM as it is.
        ``n_steps`` and ``max_steps`` then count passes over the samples.
      progress: called on the host with a ``Progress`` every few steps.
      mesh: of devices that share the samples, and the restarts, see ``jgmm.distributed.fit.fit``;
        nothing is reported on the way then.

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
        from jgmm.distributed.fit import fit_on  # it stands on this module

        return fit_on(key, x, n_components, options, mesh, sample_weight)
    samples = make_samples(x, sample_weight, labels)
    return raise_if_failed(
        fit_unchecked(key, samples, n_components, options, noise=noise, progress=progress)
    )
