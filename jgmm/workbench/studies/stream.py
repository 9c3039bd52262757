"""The built-in study "stream": fit one mixture to samples that need not fit into memory.

The files of `[data]` are read block by block, once for each EM step. Several processes can share
the work: each reads a part of the rows. The table `[fit]` says what is fitted, with one number of
components and one covariance model. A checkpoint in the output folder lets the same command carry
on after it was interrupted.
"""

import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from jgmm._core.errors import UserError
from jgmm.streaming.prefetch import Timings
from jgmm.workbench.config.models import Fit, Strict
from jgmm.workbench.readers.dialect import Overrides
from jgmm.workbench.readers.streams import FileSource
from jgmm.workbench.runs.checkpoints import DEFAULT_MINUTES, Checkpoint
from jgmm.workbench.studies.context import StudyContext

if TYPE_CHECKING:
    from jgmm.fitting.results import FitResult
    from jgmm.streaming.reader import PassProgress, ProcessGroup

READS_DATA = True
SHARES_WORK = True

Positive = Annotated[int, Field(ge=1, lt=2**31)]


class Online(Strict):
    """Online EM: a step for every batch, in one pass over the samples or a few."""

    batch: Positive = 4096
    """Samples of a step."""
    n_passes: Positive = 1
    """Passes over the samples, which must be in random order."""
    alpha: Annotated[float, Field(gt=0.5, le=1)] = 0.6
    """Exponent by which the step size decreases."""
    min_step: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Smallest step size; above zero, old batches are forgotten."""
    full_steps: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """EM steps over all samples at the end; each takes one pass."""


class Settings(Strict):
    """How the samples are read, and how often a checkpoint is written."""

    online: Online | None = None
    """Online EM, which takes no checkpoints; default: EM, with one pass over the samples a step."""
    subsample: Positive = 1 << 15
    """Rows of the random subsample on which the starts are computed and compared."""
    coreset: bool = False
    """Draw a coreset: likelier rows far from the mean, with weights that correct for it."""
    skip_bad: bool = False
    """Leave out rows that cannot be used, and count them; otherwise they are errors."""
    block_rows: Positive | None = None
    """Rows of a block; default: 16 to 32 MB of rows, fewer where there are few rows."""
    checkpoint_minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] = DEFAULT_MINUTES
    """Minutes between two checkpoints."""
    checkpoint_steps: Positive | None = None
    """Write a checkpoint also after this number of steps."""


def run(study: StudyContext) -> None:
    """Fit the mixture, by default with checkpoints, and record parameters and speed."""
    from jgmm.streaming import reader

    if study.settings.online is not None:
        _run_online(study)
        return
    group = study.group or reader.SingleProcess()
    source = _source(study, group.rank_and_size)
    checkpointer = _checkpoint(study, source, group.rank_and_size)
    clock = Clock()
    result = _fit(study, source, checkpointer, clock, group)
    _headlines(study, source, result, clock, group)
    if checkpointer.resumed is not None:
        study.note(f"Carried on from a checkpoint of step {checkpointer.resumed}.")
    group.all_gather(result.log_likelihood)  # wait until every process has ended its fit
    if not _interrupted(result) and group.rank_and_size[0] == 0:
        checkpointer.remove()


def _fit(
    study: StudyContext,
    source: FileSource,
    checkpointer: Checkpoint,
    clock: "Clock",
    group: "ProcessGroup",
) -> "FitResult":
    """Fit by EM, one pass over the samples a step."""
    from jgmm.streaming.fit import ACCEPTED, fit

    settings, max_steps = study.settings, study.config.fit.max_steps
    with progress_bar(source, study.show_progress, max_steps) as show:
        return fit(
            study.key,
            source,
            subsample=settings.subsample,
            coreset=settings.coreset,
            block_rows=settings.block_rows,
            progress=call_all(show, clock),
            checkpointer=checkpointer,
            group=group,
            **_options(study.config.fit, *ACCEPTED.refused),
        )


def _run_online(study: StudyContext) -> None:
    """Fit by online EM, and record the parameters."""
    from jgmm.streaming import online, reader

    settings = study.settings
    for name in ("coreset", "block_rows", "checkpoint_steps", "checkpoint_minutes"):
        if getattr(settings, name) != Settings.model_fields[name].default:
            raise UserError(f'"settings.{name}" does not go with settings.online; leave it out')
    if study.group is not None:
        raise UserError("online EM takes one process: leave --processes or settings.online out")
    group = reader.SingleProcess()
    source = _source(study, group.rank_and_size)
    result = online.fit(
        study.key,
        source,
        subsample=settings.subsample,
        **settings.online.model_dump(),
        **_options(study.config.fit, *online.ACCEPTED.refused),
    )
    _headlines(study, source, result, Clock(), group)


def _options(fit: Fit, *refused: str) -> dict[str, Any]:
    """Return the keywords that `[fit]` stands for, and refuse options that the fit does not take.

    Args:
      fit: the table `[fit]`.
      refused: names of more options that it does not take.
    """
    for name in ("noise", "criterion", "n_folds", *refused):
        if getattr(fit, name) != getattr(Fit(), name):
            raise UserError(f'"fit.{name}": the study "stream" does not take it; leave it out')
    return {
        "n_components": _only("n_components", fit.n_components),
        "covariance": _only("covariance", fit.covariance),
        **fit.options(*refused),
    }


def _only(name: str, values: list[Any]) -> Any:
    """Return the only entry of a list of the table `[fit]`."""
    if len(values) != 1 or values == ["all"]:
        raise UserError(
            f'"fit.{name}": the study "stream" fits one mixture: give one; found {values}'
        )
    return values[0]


def _source(study: StudyContext, rank_and_size: tuple[int, int]) -> FileSource:
    data = study.config.data
    if data is not None and data.id is not None:
        raise UserError('"data.id": the study "stream" writes no assignments; leave it out')
    if data is None or data.label is not None or data.known is not None:
        raise UserError(
            'the study "stream" needs a table [data] with the source of the samples, without label '
            "and known"
        )
    given = Overrides(data.separator, data.decimal, tuple(data.na or ()), data.header)
    return FileSource(
        data.source,
        data.columns,
        data.weight,
        skip_bad=study.settings.skip_bad,
        block_rows=study.settings.block_rows,
        rank_and_size=rank_and_size,
        overrides=given,
    )


def _checkpoint(
    study: StudyContext, source: FileSource, rank_and_size: tuple[int, int]
) -> Checkpoint:
    """Return the checkpoints in the output folder, for this config and these data only."""
    config = study.config.model_dump(mode="json", exclude={"output"})
    config["settings"] = {
        key: value for key, value in config["settings"].items() if "checkpoint" not in key
    }
    identity = {"config": config, "columns": source.columns, "rows": source.n_total}
    return Checkpoint(
        pathlib.Path(os.path.expanduser(study.config.output)) / f"{study.config.name}.checkpoint",
        identity,
        minutes=study.settings.checkpoint_minutes,
        steps=study.settings.checkpoint_steps,
        process=rank_and_size,
    )


def _interrupted(result: "FitResult") -> bool:
    from jgmm._core.status import Status

    return Status(int(result.status)) is Status.INTERRUPTED


class Clock:
    """Record the rows and the timings of every pass over the data.

    Attributes:
      rows: the rows read in each pass, by the number of its step; -1 for the passes before the
        first step.
      timings: the timings of each pass.
    """

    def __init__(self) -> None:
        """Start with no passes."""
        self.rows: dict[int, int] = {}
        self.timings: dict[int, Timings] = {}

    def __call__(self, pass_progress: "PassProgress") -> None:
        """Record the progress of a pass; a later call for the same pass replaces it."""
        self.rows[pass_progress.step] = pass_progress.n_rows
        self.timings[pass_progress.step] = pass_progress.timings

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each pass."""
        return [
            {
                "pass": "first pass" if step < 0 else step,
                "rows": self.rows[step],
                "seconds": timings.total,
                "reading": timings.reading,
                "computing": timings.computing,
                "waiting": timings.waiting,
                "rows_per_second": self.rows[step] / max(timings.total, 1e-9),
            }
            for step, timings in sorted(self.timings.items())
        ]


