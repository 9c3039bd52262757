"""Beyond memory, one device and one process: speed, memory and accuracy.

    ./dev jgmm run configs/scale.toml

draws 100 million samples in 8 columns with the package's own sampler, writes them to the folder of
the run, 3.2 GB each as .npy and as Parquet, and removes them at the end. For 16 components of full
covariance in float32 on two cores it prints

    peak memory of a fit to 3.2 GB                      1.07 GB (.npy), 1.42 GB (Parquet)
    million rows a second                               15.7 (.npy), 15.7 (Parquet)
    2 and 4 processes: relative difference              0, 0
    bytes a process sends a step                        9,480
    one step of EM: nats lost a sample                  0.246
    one pass of online EM: nats lost a sample           0.0024 (batches of 1,000), 0.0008 (10,000)
    start from 4,096 rows: nats lost a sample           0

With `--set settings.n_samples=200000` it takes two minutes. That a run killed at any moment ends at
the same parameters is tested by

    JGMM_KILLS=50 ./dev pytest tests/workbench/test_checkpoints.py
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
from dataclasses import replace
from typing import Annotated, Any, Literal

import jax
import numpy as np
from pydantic import Field

import jgmm
from jgmm._core.errors import UserError
from jgmm._saving.save import read_mixture
from jgmm.distributed.mesh import bytes_per_step
from jgmm.workbench.config.models import Strict
from jgmm.workbench.studies.context import StudyContext

Positive = Annotated[int, Field(ge=1, lt=2**31)]
MANY = 1_000_000  # samples on which shortcuts are compared
BLOCK = 1 << 20  # samples drawn at once, rows of a row group


class Settings(Strict):
    """Sizes of the files and of the fits."""

    n_samples: Positive = 100_000_000
    """Rows of the files."""
    n_features: Positive = 8
    """Columns."""
    n_components: Positive = 16
    """K, of the truth and of the fits."""
    n_steps: Annotated[int, Field(ge=2, lt=1000)] = 3
    """EM steps of every fit. The first pass compiles, and the last uses the difference form, to be
    sure of its digits; the speed is measured on the passes in between."""
    formats: list[Literal["npy", "parquet"]] = Field(default=["npy", "parquet"])
    """Kinds of file."""
    memory_rows: Positive = 4_000_000
    """Rows in memory on which E-steps and simulated devices are timed."""
    processes: list[Positive] = Field(default=[1, 2, 4])
    """Numbers of processes that share the first file."""
    subsamples: list[Positive] = Field(default=[4096, 32768])
    """Numbers of rows that starts are made from."""
    batches: list[Positive] = Field(default=[1000, 10_000])
    """Numbers of samples in a step of online EM."""
    devices: list[Positive] = Field(default=[1, 2, 4, 8])
    """Numbers of simulated devices."""


def run(study: StudyContext) -> None:
    """Make the files, measure, and remove them."""
    settings = study.settings
    place = study.path / "data"
    place.mkdir()
    start = place / "start.safetensors"
    files = {kind: place / f"x.{kind}" for kind in settings.formats}
    try:
        make(study.key, settings, files, start)
        _streams(study, settings, files, start)
        first = next(iter(files.values()))
        _processes(study, settings, first, start)
        _devices(study, settings, first, start)
        _shortcuts(study, settings, start)
    finally:
        for path in (*files.values(), start):
            path.unlink(missing_ok=True)
        place.rmdir()


def truth(key: jax.Array, settings: Settings) -> jgmm.Mixture:
    """Return a mixture whose components overlap, so that EM takes many steps."""
    centers, factors = jax.random.split(key)
    k, d = settings.n_components, settings.n_features
    a = np.eye(d) + 0.3 * np.asarray(jax.random.normal(factors, (k, d, d)))
    means = np.asarray(jax.random.normal(centers, (k, d)))
    mixture = jgmm.make_mixture(np.full(k, 1 / k), means, a @ a.transpose(0, 2, 1), "full")
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), mixture)


def make(
    key: jax.Array, settings: Settings, files: dict[str, pathlib.Path], start: pathlib.Path
) -> None:
    """Draw the samples block by block into all files at once."""
    from jgmm.workbench.readers.tables import need

    arrow, parquet = need("pyarrow", "workbench", "it"), need("pyarrow.parquet", "workbench", "it")

    n, d = settings.n_samples, settings.n_features
    mixture = truth(key, settings)
    # Every fit starts away from the truth, so that it does not converge within the timed steps.
    away = mixture.means + 0.3 * jax.random.normal(key, mixture.means.shape, np.float32)
    jgmm.save(start, replace(mixture, means=away))
    names = [f"x{i}" for i in range(d)]
    schema = arrow.schema([(name, arrow.float32()) for name in names])
    options = {"compression": "none", "use_dictionary": False}
    array = files["npy"].open("wb") if "npy" in files else None
    table = (
        parquet.ParquetWriter(files["parquet"], schema, **options) if "parquet" in files else None
    )
    if array:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n, d)}
        np.lib.format.write_array_header_1_0(array, header)
    for i, first in enumerate(range(0, n, BLOCK)):
        drawn, _ = jgmm.sample(jax.random.fold_in(key, i), mixture, min(BLOCK, n))
        x = np.asarray(drawn)[: n - first]
        if array:
            array.write(np.ascontiguousarray(x).data)
        if table:
            table.write_table(arrow.table([x[:, j] for j in range(d)], schema=schema))
    for writer in (array, table):
        if writer:
            writer.close()


def child(*arguments: Any) -> "subprocess.Popen[str]":
    """Start a measurement in a separate process; ``answer`` waits for it."""
    root = pathlib.Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "experiments._scale_child", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def answer(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait for a measurement and return its results."""
    output, _ = process.communicate()
    if process.returncode:
        raise UserError(f"a measurement ended with status {process.returncode}; see above")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _streams(
    study: StudyContext, settings: Settings, files: dict[str, pathlib.Path], start: pathlib.Path
) -> None:
    rows = []
    for kind, path in files.items():
        found = answer(child("stream", path, start, settings.n_steps, settings.memory_rows))
        memory = float(np.mean(found["in_memory"]))
        between = range(1, settings.n_steps)
        steady = [row for row in found["passes"] if row["pass"] in between]
        speed = float(np.mean([row["rows_per_second"] for row in steady]))
        study.metric(f"{kind}: peak memory, GB", found["peak_gb"])
        study.metric(f"{kind}: million rows a second", speed / 1e6)
        study.metric(f"{kind}: of the engine in memory", speed / memory)
        rows += [{"file": kind, **row} for row in found["passes"]]
        rows += [
            {"file": kind, "pass": "in memory", "rows": settings.memory_rows, "rows_per_second": v}
            for v in found["in_memory"]
        ]
    caption = "Seconds of each pass; reading happens while the process computes or waits."
    study.table("passes", rows, caption)


