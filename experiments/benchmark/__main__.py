"""Speed of jgmm: against other libraries, against the machine, and as problems grow.

    ./dev python -m experiments.benchmark

prints tables and leaves `benchmark.json` and `benchmark.png` in `runs/benchmark`. All contestants
take turns in one run, so read ratios, not seconds. Expected time: half an hour on two cores.
Expected numbers: at least the targets printed next to the ratios.
"""

from __future__ import annotations

import argparse
import pathlib
import platform
from collections.abc import Callable
from typing import Any

import jax

from experiments.benchmark import chart, sections
from jgmm._core import files
from jgmm.workbench.runs import storage

SECTIONS: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "steps": sections.steps,
    "restarts": sections.restarts,
    "racing": sections.racing,
    "memory": sections.memory,
    "growth": sections.growth,
    "first_result": sections.first_result,
}


def main() -> None:
    """Run the sections asked for, print each as a table, and write all."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmark")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--repeats", type=int, default=5, help="turns of every contestant")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/benchmark"))
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "machine": {
            "device": jax.devices()[0].device_kind,
            "processor": platform.processor() or platform.machine(),
            "jax": jax.__version__,
            "python": platform.python_version(),
        }
    }
    for name in asked.only:
        rows = SECTIONS[name](asked.repeats)
        found[name] = rows
        print(f"\n{name}\n{chart.as_table(rows)}", flush=True)
    storage.write_json(asked.output / "benchmark.json", found)
    files.write_bytes(asked.output / "benchmark.png", chart.draw(found))
    print(f"\n{asked.output / 'benchmark.json'}")


if __name__ == "__main__":
    main()
