"""The ``jgmm`` command: entry point, and the sub-commands that do not fit anything.

JAX is imported inside the sub-commands that need it, so that ``jgmm --help`` is instant. The
sub-commands that fit are in ``fit_commands``.
"""

import json
import pathlib

from jgmm.workbench.cli import fit_commands, terminal
from jgmm.workbench.cli.app import app, command, print_json
from jgmm.workbench.cli.options import (
    ConfigFiles,
    FirstRun,
    Json,
    Saved,
    SecondRun,
    Study,
    Verbosity,
)
from jgmm.workbench.runs import summary
from jgmm.workbench.system import signals


def main() -> None:
    """Run the command line."""
    with signals.stop_on_signals():
        app()


@command("jgmm datasets", "jgmm datasets --json")
def datasets(as_json: Json = False) -> None:
    """List the built-in data sets."""
    from jgmm.workbench.readers import datasets

    entries = datasets.describe()
    if as_json:
        print_json([vars(entry) for entry in entries])
        return
    table = terminal.table("name", "description")
    for entry in entries:
        names = ", ".join(entry.columns[:7]) + (", …" if len(entry.columns) > 7 else "")
        lines = [
            entry.summary,
            f"{entry.rows} rows; {len(entry.columns)} columns: {names}",
            *([f"labels: {', '.join(entry.labels)}"] if entry.labels else []),
            f"source: {entry.source}",
        ]
        for i, line in enumerate(lines):
            last = i == len(lines) - 1
            table.add_row(entry.name if i == 0 else "", terminal.escaped(line), end_section=last)
    terminal.console().print(table)


@command(
    "jgmm show runs/faithful-20250101-120000",
    "jgmm show runs/faithful-20250101-120000/mixture.safetensors --json",
)
def show(path: Saved, as_json: Json = False) -> None:
    """Show the results of a run, or the parameters of a saved mixture."""
    if as_json:
        print_json(summary.read(path).plain() if path.is_dir() else summary.parameters(path))
    elif path.is_dir():
        fit_commands.report(path, Verbosity(verbose=True))
    else:
        terminal.mixture(path.name, summary.parameters(path))


@command("jgmm compare runs/faithful-20250101-120000 runs/faithful-20250102-093000")
def compare(first: FirstRun, second: SecondRun, as_json: Json = False) -> None:
    """Compare two runs: settings, criteria, parameters and assignments.

    Settings are shown only where they differ. Components are paired so that their means are close.
    The adjusted Rand index measures how far the assignments of the same samples agree.
    """
    from jgmm.workbench.runs import comparison

    found = comparison.compare(*map(summary.read, (first, second)))
    if as_json:
        print_json(found)
    else:
        comparison.show(found, [str(run.name or run) for run in (first, second)])


@command("jgmm schema > schema.json", "jgmm schema configs/*.toml > configs/schema.json")
def schema(files: ConfigFiles = None, study: Study = None) -> None:
    """Print the JSON Schema of config files, for editors that complete and check them.

    The schema contains the settings of the built-in studies and of the studies of the given
    configs. A TOML file names its schema in the first line: "#:schema ./schema.json" (Taplo, Even
    Better TOML).
    """
    from jgmm.workbench.studies import registry

    if study is not None:
        found = registry.find_study(study, [pathlib.Path.cwd()]).Settings.model_json_schema()
    else:
        found = registry.schema(files or [])
    print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
