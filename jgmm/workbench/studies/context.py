"""The context of a study: its settings and data, and methods that record its results."""

import contextlib
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jgmm._core.files import as_user_error, write_bytes
from jgmm.workbench.config.models import Config
from jgmm.workbench.runs import memory, storage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jgmm.fitting.restarts import Progress
    from jgmm.fitting.results import FitResult
    from jgmm.mixture.mixture import Mixture
    from jgmm.streaming.reader import ProcessGroup
    from jgmm.workbench.readers.datasets import Dataset

MAX_TABLE_FEATURES = 32
"""The most features of a parameter table in the report; more are only in the parameter file."""


@dataclass(eq=False)
class StudyContext:
    """The argument of a study's function ``run``: settings, data, and methods that record results.

    Attributes:
      config: the validated config.
      settings: the study's own ``Settings``.
      key: JAX key made from the config's seed.
      data: the data set, or None for a study that makes its own.
      path: the run folder while it is written; every file of the study belongs in it.
      show_progress: whether ``progress`` draws anything.
      group: the processes that share the work, if there are several.
      metrics, notes, tables, figures, mixtures: the results recorded so far.
    """

    config: Config
    settings: Any
    key: Any
    data: "Dataset | None"
    path: pathlib.Path
    show_progress: bool = False
    group: "ProcessGroup | None" = None
    metrics: dict[str, float | int | str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[storage.Table] = field(default_factory=list)
    figures: list[storage.Figure] = field(default_factory=list)
    mixtures: list[storage.MixtureTable] = field(default_factory=list)

    def metric(self, name: str, value: Any) -> None:
        """Record a headline number or text, for metrics.json, the report and the terminal.

        Raises:
          ValueError: the metric was given already.
          TypeError: the value is not one number or text.
        """
        if name in self.metrics:
            raise ValueError(f"the metric {name!r} was given already")
        number = storage.plain(value)
        if not isinstance(number, float | int | str):
            raise TypeError(f"the metric {name!r} must be one number or text, not {number!r}")
        self.metrics[name] = number

    def note(self, text: str) -> None:
        """Add a paragraph to the report."""
        self.notes.append(text)

    def table(
        self, name: str, rows: Iterable[Mapping[str, Any]], caption: str = "", show: bool = True
    ) -> None:
        """Write tables/NAME.csv and show the table in the report.

        Args:
          name: of the file.
          rows: dictionaries from column to value.
          caption: of the table in the report.
          show: false leaves the table out of the report.
        """
        plain = [storage.plain(row) for row in rows]
        storage.write_csv(self._place("tables", name, ".csv"), plain)
        if show:
            self.tables.append(storage.Table(name, caption, plain))

    def figure(self, name: str, figure: "Figure", caption: str = "") -> None:
        """Write a matplotlib figure as plots/NAME.png and show it in the report."""
        from jgmm import plot

        content = plot.png(figure)
        if "matplotlib.pyplot" in sys.modules:  # pyplot keeps figures until they are closed
            sys.modules["matplotlib.pyplot"].close(figure)
        write_bytes(self._place("plots", name, ".png"), content)
        self.figures.append(storage.Figure(name, caption, content))

    def mixture(self, name: str, mixture: "Mixture", columns: Sequence[str] | None = None) -> None:
        """Write the parameters of a mixture as NAME.safetensors and show them in the report.

        Args:
          name: of the file.
          mixture: one mixture, without a restart axis.
          columns: names of the D features; default: those of the data, or x0, x1, …
        """
        from jgmm._saving.save import save

        names = list(columns) if columns is not None else self._column_names(mixture.n_features)
        save(self._place("", name, ".safetensors"), mixture, names)
        if mixture.n_features > MAX_TABLE_FEATURES:
            self.note(f"The parameters of {name} are in {name}.safetensors.")
            return
        weights, means, covariances = (
            storage.plain(value) for value in (mixture.weights, mixture.means, mixture.covariances)
        )
        self.mixtures.append(storage.MixtureTable(name, names, weights, means, covariances))

    def restarts(self, result: "FitResult", name: str = "restarts") -> None:
        """Write NAME.csv: the log-likelihood, status and steps of each restart of a fit."""
        from jgmm._core.status import Status

        ends = result if result.restarts is None else result.restarts
        columns = (ends.log_likelihood, ends.status, ends.n_steps)
        values = (
            column if isinstance(column, list) else [column]
            for column in map(storage.plain, columns)
        )
        rows = [
            {
                "restart": index,
                "log_likelihood": log_likelihood,
                "status": Status(status).name.lower(),
                "n_steps": n_steps,
            }
            for index, (log_likelihood, status, n_steps) in enumerate(zip(*values, strict=True))
        ]
        storage.write_csv(self._place("", name, ".csv"), rows)

    @contextlib.contextmanager
    def progress(self, total: int, description: str) -> Iterator[Callable[["Progress"], None]]:
        """Show a progress bar on the terminal for the fits within the block.

        Args:
          total: the largest number of steps, usually ``max_steps``; the estimate of the time that
            is left assumes all of them.
          description: the text in front of the bar.

        Yields:
          A callable for ``jgmm.fit(progress=…)``. Without a terminal nothing is shown.
        """
        import tqdm.auto as bars

        make: Any = bars.tqdm  # its annotations do not describe its arguments
        options = {"unit": "step", "leave": False, "file": sys.stderr}
        hidden = not self.show_progress
        with make(total=total, desc=description, disable=hidden, **options) as bar:

            def show(progress: "Progress") -> None:
                bar.set_postfix_str(
                    f"log-likelihood {float(progress.log_likelihood):.6g}, "
                    f"{int(progress.n_running)} of {int(progress.n_restarts)} running",
                    refresh=False,
                )
                bar.total = int(progress.max_steps)
                bar.update(int(progress.step) - bar.n)

            yield show

    def check_memory(self, problem: memory.Problem, table: str = "fit") -> None:
        """Refuse fits for which there is not enough memory; print the estimate if it is large.

        Args:
          problem: the size of the fits.
          table: the table of the config that holds their settings, for suggestions.

        Raises:
          UserError: there is not enough memory; the text says which changes would help.
        """
        notice = memory.check_memory(problem, table)
        if notice:
            print(f"jgmm: {notice}", file=sys.stderr)

    def _column_names(self, n_features: int) -> list[str]:
        if self.data is not None and len(self.data.columns) == n_features:
            return list(self.data.columns)
        return [f"x{i}" for i in range(n_features)]

    def _place(self, folder: str, name: str, suffix: str) -> pathlib.Path:
        """Return the path of a new file in the run folder, and make its folder."""
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"{name!r} cannot name a file: use letters, digits, '_', '-', '.'")
        path = self.path / folder / (name + suffix)
        if path.exists():
            raise ValueError(f"{path.name} was written already; give each result its own name")
        with as_user_error(path):
            path.parent.mkdir(exist_ok=True)
        return path