def call_all(*callbacks: Callable[["PassProgress"], None]) -> Callable[["PassProgress"], None]:
    """Return a callback that calls several."""

    def call(pass_progress: "PassProgress") -> None:
        for callback in callbacks:
            callback(pass_progress)

    return call


@contextmanager
def progress_bar(
    source: FileSource, shown: bool, max_steps: int
) -> Iterator[Callable[["PassProgress"], None]]:
    """Show a progress bar for each pass, and yield the callback that updates it.

    Args:
      source: the files that are read.
      shown: whether anything is shown.
      max_steps: the largest number of EM steps.
    """
    import tqdm.auto as bars

    make: Any = bars.tqdm  # its annotations do not describe its arguments
    options = {"unit": " rows", "unit_scale": True, "leave": False, "file": sys.stderr}
    with make(total=source.n_rows, disable=not shown, **options) as line:
        last = [-1, 0]

        def show(pass_progress: "PassProgress") -> None:
            if pass_progress.step != last[0] or pass_progress.n_rows < last[1]:
                line.reset()
                last[:] = [pass_progress.step, 0]
            name = (
                "first pass"
                if pass_progress.step < 0
                else f"step {pass_progress.step} of at most {max_steps}"
            )
            line.set_description(name, refresh=False)
            if pass_progress.step > 0:
                line.set_postfix_str(
                    f"log-likelihood {pass_progress.log_likelihood:.9g}", refresh=False
                )
            line.update(pass_progress.n_rows - last[1])
            last[1] = pass_progress.n_rows

        yield show


