"""Thousands of inputs that nobody would write: each gives a right result or one clear error.

300 of each kind are tried; JGMM_FUZZ=5000 tries more, JGMM_FUZZ=5000:9000 others, and a failure
names the number of its case: JGMM_FUZZ=1234:1235 tries that one alone.
"""

import csv
import io
import json
import os
import random
import re
import signal
import tomllib
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from workbench import fuzz

import jgmm
from jgmm._core import compilation_cache
from jgmm._core.errors import UserError
from jgmm._saving.save import read
from jgmm.workbench.cli.main import app
from jgmm.workbench.config import checking, models
from jgmm.workbench.config.toml import to_toml
from jgmm.workbench.readers import datasets

SECONDS = 20  # a case that takes longer hangs
FIRST, _, LAST = os.environ.get("JGMM_FUZZ", "300").rpartition(":")


class Hang(BaseException):
    """Raised by the clock, and caught by nobody."""


def cases(target):
    """Try a function of a generator on every number, with a time limit on each."""

    def ring(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    results = {"result": 0, "error": 0}
    try:
        for number in range(int(FIRST or 0), int(LAST)):
            signal.alarm(SECONDS)
            try:
                ended = target(random.Random(f"{target.__qualname__} {number}"))
            except BaseException as error:
                error.add_note(f"case {number}")
                raise
            results[ended] += 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if sum(results.values()) >= 300:  # else the checks behind the first are not reached
        print(target.__qualname__, results)
        assert min(results.values()) >= 30, results


def clear(error):
    """Whether a person can read it: `error`, for `cases`."""
    message = str(error)
    assert message.strip()
    assert "Traceback" not in message
    assert len(message.splitlines()) <= checking.MAX_PROBLEMS + 1
    assert max(map(len, message.splitlines())) <= 1000, message
    return "error"


def test_configs(tmp_path):
    def target(rng):
        path = tmp_path / "x.toml"
        path.write_bytes(fuzz.config(rng))
        try:
            found = models.load(path, fuzz.overrides(rng))
        except UserError as error:
            return clear(error)
        text = to_toml(found.model_dump(mode="json"))
        again = models.from_table(tomllib.loads(text))
        assert to_toml(again.model_dump(mode="json")) == text  # not ==, for NaN is not NaN
        return "result"

    cases(target)


def loaded(rng, path, names):
    """A data set, or None once its error has been found clear."""
    options = {"mapped": rng.random() < 0.5}
    for option in ("label", "weight"):
        if rng.random() < 0.1:
            options[option] = rng.choice(names)
    if rng.random() < 0.2:
        options["columns"] = rng.sample(names, rng.randrange(1, 3))
    try:
        data = datasets.load(path, **options)
    except UserError as error:
        clear(error)
        return None
    assert np.isfinite(data.x).all()
    assert data.x.shape == (len(data.x), len(data.columns))
    assert data.labels is None or data.labels.max() == len(data.label_names) - 1
    assert data.weights is None or data.weights.sum() > 0
    return data


def file_cases(path, content, names, check):
    """Try files of data: each is refused clearly, or what is loaded passes ``check``."""

    def target(rng):
        path.write_bytes(content(rng))
        data = loaded(rng, path, names)
        if data is None:
            return "error"
        check(data)
        return "result"

    cases(target)


def test_csv_files(tmp_path):
    path = tmp_path / "x.csv"
    compared = []

    def check(data):
        if re.sub(r"\d+ columns? left out as [^;]*|; ", "", data.read_as):
            return  # not as Python's own reader would take it
        compared.append(len(data.x))
        # Python's own reader finds the same numbers.
        text = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
        header, *rows = [row for row in csv.reader(text) if row]
        places = [[name.strip() for name in header].index(name) for name in data.columns]
        assert data.x.tolist() == [[float(row[place]) for place in places] for row in rows]

    file_cases(path, fuzz.csv, ["a", "b", "label", "é"], check)
    assert len(compared) >= 30, len(compared)


def test_parquet_files(tmp_path):
    path = tmp_path / "x.parquet"

    def check(data):
        file = pq.ParquetFile(path)
        for name, values in zip(data.columns, data.x.T, strict=True):
            cells = file.read(columns=[name]).column(name).to_pylist()
            assert values.tolist() == [float(cell) for cell in cells]

    file_cases(path, fuzz.parquet, ["a", "b", "label", "é", "a.b"], check)


def test_npy_files(tmp_path):
    path = tmp_path / "x.npy"

    def check(data):
        whole = np.load(path, "r", allow_pickle=False)
        chosen = whole[:, [int(name[1:]) for name in data.columns]]
        np.testing.assert_array_equal(data.x, chosen.astype(float))

    file_cases(path, fuzz.npy, ["x0", "x1"], check)


def test_parameter_files(tmp_path):
    def target(rng):
        path = tmp_path / "x.safetensors"
        path.write_bytes(fuzz.parameters(rng))
        try:
            found = jgmm.load(path)
            names = read(path).columns
        except UserError as error:
            return clear(error)
        assert names is None or len(names) == found.n_features
        assert np.exp(np.asarray(found.log_weights)).sum() == pytest.approx(1, abs=1e-3)
        jgmm.save(tmp_path / "y.safetensors", found, names)
        again = jgmm.load(tmp_path / "y.safetensors")
        for name in ("log_weights", "means", "scale"):
            np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        return "result"

    cases(target)


# --- the command line --------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with good and bad files of every kind, and studies that fit nothing."""
    from jgmm.mixture.mixture import make_mixture
    from jgmm.selection.criteria import CRITERIA
    from jgmm.selection.selection import Row
    from jgmm.workbench.runs import runner
    from jgmm.workbench.studies import classify as classify_study
    from jgmm.workbench.studies import mixture as mixture_study

    def pretend(study):
        study.metric("rows", 0 if study.data is None else len(study.data.x))
        study.table("columns", [{"name": name} for name in study.data.columns])

    def select_mixture(study):
        fit, value = study.config.fit, float(len(study.data.x))
        criteria = dict.fromkeys(CRITERIA, value) | {"held_out": 0.5}
        table = [
            Row(k, name, k, value, criteria, "CONVERGED", 1, k % 2)
            for name in fit.covariance
            for k in fit.n_components
        ]
        return SimpleNamespace(table=table, best=table[-1])

    for module in (mixture_study, classify_study):
        monkeypatch.setattr(module, "run", pretend)
    monkeypatch.setattr(mixture_study, "select_mixture", select_mixture)
    monkeypatch.setattr(compilation_cache, "use_compilation_cache", lambda: None)
    place = tmp_path / "outer" / "inner"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    rng = random.Random(1)
    (place / "good.toml").write_text(to_toml({"data": {"source": "good.csv"}}))
    (place / "good.csv").write_text("a,b,<b>\n1,2,x\n3,4,[/bold]\n5,7,\x1b[31m\n")
    x = np.arange(8.0).reshape(4, 2)
    np.save(place / "good.npy", x)
    pq.write_table(pq.read_table(io.BytesIO(_parquet())), place / "good.parquet")
    mixture = make_mixture([1.0], [[2.0, 3.0]], [1.0], "spherical")
    jgmm.save("good.safetensors", mixture, ["[/bold]", "\x1b[31m"])
    runner.run_config("good.toml", ["output=first"], progress=False).rename(place / "good-run")
    (place / "first").rmdir()
    (place / "bad-run").mkdir()
    (place / "bad-run" / "metrics.json").write_text("[" * 100_000)
    for kind in ("toml", "csv", "npy", "parquet", "safetensors"):
        content = (place / f"good.{kind}").read_bytes()
        (place / f"bad.{kind}").write_bytes(fuzz.damaged(rng, content))
    return place


def _parquet():
    import pyarrow as pa

    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1.0, 2.0], "b": [3, 4]}), sink)
    return sink.getvalue()


def test_command_lines(desk):
    given = set(desk.rglob("*")) | set(desk.parent.iterdir())
    runner = CliRunner()

    def target(rng):
        arguments = fuzz.command(rng)
        ended = runner.invoke(app, arguments)
        assert ended.exception is None or isinstance(ended.exception, SystemExit), arguments
        assert ended.exit_code in (0, 2, 4), arguments
        assert "Traceback" not in ended.output
        assert "\x1b" not in ended.output
        new = (set(desk.rglob("*")) | set(desk.parent.iterdir())) - given
        runs = {path.parent for path in new if path.name == "report.html"}
        assert arguments[0] != "select" or not new, arguments
        for path in new:  # whole runs, and the folders they are in
            assert any(run == path or run in path.parents or path in run.parents for run in runs)
        for run in runs:
            assert json.loads((run / "metrics.json").read_text())["rows"] > 0
        for path in sorted(new, reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        if ended.exit_code == 0:
            assert ended.stdout.strip()
            return "result"
        assert ended.stderr.strip()
        return "error"

    cases(target)
