"""Whatever goes wrong outside, a run leaves a whole folder or none, and says what happened."""

import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import jgmm
from jgmm._core.errors import UserError
from jgmm.workbench.readers import datasets, formats
from jgmm.workbench.runs.runner import run_config

STUDY = """
    import pathlib, shutil, sys, time
    import numpy as np
    from jgmm import make_mixture
    from jgmm.workbench.config import Strict

    class Settings(Strict):
        seconds: float = 0.0
        spoil: str = ""
        size: int = 1

    def run(study):
        spoil = study.settings.spoil
        if spoil == "cut data":
            with open(study.config.data.source, "r+b") as file:
                file.truncate(200)
        if spoil == "remove data":
            pathlib.Path(study.config.data.source).unlink()
        study.metric("sum", 0.0 if study.data is None else float(np.asarray(study.data.x).sum()))
        study.table("rows", [{"n": n} for n in range(study.settings.size)])
        print("waiting", flush=True)
        time.sleep(study.settings.seconds)
        study.mixture("one", make_mixture([1.0], [[2.0]], [3.0], "spherical"))
        if spoil == "remove output":
            shutil.rmtree(study.config.output)
"""
FILES = {
    *("config.toml", "environment.json", "metrics.json", "report.html", "one.safetensors"),
    "tables/rows.csv",
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a study and its config, as the current folder."""
    (tmp_path / "fault_study.py").write_text(textwrap.dedent(STUDY))
    (tmp_path / "fault.toml").write_text('study = "fault_study"\nname = "a"\n')
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("fault_study", None)


def left_in(place):
    """What a run has added to the folder."""
    given = {"fault_study.py", "fault.toml", "__pycache__", "cache", "data.npy"}
    return sorted(entry.name for entry in place.iterdir() if entry.name not in given)


def assert_whole(run):
    files = {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}
    assert files == FILES
    assert json.loads((run / "metrics.json").read_text()) == {"sum": 0.0}
    assert (run / "report.html").read_text("utf-8").endswith("</html>\n")
    assert jgmm.load(run / "one.safetensors").means.tolist() == [[2.0]]


LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
runpy.run_module("jgmm.workbench.cli.main", run_name="__main__")
"""


def start(*arguments, program=("-m", "jgmm.workbench.cli.main")):
    """Begin `jgmm run` in a process of its own."""
    command = [sys.executable, *program, "run", "fault.toml", *arguments]
    environment = {**os.environ, "XDG_CACHE_HOME": str(pathlib.Path.cwd() / "cache")}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def outcome():
    """The folder of a run in this process, or else what its one error says."""
    try:
        return run_config("fault.toml", progress=False), ""
    except UserError as error:
        return None, str(error)


# --- the disk ----------------------------------------------------------------------------------


SYSTEM_CALLS = ["os.fsync", "os.replace", "tempfile.mkstemp", "pathlib.Path.mkdir"]
SYSTEM_CALLS += ["tempfile.mkdtemp", "pathlib.Path.rename", "pathlib.Path.replace", "os.chmod"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", SYSTEM_CALLS)
def test_every_write_of_a_run_may_fail(place, monkeypatch, call, code):
    """The first call fails, then the second, and so on, until a run needs no more of them."""
    *parts, name = call.split(".")
    owner = sys.modules[parts[0]]
    for part in parts[1:]:
        owner = getattr(owner, part)
    real = getattr(owner, name)
    for nth in range(1, 100):
        left = [nth]

        def sometimes(*arguments, left=left, **options):
            left[0] -= 1
            if left[0] == 0:
                raise OSError(code, os.strerror(code))
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, sometimes)
            run, message = outcome()
        if run is not None:
            break
        assert os.strerror(code) in message
        if left_in(place):  # only the name was not known to be on the disk
            (run,) = (place / "runs").iterdir()
            assert_whole(run)
            shutil.rmtree(place / "runs")
    assert left[0] > 0
    assert nth > 1  # so the call was made, and failed at least once
    assert_whole(run)


def test_a_limit_on_the_size_of_files_ends_a_run_in_one_sentence(place):
    process = start("--set", "settings.size=5000", program=("-c", LIMITED))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "rows.csv: File too large; a limit on the size of files" in line
    assert "Traceback" not in errors
    assert left_in(place) == []


def test_a_run_whose_output_vanishes_says_so(place):
    with pytest.raises(UserError, match="No such file or directory; the folder was removed"):
        run_config("fault.toml", ["settings.spoil=remove output"], progress=False)
    assert left_in(place) == []


# --- the data ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", ["cut data", "remove data"])
def test_data_that_vanish_during_a_run_have_been_read(place, spoil):
    """A memory map of a file cut short would end the process with a bus error."""
    np.save("data.npy", np.ones((5000, 3)))
    changes = ["data.source=data.npy", f"settings.spoil={spoil}"]
    run = run_config("fault.toml", changes, progress=False)
    assert json.loads((run / "metrics.json").read_text()) == {"sum": 15000.0}


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"data.{suffix}"
    if suffix == "npy":
        np.save(path, np.ones((3, 2)))
    elif suffix == "csv":
        path.write_text("a\n1\n2\n")
    else:
        import pyarrow as pa
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.table({"a": [1.0]}), path)
    real = formats.table_openers()[path.suffix]

    def late(*arguments):
        table = real(*arguments)
        with path.open("ab") as file:
            file.write(b"3\n")
        return table

    monkeypatch.setattr(formats, "opener", lambda *_: late)
    with pytest.raises(UserError, match="the file was changed while it was read"):
        datasets.load(path)
    monkeypatch.setattr(formats, "opener", lambda *_: lambda *_: path.unlink())
    with pytest.raises(UserError, match="cannot be read: No such file"):
        datasets.load(path)


# --- the process -------------------------------------------------------------------------------


def test_a_killed_run_leaves_nothing_that_looks_like_one(place):
    """Killed at any moment; the run after it tidies up."""
    chance = random.Random(5)
    for _ in range(3):
        process = start("--set", f"settings.seconds={chance.choice([0.0, 0.1])}")
        if chance.random() < 0.7:
            process.stdout.readline()
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.communicate(timeout=60)
    process = start("--set", "settings.seconds=100")
    assert process.stdout.readline() == "waiting\n"
    process.kill()
    process.communicate(timeout=60)
    hidden = list((place / "runs").glob(".*"))
    assert any("config.toml" in os.listdir(entry) for entry in hidden)
    process = start()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors.count("left by a run that was killed") == len(hidden)
    for entry in (place / "runs").iterdir():
        assert_whole(entry)


def test_runs_in_one_folder_at_the_same_time_do_not_disturb_each_other(place):
    processes = [start("--set", f"settings.seconds={seconds}") for seconds in (0.0, 0.3)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
    runs = list((place / "runs").iterdir())
    assert len(runs) == 2
    for run in runs:
        assert_whole(run)


def test_a_run_told_to_end_leaves_nothing(place):
    process = start("--set", "settings.seconds=100")
    assert process.stdout.readline() == "waiting\n"
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors == "error: told to end; nothing was left behind\n"
    assert left_in(place) == []
