"""Several real processes: one is killed, the job ends and says so, and the next carries on."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import jgmm
from jgmm._core.errors import UserError
from jgmm.streaming import reader
from jgmm.workbench.runs import runner
from jgmm.workbench.system import launch
from jgmm.workbench.system.launch import LostMember

ROOT = pathlib.Path(jgmm.__file__).parents[1]
PAGE = (ROOT / "docs" / "scale.md").read_text()
CONFIG = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL).group(1)
COMMANDS = re.findall(r"^jgmm (run big.*)$", PAGE, re.MULTILINE)[:2]
# So that a few steps take a while, none is the last, and each block leaves a checkpoint.
SMALL = ["fit.n_restarts=1", "fit.tol=0.0", "fit.rtol=0.0", "fit.max_steps=12"]
SMALL += ["fit.accelerate=none", "settings.block_rows=256", "settings.checkpoint_minutes=0.0"]


def test_nothing_forks():
    """A process with the threads of JAX would hang; ``Popen`` without ``preexec_fn`` does not."""
    forks = re.compile(r"\bfork|multiprocessing|ProcessPool|preexec_fn")
    sources = (ROOT / "jgmm").rglob("*.py")
    assert [path for path in sources if forks.search(path.read_text())] == []
    assert "`fork` may hang" in PAGE


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a config and with files of very different lengths."""
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for i, n in enumerate((3, 900, 60)):
        x = rng.normal(size=(n, 2)) + 1.5 * rng.integers(0, 2, (n, 1))
        np.save(tmp_path / "data" / f"{i}.npy", x.astype(np.float32))
    (tmp_path / "big.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(command):
    changes = [part for change in SMALL for part in ("--set", change)]
    return subprocess.Popen(
        [sys.executable, "-m", "jgmm.workbench.cli.main", *command.split(), *changes],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def members(parent):
    """The processes it has started."""
    found = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in found]


def metrics(place):
    (folder,) = place.glob("runs/big-*")
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="finds processes by /proc")
def test_a_lost_process_ends_the_job_and_the_next_one_carries_on(place):
    alone, together = COMMANDS
    assert (alone, together) == ("run big.toml", "run big.toml --processes 2")
    job = start(together)
    kept = place / "runs" / "big.checkpoint" / "0001-of-0002.safetensors"
    deadline = time.monotonic() + 120
    while not kept.exists() and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(members(job.pid)[1], signal.SIGKILL)
    begun = time.monotonic()
    _, said = job.communicate(timeout=2 * launch.GRACE)
    assert time.monotonic() - begun < launch.GRACE + 10
    assert job.returncode == 3, said
    assert "error: process 1 of 2 was killed by signal 9; the others were ended" in said
    assert "carries on from the last checkpoint" in said
    assert kept.exists()
    assert not list(place.glob("runs/big-*"))

    shown, said = start(together).communicate(timeout=200)
    assert "report:" in shown, said
    found = metrics(place)
    assert (found["rows"], found["processes"], found["steps"]) == (963, 2, 12)
    assert found["bytes sent a step"] == 2 * 4 * (4 + 4 + 4 + 1)
    (shared,) = place.glob("runs/big-*/mixture.safetensors")
    (report,) = place.glob("runs/big-*/report.html")
    assert "Carried on from a checkpoint of step" in report.read_text()
    assert not kept.parent.exists()
    folder = runner.run_config(place / "big.toml", ["name=alone", *SMALL], progress=False)
    one = json.loads((folder / "metrics.json").read_text())
    assert one["processes"] == 1
    # The blocks are the same, and their sums are rounded once: not a bit depends on who added them.
    assert found["log_likelihood"] == one["log_likelihood"]
    assert shared.read_bytes() == (folder / "mixture.safetensors").read_bytes()


def test_members_end_together(monkeypatch, tmp_path):
    """Without JAX: processes that end well, that fail with a word, and that hang."""
    monkeypatch.setattr(launch, "GRACE", 0.5)
    script = tmp_path / "member.py"
    monkeypatch.setattr(launch, "COMMAND", [sys.executable, str(script)])

    def job(body):
        script.write_text(
            f"import os, sys, time\nrank = int(sys.argv[sys.argv.index('--process') + 1])\n{body}"
        )
        return launch.launch(["run", "x"], 3)

    assert job("pass") == 0
    assert job("sys.exit(2 if rank == 1 else 0)") == 2
    with pytest.raises(LostMember, match="process 2 of 3 ended with status 7"):
        job("sys.exit(7) if rank == 2 else time.sleep(60)")
    with pytest.raises(LostMember, match="process 0 of 3 was killed by signal 9"):
        job("os.kill(os.getpid(), 9) if rank == 0 else None")
    # Found dead at one look: the first has lost the second, which has aborted the third.
    monkeypatch.setattr(launch, "_POLL_SECONDS", 1.0)
    with pytest.raises(LostMember, match="process 1 of 3 was killed by signal 9"):
        job("time.sleep(0.2); sys.exit(3) if rank == 0 else os.kill(os.getpid(), (0, 9, 6)[rank])")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--process", "0"], "--process goes with --coordinator"),
        (["--coordinator", "localhost:1"], "--coordinator goes with --processes"),
        (["--coordinator", "h:1", "--processes", "2", "--process", "2"], "from 0 to N - 1"),
    ],
)
def test_arguments_that_go_together(place, arguments, text):
    from typer.testing import CliRunner

    from jgmm.workbench.cli.main import app

    found = CliRunner().invoke(app, ["run", "big.toml", *arguments])
    assert found.exit_code == 2
    assert text in found.output


def test_other_studies_are_not_shared(place):
    class Two(reader.SingleProcess):
        rank_and_size = (1, 2)

    (place / "small.toml").write_text('study = "mixture"\n[data]\nsource = "faithful"\n')
    with pytest.raises(UserError, match="not made for several processes"):
        runner.run_config(place / "small.toml", group=Two())


def test_ctrl_c_leaves_the_best_so_far_and_a_checkpoint(place, monkeypatch):
    from typer.testing import CliRunner

    from jgmm._core import compilation_cache as cache
    from jgmm.workbench.cli.main import app
    from jgmm.workbench.runs import checkpoints
    from jgmm.workbench.system import signals

    monkeypatch.setattr(cache, "use_compilation_cache", lambda: None)
    kept = checkpoints.Checkpoint.save

    def save(self, state, now=False):
        kept(self, state, now)
        if int(state.runs.n_steps.max()) == 3 and not now:
            signals._stop(signal.SIGINT, None)

    monkeypatch.setattr(checkpoints.Checkpoint, "save", save)
    changes = [part for change in SMALL for part in ("--set", change)]
    found = CliRunner().invoke(app, ["run", "big.toml", *changes])
    signals._requests.clear()
    assert found.exit_code == 130
    assert "error: interrupted; the folder holds the best so far" in found.output
    assert "nothing was left behind" not in found.output
    assert metrics(place)["status"] == "interrupted"
    assert (place / "runs" / "big.checkpoint").exists()
