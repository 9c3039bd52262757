"""Mixtures of samples that do not fit into memory: EM whose E-step is a pass over blocks.

Starts are fitted to a subsample; the best of them is refined on the whole, stage by stage
(``jgmm.stages``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
from jaxtyping import Array, Key

from jgmm import restarts, survey
from jgmm.blocks import Pace, as_source
from jgmm.control import Options
from jgmm.em import method_of
from jgmm.frame import Census
from jgmm.initialize import from_mixture
from jgmm.inputs import check_key
from jgmm.mixture import Mixture
from jgmm.reading import Alone, Reading, Team, Tick, open_source, reported
from jgmm.results import FitResult
from jgmm.samples import make_samples
from jgmm.stages import Keeper, begin, restored, run, template
from jgmm.starts import all_to_frame
from jgmm.status import DataError, check

SUBSAMPLE = 1 << 15  # rows that starts are fitted to
_CORESET = 1  # folded into the key


def fit(
    key: Key[Array, ""],
    source: Any,
    n_components: int,
    *,
    covariance: str = "full",
    n_restarts: int = 16,
    init: Any = "kmeans",
    sample_weight: Any = None,
    subsample: int = SUBSAMPLE,
    coreset: bool = False,
    tol: float | None = None,
    rtol: float | None = None,
    max_steps: int = 1000,
    ridge: Any = 0.0,
    equal_weights: bool = False,
    prior: Any = None,
    floor: Any = None,
    accelerate: str | None = None,
    block_rows: int | None = None,
    progress: Callable[[Tick], None] | None = None,
    keeper: Keeper | None = None,
    team: Team | None = None,
) -> FitResult:
    """Fit a mixture by EM to samples that are read block by block, once a step.

    Args:
      key: typed key; decides about the subsample and the starts.
      source: yields arrays (B, D), or pairs with weights (B,), each time it is iterated; or a
        function that returns such an iterator; or an array (N, D), such as a memory map.
      n_components: K.
      covariance, tol, rtol, max_steps, ridge, equal_weights, prior, floor, accelerate: as for
        ``jgmm.fit``.
      init: as for ``jgmm.fit``; but a ``Mixture`` starts the fit to all samples, with a leading
        axis of R as many as R runs, which share the reading; any other start is made of the
        subsample.
      n_restarts: starts fitted to the subsample, of which the best is refined.
      sample_weight: where the source is an array, (N,).
      subsample: rows starts are made of and fitted to.
      coreset: draw those rows with chances that rise with the distance from the mean, and weigh
        them for it: small clusters far out are then not missed. Takes a pass more.
      block_rows: rows in the engine at once; by default 16 to 32 MB of them.
      progress: called on the host with a ``Tick`` after each block.
      keeper: keeps stages, to go on from after an interruption.
      team: other processes, each with a share of the samples.

    Returns:
      A ``FitResult``, that of ``jgmm.fit`` from the same start but for rounding. ``n_steps`` counts
      steps over all samples. After Ctrl-C its status is ``INTERRUPTED``, and it holds the last
      mixture whose log-likelihood is known.

    Raises:
      DataError: bad samples, a source that cannot be read twice, or bad arguments.
      FitError: no start ended in usable parameters, or a run on the whole collapsed.

    Two blocks and one more are in memory, of up to 32 MB, whatever the source holds.

    >>> import jax, jgmm, numpy as np
    >>> def blocks():
    ...     for start in (0.0, 1.0, 2.0):
    ...         yield np.linspace(start, start + 0.5, 100, dtype=np.float32)[:, None]
    >>> result = jgmm.streaming.fit(
    ...     jax.random.key(0), blocks, 3, covariance="EII", n_restarts=1, init="kmeans++"
    ... )
    >>> np.sort(result.mixture.means[:, 0]).round(2).tolist()
    [0.25, 1.25, 2.25]
    """
    check_key(key)
    team = team or Alone()
    source = as_source(source, sample_weight)
    reading = open_source(source, block_rows, team, progress)
    options = Options(
        covariance=covariance,
        n_restarts=n_restarts,
        init=init,
        tol=tol,
        rtol=rtol,
        max_steps=max_steps,
        ridge=ridge,
        equal_weights=equal_weights,
        prior=prior,
        floor=floor,
        accelerate=accelerate,
    )
    method = method_of(options)
    like = template(method, options, n_components, reading.n_features, reading.dtype)
    stage = None if keeper is None else restored(keeper, like, team)
    if stage is None:
        found = survey_all(key, reading, subsample)
        census = found.census(options.entry.per_column, options.entry.affine, reading.dtype)
        control = options.control(found.whitening(reading.dtype), n_components)
        if isinstance(init, Mixture):
            starts = given(options, n_components, census)
        else:
            drawn = found.drawn
            if coreset and found.n_rows > subsample:
                drawn = _coreset(key, reading, found, options.entry.per_column, subsample)
            # The prior, if it comes from the samples, comes from all of them.
            known = replace(options, prior=control.prior)
            starts = _best_start(key, drawn, n_components, known, census)
        stage = begin(method, starts, census, control)
    return check(run(method, stage, reading, keeper))


def _best_start(
    key: Array, drawn: survey.Drawn, n_components: int, options: Options, census: Census
) -> Mixture:
    """The best fit to the rows drawn, in the frame, leading axis 1."""
    samples = make_samples(drawn.x, drawn.weights)
    best = check(restarts.fit_unchecked(key, samples, n_components, options)).mixture
    return all_to_frame(jax.tree.map(lambda leaf: leaf[None], best), census.frame)


def given(options: Options, n_components: int, census: Census) -> Mixture:
    """The mixtures given as starts, leading axis R, in the frame.

    Raises:
      DataError: they do not fit the problem.
    """
    shift = census.frame.shift
    found = from_mixture(options.init, shift, n_components, options.covariance)
    several = found if found.means.ndim == 3 else jax.tree.map(lambda leaf: leaf[None], found)
    return all_to_frame(several, census.frame)


def survey_all(key: Array, reading: Reading, most: int) -> survey.Survey:
    """Survey the samples of all processes, and draw some.

    Raises:
      DataError: bad samples, none that counts, or none to be drawn.
    """
    if most < 1:
        raise DataError(f"subsample must be at least one row; it is {most}.")
    pace = Pace()
    d, dtype = reading.n_features, reading.dtype
    blocks = reported(reading, pace, -1, 0, float("nan"))
    mine = survey.survey(key, blocks, reading.first_row, most, d, dtype)
    found = survey.together(reading.team.gather(survey.packed(mine, most)), d, dtype)
    if not found.moments.total:
        raise DataError("sample_weight is zero for every sample; at least one must count.")
    return found


def _coreset(
    key: Array, reading: Reading, found: survey.Survey, per_column: bool, most: int
) -> survey.Drawn:
    pace, dtype = Pace(), reading.dtype
    frame = found.census(per_column, False, dtype).frame
    blocks = reported(reading, pace, -1, 0, float("nan"))
    total = float(found.moments.total)
    salted = jax.random.fold_in(key, _CORESET)
    mine = survey.coreset(salted, blocks, reading.first_row, most, frame, total)
    room = survey.coreset_room(most)
    whole = survey.drawn_together(reading.team.gather(survey.filled(mine, room)))
    return survey.filled(whole.lowest(room), room)
