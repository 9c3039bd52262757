"""Mixtures of samples that do not fit into memory: EM whose E-step is a pass over blocks.

Statistics add up, so a pass adds up those of its blocks, and the M-step and all that decides how a
fit ends are those of samples in memory (``Method.advance``). Starts are fitted to a subsample; the
best of them is refined on the whole.

Everything that a pass needs is a ``Stage``, down to the block it has come to: whoever keeps one can
go on from it, and ends where the run that was not interrupted ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jgmm import lanes, restarts, survey
from jgmm.acceleration import accelerated
from jgmm.blocks import Block, Pace, ahead, as_source, look, rows_for, shaped
from jgmm.covariance import model
from jgmm.em import EM, make_control
from jgmm.framing import to_frame
from jgmm.lanes import Additive, Restarts
from jgmm.mixture import Mixture, check_columns
from jgmm.natural import Digits
from jgmm.precision import jit
from jgmm.results import FitResult, finish
from jgmm.samples import Census, Leaf, Samples, check_key, identity_frame, make_samples
from jgmm.statistics import Statistics
from jgmm.status import DataError, Status, check

SUBSAMPLE = 1 << 15  # rows that starts are fitted to
_CORESET = 1  # folded into the key


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums:
    """Statistics of the blocks seen in a pass, what rounding took from them, and their digits."""

    total: Statistics
    lost: Statistics
    digits: Digits


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stage:
    """A fit on its way.

    Attributes:
      lanes: W runs side by side, leading axis.
      reached: the mixtures whose log-likelihood ``lanes`` hold.
      history: log-likelihood before each step, (W, max_steps + 1).
      census: the frame and the total weight.
      sums: of the pass that is under way.
      n_blocks: how many of its blocks are in them.
    """

    lanes: Any
    reached: Mixture
    history: Leaf
    census: Census
    sums: Sums
    n_blocks: Leaf


class Tick(NamedTuple):
    """What a fit tells its caller after each block.

    Attributes:
      step: passes completed; -1 while the samples are surveyed.
      max_steps: passes at most.
      n_rows: rows seen in this pass.
      log_likelihood: after the last pass.
      pace: seconds of this pass so far.
    """

    step: int
    max_steps: int
    n_rows: int
    log_likelihood: float
    pace: Pace


@runtime_checkable
class Keeper(Protocol):
    """Who keeps stages for later."""

    def restore(self, like: Stage) -> Stage | None:
        """A stage kept before, in the shapes of ``like``, or None to begin anew."""

    def save(self, stage: Stage, now: bool = False) -> None:
        """Called after each block: keep the stage if it is time to, or in any case."""


@runtime_checkable
class Team(Protocol):
    """Processes that each read a share of the samples."""

    @property
    def share(self) -> tuple[int, int]:
        """Which of how many processes this is."""

    def gather(self, mine: Any) -> list[Any]:
        """A pytree of arrays on the host, from every process in their order."""

    def add(self, mine: Statistics) -> Statistics:
        """The sum of the statistics of all processes; all get the same."""


class Alone:
    """A team of one."""

    share = (0, 1)

    def gather(self, mine: Any) -> list[Any]:
        """Its own."""
        return [mine]

    def add(self, mine: Statistics) -> Statistics:
        """Its own."""
        return mine


@dataclass(frozen=True)
class Reading:
    """How a source is read: in which shape, and who else reads.

    Attributes:
      source: yields blocks, anew each time it is iterated.
      rows: in a block of the engine.
      n_features, dtype: of the samples.
      team: who reads the rest.
      progress: called after each block.
    """

    source: Iterable[Any]
    rows: int
    n_features: int
    dtype: np.dtype
    team: Team = field(default_factory=Alone)
    progress: Callable[[Tick], None] | None = None

    @property
    def first_row(self) -> int:
        """Number of the source's first row among those of all processes."""
        return int(getattr(self.source, "first_row", 0))

    def blocks(self, pace: Pace) -> Iterable[Block]:
        """One pass, read ahead."""
        return ahead(shaped(self.source, self.rows, self.n_features, self.dtype), pace)


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
      covariance, init, tol, rtol, max_steps, ridge, equal_weights, accelerate: as for ``jgmm.fit``.
        A ``Mixture`` given as ``init`` starts the fit to all samples, with a leading axis of R as
        many as R runs, which share the reading; any other start is made of the subsample.
      n_restarts: starts fitted to the subsample, of which the best is refined.
      sample_weight: where the source is an array, (N,).
      subsample: rows starts are made of and fitted to.
      coreset: draw those rows with chances that rise with the distance from the mean, and weigh
        them for it: small clusters far out are then not missed. Takes a pass more.
      block_rows: rows in the engine at once; by default about 32 MB of them.
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

    Two blocks and one more are in memory, 32 MB each, whatever the source holds.

    >>> import jax, jgmm
    >>> def blocks():
    ...     for start in (0.0, 1.0, 2.0):
    ...         yield np.linspace(start, start + 0.5, 100, dtype=np.float32)[:, None]
    >>> result = jgmm.streaming.fit(jax.random.key(0), blocks, 3, covariance="tied", n_restarts=2)
    >>> np.sort(result.mixture.means[:, 0]).round(2).tolist()
    [0.25, 1.25, 2.25]
    """
    check_key(key)
    team = team or Alone()
    source = as_source(source, sample_weight)
    reading = open_source(source, block_rows, team, progress)
    method = accelerated(EM(max_steps, equal_weights), accelerate)
    control = make_control(reading.dtype, tol, rtol, ridge)
    template = _template(method, init, n_components, covariance, reading)
    stage = None if keeper is None else _restored(keeper, template, team)
    if stage is None:
        options = {
            "covariance": covariance,
            "n_restarts": n_restarts,
            "tol": tol,
            "rtol": rtol,
            "max_steps": max_steps,
            "ridge": ridge,
            "equal_weights": equal_weights,
            "accelerate": accelerate,
        }
        census, starts = _start(key, reading, n_components, init, subsample, coreset, options)
        stage = _begin(method, starts, census, template)
    return check(run(method, stage, control, reading, keeper))


def _restored(keeper: Keeper, template: Stage, team: Team) -> Stage | None:
    """The furthest stage that any process has kept.

    What it has added up of a pass a process keeps if it had come as far; the others begin the pass
    anew.
    """
    mine = keeper.restore(template)
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    kept = jax.device_get(blank if mine is None else mine)
    steps = np.asarray(-1 if mine is None else kept.lanes.n_steps.sum())
    every = team.gather((steps, replace(kept, sums=blank.sums, n_blocks=blank.n_blocks)))
    furthest, stage = max(every, key=lambda pair: int(pair[0]))
    if furthest < 0:
        return None
    if steps == furthest:
        stage = kept
    return jax.tree.map(jnp.asarray, stage)


def open_source(
    source: Iterable[Any],
    block_rows: int | None,
    team: Team,
    progress: Callable[[Tick], None] | None = None,
) -> Reading:
    """How the source is to be read; processes whose share is empty learn it from the others."""
    here = look(source)
    mine = np.asarray([0, 0] if here is None else [here[0], here[1].itemsize])
    every = np.stack(team.gather(mine))
    n_features, itemsize = (int(n) for n in every.max(axis=0))
    if not n_features:
        raise DataError("the source yields no samples.")
    if not np.isin(every[:, 0], (0, n_features)).all():
        raise DataError(f"shares of the samples have {every[:, 0].tolist()} columns.")
    dtype = np.dtype(f"f{itemsize}")
    rows = block_rows or rows_for(n_features, dtype)
    if rows < 1:
        raise DataError(f"block_rows must be at least one; it is {rows}.")
    return Reading(source, rows, n_features, dtype, team, progress)


def _start(
    key: Array,
    reading: Reading,
    n_components: int,
    init: Any,
    subsample: int,
    coreset: bool,
    options: dict[str, Any],
) -> tuple[Census, Mixture]:
    """The census of all samples, and the starts of the runs on them, in its frame."""
    entry = model(options["covariance"])
    found = survey_all(key, reading, subsample)
    census = found.census(entry.per_column, entry.affine, reading.dtype)
    if isinstance(init, Mixture):
        return census, _given(init, census)
    drawn = found.drawn
    if coreset and found.n_rows > subsample:
        drawn = _coreset(key, reading, found, entry.per_column, subsample)
    samples = make_samples(drawn.x, drawn.weights)
    best = check(restarts.fit_unchecked(key, samples, n_components, init=init, **options))
    return census, _all_to_frame(jax.tree.map(lambda leaf: leaf[None], best.mixture), census.frame)


_all_to_frame = jit(jax.vmap(to_frame, in_axes=(0, None)))


def _given(init: Mixture, census: Census) -> Mixture:
    """Mixtures given as starts, leading axis R, in the frame."""
    dtype = census.frame.shift.dtype
    check_columns(init, len(census.frame.shift))
    given = init if init.means.ndim == 3 else jax.tree.map(lambda leaf: leaf[None], init)
    given = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), given)
    return _all_to_frame(given, census.frame)


def given_or_made(
    key: Array,
    drawn: survey.Drawn,
    n_components: int,
    covariance: str,
    init: Any,
    n_restarts: int,
    census: Census,
) -> Mixture:
    """Starts in the frame, leading axis R: mixtures given, or made of the rows drawn.

    Raises:
      DataError: starts that do not fit the problem, or labels, which all samples would need.
    """
    if isinstance(init, Mixture):
        starts = _given(init, census)
        fitting = (n_restarts, n_components, covariance)
        if (len(starts.means), starts.n_components, starts.covariance) != fitting:
            raise DataError(
                f"init holds {len(starts.means)} start(s) of {starts.n_components} components, "
                f"{starts.covariance}; the fit takes {n_restarts} of {n_components}, {covariance}."
            )
        return starts
    if not isinstance(init, str):
        raise DataError("with a mesh, init is a name or a Mixture; labels: fit without a mesh.")
    made = restarts.starts(
        key,
        make_samples(drawn.x, drawn.weights),
        n_components,
        covariance=covariance,
        init=init,
        n_restarts=n_restarts,
    )
    return _all_to_frame(made, census.frame)


def survey_all(key: Array, reading: Reading, most: int) -> survey.Survey:
    """Survey the samples of all processes, and draw some.

    Raises:
      DataError: bad samples, none that counts, or none to be drawn.
    """
    if most < 1:
        raise DataError(f"subsample must be at least one row; it is {most}.")
    pace = Pace()
    d, dtype = reading.n_features, reading.dtype
    blocks = _reported(reading, pace, -1, 0, float("nan"))
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
    blocks = _reported(reading, pace, -1, 0, float("nan"))
    total = float(found.moments.total)
    salted = jax.random.fold_in(key, _CORESET)
    mine = survey.coreset(salted, blocks, reading.first_row, most, frame, total)
    room = survey.coreset_room(most)
    whole = survey.drawn_together(reading.team.gather(survey.filled(mine, room)))
    return survey.filled(whole.lowest(room), room)


def _reported(
    reading: Reading, pace: Pace, step: int, max_steps: int, log_likelihood: float
) -> Iterable[Block]:
    """The blocks of a pass that has no sums; what is done between them counts as computing."""
    n_rows = 0
    for block in reading.blocks(pace):
        with pace.busy():
            yield block
        n_rows += block.n_rows
        if reading.progress is not None:
            reading.progress(Tick(step, max_steps, n_rows, log_likelihood, pace))


def _template(
    method: Additive, init: Any, n_components: int, covariance: str, reading: Reading
) -> Stage:
    """A stage of the right shapes, whatever its numbers."""
    d, dtype, entry = reading.n_features, reading.dtype, model(covariance)
    width = len(init.means) if isinstance(init, Mixture) and init.means.ndim == 3 else 1
    shared = 1 if entry.shared else n_components

    def blank() -> Stage:
        unit = entry.storage.identity(d, dtype)
        one = Mixture(
            jnp.full(n_components, -jnp.log(n_components), dtype),
            jnp.zeros((n_components, d), dtype),
            jnp.broadcast_to(unit, (shared, *unit.shape[1:])),
            entry.name,
        )
        starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * width), one)
        frame = identity_frame(d, dtype)
        if entry.affine:
            frame = survey.square(frame)
        census = Census(frame, jnp.zeros((), dtype))
        return _blank(method, starts, census)

    return jax.eval_shape(blank)


def _blank(method: Additive, starts: Mixture, census: Census) -> Stage:
    """A stage before its first pass."""
    begun = jax.vmap(method.begin)(starts)
    width, dtype = len(starts.means), starts.means.dtype
    x = jnp.zeros((1, starts.means.shape[2]), dtype)
    sums = _no_sums(method, begun, Samples(x, jnp.zeros(1, dtype), census.frame))
    history = jnp.full((width, method.max_steps + 1), jnp.nan, dtype)
    stage = Stage(begun, begun.mixture, history, census, sums, jnp.asarray(0))
    return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), stage)  # strongly typed


def _no_sums(method: Additive, begun: Any, samples: Samples) -> Sums:
    shapes = jax.eval_shape(method.expect, begun, samples)
    zero, digits = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return Sums(zero, zero, digits)


def _begin(method: Additive, starts: Mixture, census: Census, like: Stage) -> Stage:
    wanted, given = like.lanes.mixture.scale.shape, starts.scale.shape
    if wanted != given or starts.covariance != like.reached.covariance:
        raise DataError(
            f"init holds {starts.covariance} mixtures with scale {given}; the fit is of "
            f"{like.reached.covariance} ones with {wanted}."
        )
    return _first_stage(method, starts, census)


_first_stage = partial(jit, static_argnums=0)(_blank)


def run(
    method: Additive, stage: Stage, control: Any, reading: Reading, keeper: Keeper | None = None
) -> FitResult:
    """Take passes over the samples until every run has ended; what follows the start in ``fit``.

    Ctrl-C ends the runs where they are.
    """
    try:
        for stage in stages(method, stage, control, reading):  # noqa: B020 - each follows the last
            if keeper is not None:
                keeper.save(stage)
    except BaseException as error:
        if keeper is not None:
            keeper.save(stage, True)
        known = bool(jnp.isfinite(stage.lanes.log_likelihood).any())
        if not isinstance(error, KeyboardInterrupt) or not known:
            raise
        stage = _interrupted(stage)
    return _finish(stage)


def stages(method: Additive, stage: Stage, control: Any, reading: Reading) -> Iterator[Stage]:
    """The stages that follow one: after each block, and after each step, to the end of all runs."""
    while bool((stage.lanes.status == Status.RUNNING).any()):
        pace, n_rows = Pace(), 0
        step, log_likelihood = int(stage.lanes.n_steps.max()), float(_standing(stage))
        done = int(stage.n_blocks)
        for number, block in enumerate(reading.blocks(pace)):
            n_rows += block.n_rows
            if number < done:  # a run that was interrupted has added it up
                continue
            with pace.busy():
                sums = _add(method, stage.sums, stage.lanes, block, stage.census)
                sums = jax.block_until_ready(sums)
                stage = replace(
                    stage, sums=sums, n_blocks=jnp.asarray(number + 1, stage.n_blocks.dtype)
                )
            yield stage
            if reading.progress is not None:
                reading.progress(Tick(step, method.max_steps, n_rows, log_likelihood, pace))
        whole = reading.team.add(stage.sums.total)
        stage = _advance(method, stage, whole, control)
        yield stage


@partial(jit, static_argnums=0)
def _add(method: Additive, sums: Sums, lanes: Any, block: Block, census: Census) -> Sums:
    """Add a block up, compensated (Kahan 1965)."""
    samples = Samples(block.x, block.weights, census.frame)
    found, digits = method.expect(lanes, samples)
    term = jax.tree.map(jnp.subtract, found, sums.lost)
    total = jax.tree.map(jnp.add, sums.total, term)
    lost = jax.tree.map(lambda new, old, term: (new - old) - term, total, sums.total, term)
    # The centers are the same in all terms, and no sum.
    zero = jnp.zeros_like(found.center)
    return Sums(replace(total, center=found.center), replace(lost, center=zero), digits)


@partial(jit, static_argnums=0)
def _advance(method: Additive, stage: Stage, whole: Statistics, control: Any) -> Stage:
    before = stage.lanes
    after = method.advance(before, whole, stage.sums.digits, stage.census, control)
    rows = jnp.arange(len(before.status))
    running = before.status == Status.RUNNING
    reached = getattr(after, "reached", None)
    if reached is None:
        reached = _where(running, before.mixture, stage.reached)
    zero = jax.tree.map(jnp.zeros_like, stage.sums)
    return Stage(
        after,
        reached,
        stage.history.at[rows, before.n_steps].set(after.log_likelihood),
        stage.census,
        zero,
        jnp.zeros_like(stage.n_blocks),
    )


def _where(which: Array, one: Any, other: Any) -> Any:
    def choose(a: Array, b: Array) -> Array:
        return jnp.where(which.reshape(which.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, one, other)


@jit
def _interrupted(stage: Stage) -> Stage:
    """The same with the runs that had not ended where they are."""
    running = stage.lanes.status == Status.RUNNING
    known = jnp.isfinite(stage.lanes.log_likelihood)
    status = jnp.where(running & known, int(Status.INTERRUPTED), stage.lanes.status)
    mixture = _where(running, stage.reached, stage.lanes.mixture)
    return replace(stage, lanes=replace(stage.lanes, status=status, mixture=mixture))


@jit
def _standing(stage: Stage) -> Array:
    shift = stage.census.total * stage.census.frame.log_volume()
    return stage.lanes.log_likelihood.max() - shift


@jit
def _finish(stage: Stage) -> FitResult:
    runs = stage.lanes
    table = Restarts(runs.log_likelihood, runs.status, runs.n_steps, runs.collapsed, jnp.asarray(0))
    best = lanes.choose(table)
    lane, history = jax.tree.map(lambda leaf: leaf[best], (runs, stage.history))
    several = replace(table, best=best) if len(runs.status) > 1 else None
    return finish(lane.mixture, lane.log_likelihood, lane, history, several, stage.census)