def _processes(
    study: StudyContext, settings: Settings, path: pathlib.Path, start: pathlib.Path
) -> None:
    rows: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    # The statistics of a process, and their rounding errors.
    travels = 2 * bytes_per_step(settings.n_components, settings.n_features)
    for n in settings.processes:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            place = f"127.0.0.1:{found.getsockname()[1]}"
        members = [
            child("member", path, start, settings.n_steps, place, n, rank) for rank in range(n)
        ]
        answers = [answer(member) for member in members]
        steady = [
            max(each["passes"][step]["seconds"] for each in answers)
            for step in range(2, settings.n_steps + 1)
        ]
        first = first or answers[0]
        apart = max(_apart(first, each) for each in answers)
        speed = settings.n_samples / float(np.mean(steady))
        rows.append(
            {
                "processes": n,
                "rows_each": " ".join(str(each["rows"]) for each in answers),
                "bytes_sent_a_step": travels if n > 1 else 0,
                "rows_per_second": speed,
                "efficiency": speed / (rows[0]["rows_per_second"] * n) if rows else 1.0,
                "relative_difference": apart,
            }
        )
        study.metric(f"{n} processes: relative difference", apart)
    study.metric("bytes a process sends a step", travels)
    study.table("processes", rows, "The same fit by several processes of this machine.")


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Largest relative difference of the means, or of the log-likelihoods."""
    a, b = np.asarray(one["means"]), np.asarray(other["means"])
    ratio = other["log_likelihood"] / one["log_likelihood"] - 1
    return max(float(np.abs(a - b).max() / np.abs(a).max()), abs(ratio))


def _shortcuts(study: StudyContext, settings: Settings, start: pathlib.Path) -> None:
    """Measure what starts from few rows lose, and how much one pass gains."""
    n = min(settings.memory_rows, settings.n_samples, MANY)
    mixture, key = truth(study.key, settings), jax.random.fold_in(study.key, MANY)
    x = np.asarray(jgmm.sample(key, mixture, n)[0])
    options: dict[str, Any] = {"accelerate": "anderson", "n_restarts": 8}

    def refined(**more: Any) -> jgmm.FitResult:
        return jgmm.streaming.fit(key, x, settings.n_components, **options, **more)

    best = refined(init=mixture)
    rows: list[dict[str, Any]] = []

    def enter(name: str, result: jgmm.FitResult) -> None:
        lost = float(best.log_likelihood - result.log_likelihood) / n
        rows.append({"way": name, "nats_lost_a_sample": lost, "steps": int(result.n_steps)})
        study.metric(f"{name}: nats lost a sample", lost)

    for size in settings.subsamples:
        enter(f"start from {size} rows", refined(subsample=size))
        enter(f"start from a coreset of {size}", refined(subsample=size, coreset=True))
    away, _ = read_mixture(start)
    enter("one step of EM", jgmm.fitting.run_em(away, x, max_steps=1))
    for batch in settings.batches:
        found = jgmm.streaming.online.fit(key, x, settings.n_components, batch=batch, init=away)
        enter(f"one pass of online EM, batches of {batch}", found)
    caption = (
        f"Below the optimum near the truth, for {n} samples; steps are passes over all of them."
    )
    study.table("shortcuts", rows, caption)


def _devices(
    study: StudyContext, settings: Settings, path: pathlib.Path, start: pathlib.Path
) -> None:
    n_rows = min(settings.memory_rows, settings.n_samples)
    rows: list[dict[str, Any]] = []
    for n in settings.devices:
        found = answer(child("devices", path, start, n_rows, n))
        rows.append({"devices": n, "rows_per_second": n_rows / found["seconds"], **found})
        fast = rows[-1]["rows_per_second"] / rows[0]["rows_per_second"]
        study.metric(f"{n} simulated devices: times as fast as one", fast)
    study.table("devices", rows, "Steps in memory on simulated devices of this machine.")