def _headlines(
    study: StudyContext,
    source: FileSource,
    result: "FitResult",
    clock: Clock,
    group: "ProcessGroup",
) -> None:
    from jgmm._core.status import Status, describe
    from jgmm.distributed.mesh import bytes_per_step

    mixture = result.mixture
    skipped = sum(int(n) for n in group.all_gather(_count(source.n_skipped)))
    study.metric("rows", source.n_total)
    study.metric("rows skipped", skipped)
    study.metric("log_likelihood", result.log_likelihood)
    if study.config.fit.prior != "none":
        study.metric("log_prior", result.log_prior)
    study.metric("status", Status(int(result.status)).name.lower())
    study.metric("steps", int(result.n_steps))
    study.metric("processes", group.rank_and_size[1])
    itemsize = mixture.means.dtype.itemsize
    travels = bytes_per_step(mixture.n_components, mixture.n_features, mixture.covariance, itemsize)
    # A process sends its statistics, and their accumulated rounding errors.
    study.metric("bytes sent a step", 2 * travels if group.rank_and_size[1] > 1 else 0)
    # The passes before the first step and the pass of step 0 also compile.
    steady = [row for row in clock.table() if row["pass"] not in ("first pass", 0)]
    if steady:
        best = max(steady, key=lambda row: row["rows_per_second"])
        study.metric("rows a second, this process", best["rows_per_second"])
    if result.status != Status.CONVERGED:
        study.note(describe(result.status))
    caption = (
        "Seconds of each pass of the first process. Reading runs at the same time as computing, "
        "so a pass takes computing and waiting."
    )
    if clock.table():
        study.table("passes", clock.table(), caption)
    if source.read_as:
        study.note(f"Read as: {source.read_as}.")
    study.mixture("mixture", mixture, source.columns)


def _count(n: int) -> Any:
    import numpy as np

    return np.asarray(n)
