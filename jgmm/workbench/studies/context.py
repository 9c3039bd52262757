"""What a study is given: its settings and data, and the places to put what it finds."""

import contextlib
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jgmm.workbench.config.models import Config
from jgmm.workbench.runs import memory, storage
from jgmm.workbench.system.files import as_user_error, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jgmm.fitting.restarts import Progress
    from jgmm.fitting.results import FitResult
    from jgmm.mixture.mixture import Mixture
    from jgmm.streaming.reader import ProcessGroup
    from jgmm.workbench.readers.datasets import Dataset

MAX_TABLE_FEATURES = 32
"""A parameter table of more features is only in the parameter file, not in the report."""


@dataclass(eq=False)
class StudyContext:
    """What a study is given: its settings and data, and the places to put what it finds.

    Attributes:
      config: the checked config.
      settings: the study's own `Settings`.
      key: JAX key made from the config's seed.
      data: the data set, or None for a study that makes its own.
      path: folder under construction; every file a study leaves belongs in it.
      show_progress: whether `progress` draws anything.
      team: the processes that share the work, if there are several.
      metrics, notes, tables, figures, mixtures: what has been found so far.
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
        """Give a headline number, or a word: metrics.json, the report's top, the terminal."""
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
        """Write tables/NAME.csv and, unless show is false, put it in the report.

        Each row is a dictionary from column to value.
        """
        plain = [storage.plain(row) for row in rows]
        storage.write_csv(self._place("tables", name, ".csv"), plain)
        if show:
            self.tables.append(storage.Table(name, caption, plain))

    def figure(self, name: str, figure: "Figure", caption: str = "") -> None:
        """Write a matplotlib figure as plots/NAME.png and show it in the report."""
        from jgmm import plot

        content = plot.png(figure)
        if "matplotlib.pyplot" in sys.modules:  # pyplot holds on to the figures it made
            sys.modules["matplotlib.pyplot"].close(figure)
        write_bytes(self._place("plots", name, ".png"), content)
        self.figures.append(storage.Figure(name, caption, content))

    def mixture(self, name: str, mixture: "Mixture", columns: Sequence[str] | None = None) -> None:
        """Write parameters as NAME.safetensors and show them in the report.

        Args:
          name: of the file.
          mixture: one mixture, without a restart axis.
          columns: names of the D features; default: those of the data, or x0, x1, …
        """
        names = list(columns) if columns is not None else self._column_names(mixture.n_features)
        storage.save_mixture(self._place("", name, ".safetensors"), mixture, names)
        if mixture.n_features > MAX_TABLE_FEATURES:
            self.note(f"The parameters of {name} are in {name}.safetensors.")
            return
        weights, means, covariances = (
            storage.plain(value) for value in (mixture.weights, mixture.means, mixture.covariances)
        )
        self.mixtures.append(storage.MixtureTable(name, names, weights, means, covariances))

    def restarts(self, result: "FitResult", name: str = "restarts") -> None:
        """Write how each restart of a fit ended as NAME.csv."""
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
          total: steps at most, usually `max_steps`; the time left is for that many.
          description: what is being done.

        Yields:
          A callable for `jgmm.fit(progress=…)`. Without a terminal nothing is shown.
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

    def foresee(self, problem: memory.Problem, table: str = "fit") -> None:
        """Refuse fits for which there is not enough memory; tell if they need much of it.

        Args:
          problem: what is to be fitted.
          table: of the config in which its settings are, for proposals.

        Raises:
          UserError: it does not fit; the text says what would.
        """
        told = memory.check_memory(problem, table)
        if told:
            print(f"jgmm: {told}", file=sys.stderr)

    def _column_names(self, n_features: int) -> list[str]:
        if self.data is not None and len(self.data.columns) == n_features:
            return list(self.data.columns)
        return [f"x{i}" for i in range(n_features)]

    def _place(self, folder: str, name: str, suffix: str) -> pathlib.Path:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"{name!r} cannot name a file: use letters, digits, '_', '-', '.'")
        path = self.path / folder / (name + suffix)
        if path.exists():
            raise ValueError(f"{path.name} was written already; give each result its own name")
        with as_user_error(path):
            path.parent.mkdir(exist_ok=True)
        return path
