"""``jgmm.fit``: fit a mixture by EM, in memory or on a mesh of devices."""

from __future__ import annotations

from typing import Any, Unpack

from jaxtyping import Array, Key

from jgmm._core.arguments import key_first
from jgmm._core.compilation import without_debug_nans
from jgmm._core.errors import DataError
from jgmm._data.samples import make_samples
from jgmm.em.options import AcceptedOptions, OptionKeywords, Options
from jgmm.fitting.in_memory import fit_unchecked
from jgmm.fitting.restarts import ProgressCallback
from jgmm.fitting.results import FitResult, raise_if_failed

ACCEPTED = AcceptedOptions()


@key_first
@without_debug_nans
@ACCEPTED.signature
def fit(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    sample_weight: Any = None,
    labels: Any = None,
    noise: Any = None,
    progress: ProgressCallback | None = None,
    mesh: Any = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> FitResult:
    """Fit a mixture of Gaussians by EM from many starts, and keep the best that ended well.

    Args:
      key: typed key; restart r uses ``fold_in(key, r)``, whatever the number of restarts.
      x: samples in rows, (N, D): an array, a list, or a data frame of numbers.
      n_components: K.
      sample_weight: how many times each sample counts, (N,); zero equals a missing row.
      labels: known component of each sample, (N,), whole numbers from 0 to K - 1, and -1 where it
        is not known. The log-likelihood is then that of samples and known labels, Σ log p(x) +
        Σ log p(x, z), and each labelled component starts where its samples are.
      noise: None, "box", or a volume: a uniform component in addition to the mixture, over the
        samples' bounding box or over that volume, for samples that belong to no component
        (``jgmm.mixture.noise``). It is in ``result.noise``, and counts as one more parameter.
      progress: called on the host with a ``Progress`` every few steps.
      mesh: devices that share the samples and the restarts, see ``jgmm.distributed``; ``progress``
        cannot be reported then.
      options: all of the options below in one record, see ``jgmm.Options``.
      **keywords: the fields of ``jgmm.Options``; they replace those of ``options``:

        * covariance: name of the covariance model, see ``jgmm.covariance``.
        * n_restarts: number of starts R, run side by side in one program. None, the default, means
          16, and where ``init`` gives starts as many as it gives.
        * init: "portfolio", the default: all methods in turn, which finds more optima than each
          alone; or the name of one, a key of ``jgmm.initialization.STARTS``; or labels (N,), or a
          ``Mixture`` in the units of x, which with a leading axis of R is R starts.
        * tol: a fit has converged when the mean log-likelihood per sample changes by less, in nats;
          by default 1e-8 in float64 and 1e-6 in float32.
        * rtol: the same, relative to the mean log-likelihood; by default four roundings.
        * max_steps: maximal number of M-steps of a restart.
        * ridge: added to every variance, as a fraction of the data's variance. With zero, the
          default, the log-likelihood never falls; components that collapse are reported.
        * equal_weights: give all components the same weight, which saves K - 1 parameters.
        * prior: None, "conjugate", or a ``jgmm.mixture.Prior``. With a prior, EM maximises
          log-likelihood and log prior together, which are bounded: no component collapses.
          ``log_likelihood`` stays that of the samples alone; ``log_prior`` is another field.
          "conjugate" is a weak prior in the units of the samples.
        * floor: no variance in any direction falls below this fraction of the data's variance; None
          for no floor. A fit that ends at its floor is ``DEGENERATE``. For models whose covariances
          are all alike or all free: full, tied, diag, EEI, spherical, EII.
        * race: number of steps after which only the most promising quarter of the starts goes on,
          for four times as many steps, and so on until eight run to their ends; the others end as
          ``OUTRUN``. Zero, the default, runs every start to its end. A race is several times faster
          with many restarts. It may miss an optimum that few starts lead to; the more steps, the
          less likely (``jgmm.fitting.racing``).
        * accelerate: "anderson" or "squarem" extrapolate EM's steps, which saves most of them where
          components overlap (``jgmm.em.acceleration``); None, the default, is plain EM. With it,
          ``n_steps`` and ``max_steps`` count passes over the samples.

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

    Inside ``jax.shard_map``, where every device fits samples of its own, give ``shard_map`` the
    argument ``check_vma=False``: the loops of a fit begin with constants, and end with values that
    differ between devices.
    """
    options = ACCEPTED.read(options, keywords)
    if mesh is not None:
        alone = {"labels": labels, "noise": noise, "progress": progress}
        given = [name for name, value in alone.items() if value is not None]
        if given:
            raise DataError(f"{', '.join(given)} cannot be had on a mesh: leave out one of both.")
        # Imported here: a fit in memory should not wait for what only a mesh needs.
        from jgmm.distributed.fit import fit as fit_on_mesh

        return fit_on_mesh(
            key, x, n_components, mesh=mesh, sample_weight=sample_weight, options=options
        )
    samples = make_samples(x, sample_weight, labels)
    return raise_if_failed(
        fit_unchecked(key, samples, n_components, options, noise=noise, progress=progress)
    )
