"""The built-in study "stream": one mixture of samples that need not fit into memory.

The files of `[data]` are read block by block, once a step; by several processes, each its share.
What is fitted stands in `[fit]`, with one number of components and one model. A checkpoint beside
the run folders lets the same command carry on after whatever ended it.
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
from jgmm.workbench.readers.streams import FileSource
from jgmm.workbench.runs.checkpoints import EVERY, Checkpoint
from jgmm.workbench.studies.context import StudyContext

if TYPE_CHECKING:
    from jgmm.fitting.results import FitResult
    from jgmm.streaming.reader import PassProgress, ProcessGroup

READS_DATA = True
SHARES_WORK = True

Positive = Annotated[int, Field(ge=1, lt=2**31)]


class Settings(Strict):
    """How the samples are read, and how often the state of the fit is kept."""

    subsample: Positive = 1 << 15
    """Rows that starts are made of and fitted to."""
    coreset: bool = False
    """Draw them with chances that rise with the distance from the mean, and weigh them for it."""
    skip_bad: bool = False
    """Leave rows out that cannot be used, and count them; otherwise they are errors."""
    block_rows: Positive | None = None
    """Rows in the engine at once; default: 16 to 32 MB of them, fewer of few."""
    checkpoint_minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] = EVERY
    """Between two checkpoints."""
    checkpoint_steps: Positive | None = None
    """Steps after which there is one, too."""


def run(run: StudyContext) -> None:
    """Fit, with checkpoints, and say how fast."""
    from jgmm.streaming import reader
    from jgmm.streaming.fit import fit as fit_fit

    group = run.group or reader.SingleProcess()
    source = _source(run, group.rank_and_size)
    checkpointer = _checkpoint(run, source, group.rank_and_size)
    clock = Clock()
    fit, settings = run.config.fit, run.settings
    with bar(source, run.show_progress, fit.max_steps) as show:
        result = fit_fit(
            run.key,
            source,
            _only("n_components", fit.n_components),
            covariance=_only("covariance", fit.covariance),
            subsample=settings.subsample,
            coreset=settings.coreset,
            block_rows=settings.block_rows,
            progress=both(show, clock),
            checkpointer=checkpointer,
            group=group,
            **_options(fit),
        )
    _headlines(run, source, result, clock, group)
    if checkpointer.resumed is not None:
        run.note(f"Carried on from a checkpoint of step {checkpointer.resumed}.")
    group.all_gather(
        result.log_likelihood
    )  # all have read their checkpoints, and need them no more
    if not _interrupted(result) and group.rank_and_size[0] == 0:
        checkpointer.remove()


def _options(fit: Fit) -> dict[str, Any]:
    """What the fit takes of `[fit]`; the rest must be as it is by default."""
    if fit.race != Fit().race:
        raise UserError('"fit.race": the study "stream" does not take it; leave it out')
    return fit.options("n_folds", "race")


def _only(name: str, values: list[Any]) -> Any:
    if len(values) != 1:
        raise UserError(
            f'"fit.{name}": the study "stream" fits one mixture: give one; found {values}'
        )
    return values[0]


def _source(run: StudyContext, share: tuple[int, int]) -> FileSource:
    data = run.config.data
    if data is None or data.label is not None:
        raise UserError(
            'the study "stream" needs a table [data] with the source of the samples, without label'
        )
    return FileSource(
        data.source,
        data.columns,
        data.weight,
        skip_bad=run.settings.skip_bad,
        block_rows=run.settings.block_rows,
        share=share,
    )


def _checkpoint(run: StudyContext, source: FileSource, share: tuple[int, int]) -> Checkpoint:
    """Beside the run folders, and of this config and these data only."""
    config = run.config.model_dump(mode="json", exclude={"output"})
    config["settings"] = {
        key: value for key, value in config["settings"].items() if "checkpoint" not in key
    }
    identity = {"config": config, "columns": source.columns, "rows": source.n_total}
    return Checkpoint(
        pathlib.Path(os.path.expanduser(run.config.output)) / f"{run.config.name}.checkpoint",
        identity,
        minutes=run.settings.checkpoint_minutes,
        steps=run.settings.checkpoint_steps,
        process=share,
    )


def _interrupted(result: "FitResult") -> bool:
    from jgmm._core.status import Status

    return Status(int(result.status)) is Status.INTERRUPTED


class Clock:
    """The pace of every pass, -1 for what came before the first step."""

    def __init__(self) -> None:
        """Nothing has been seen."""
        self.rows: dict[int, int] = {}
        self.paces: dict[int, Timings] = {}

    def __call__(self, pass_progress: "PassProgress") -> None:
        """Note how a pass stands."""
        self.rows[pass_progress.step] = pass_progress.n_rows
        self.paces[pass_progress.step] = pass_progress.timings

    def table(self) -> list[dict[str, Any]]:
        """One row a pass."""
        return [
            {
                "pass": "survey" if step < 0 else step,
                "rows": self.rows[step],
                "seconds": timings.total,
                "reading": timings.reading,
                "computing": timings.computing,
                "waiting": timings.waiting,
                "rows_per_second": self.rows[step] / max(timings.total, 1e-9),
            }
            for step, timings in sorted(self.paces.items())
        ]


def both(*callbacks: Callable[["PassProgress"], None]) -> Callable[["PassProgress"], None]:
    """Tell several."""

    def tell(pass_progress: "PassProgress") -> None:
        for callback in callbacks:
            callback(pass_progress)

    return tell


@contextmanager
def bar(
    source: FileSource, shown: bool, max_steps: int
) -> Iterator[Callable[["PassProgress"], None]]:
    """A progress bar for each pass."""
    import tqdm.auto as bars

    make: Any = bars.tqdm  # its annotations do not describe its arguments
    options = {"unit": " rows", "unit_scale": True, "leave": False, "file": sys.stderr}
    with make(total=source.n_rows, disable=not shown, **options) as line:
        last = [-1, 0]

        def show(pass_progress: "PassProgress") -> None:
            if [pass_progress.step, 0] != [last[0], 0] or pass_progress.n_rows < last[1]:
                line.reset()
                last[:] = [pass_progress.step, 0]
            name = (
                "survey"
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
    run: StudyContext, source: FileSource, result: "FitResult", clock: Clock, group: "ProcessGroup"
) -> None:
    from jgmm._core.status import Status, describe
    from jgmm.distributed.mesh import bytes_per_step

    mixture = result.mixture
    skipped = sum(int(n) for n in group.all_gather(_count(source.n_skipped)))
    run.metric("rows", source.n_total)
    run.metric("rows skipped", skipped)
    run.metric("log_likelihood", result.log_likelihood)
    if run.config.fit.prior != "none":
        run.metric("log_prior", result.log_prior)
    run.metric("status", Status(int(result.status)).name.lower())
    run.metric("steps", int(result.n_steps))
    run.metric("processes", group.rank_and_size[1])
    itemsize = mixture.means.dtype.itemsize
    travels = bytes_per_step(mixture.n_components, mixture.n_features, mixture.covariance, itemsize)
    # A process sends its statistics, and what rounding took from them.
    run.metric("bytes sent a step", 2 * travels if group.rank_and_size[1] > 1 else 0)
    steady = [row for row in clock.table() if row["pass"] not in ("survey", 0)]
    if steady:  # the first pass compiles
        best = max(steady, key=lambda row: row["rows_per_second"])
        run.metric("rows a second, this process", best["rows_per_second"])
    if result.status != Status.CONVERGED:
        run.note(describe(result.status))
    run.table(
        "passes", clock.table(), "Seconds of each pass of the first process; reading is beside."
    )
    run.mixture("mixture", mixture, source.columns)


def _count(n: int) -> Any:
    import numpy as np

    return np.asarray(n)
