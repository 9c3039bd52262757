"""The command ends with a status that says how, and shows a traceback for defects only."""

import os
import re
import signal
import subprocess
import sys

import pytest
from workbench.cli.commands import call, jgmm

import jgmm as package
from jgmm.workbench.cli import fit_commands
from jgmm.workbench.system import signals


@pytest.mark.parametrize(
    ("what", "status", "lines"),
    [
        ("data", 2, ["error: row 3 holds nan"]),
        ("user", 2, ["error: first line", "error: second line"]),
        ("fit", 4, ["error: no start ended"]),
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_problem_is_shown_without_a_traceback(study, what, status, lines, options):
    result = call("run", study, "--set", f"settings.what={what}", *options)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr.splitlines() == lines
    assert not os.path.exists("runs")


def test_a_defect_keeps_its_traceback(study):
    done = jgmm("run", study, "--set", "settings.what=bug")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.rstrip().endswith("ZeroDivisionError")
    assert "Traceback" in done.stderr


# A job that a script starts in the background ignores Ctrl-C, and so would its children.
_HEAR_CTRL_C = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from jgmm.workbench.cli.main import main
main()
"""


def test_ctrl_c_exits_130_and_leaves_nothing(study, place):
    command = [sys.executable, "-c", _HEAR_CTRL_C, "run", study, "--set", "settings.what=wait"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "cache")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout.readline() == "waiting\n"
            assert len(list((place / "runs").glob(".*.partial"))) == 1
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors == "error: interrupted; nothing was left behind\n"
    assert not (place / "runs").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_error_that_a_request_to_end_became_is_not_a_defect(study, monkeypatch, number, status):
    def turn(*_, **__):
        try:
            signal.raise_signal(number)
        except BaseException:
            raise ImportError("a library could not be imported") from None

    monkeypatch.setattr(fit_commands, "_run", turn)
    before = signal.signal(number, signal.default_int_handler)  # a job behind ``nohup`` ignores it
    try:
        with signals.stop_on_signals():
            ended = call("run", study)
    finally:
        signal.signal(number, before)
    assert ended.exit_code == status
    assert len(ended.stderr.splitlines()) == 1
    assert "nothing was left behind" in ended.stderr


def test_help_does_not_wait_for_large_packages():
    program = """
import atexit, sys
from jgmm.workbench.cli.main import app
slow = {"jax", "numpy", "pydantic", "rich", "matplotlib"}
atexit.register(lambda: print(slow & {*sys.modules}))
app(["--help"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("set()", "")
    result = call("--help")
    assert result.exit_code == 0
    for name in ("run", "fit", "select", "datasets", "show", "compare", "schema"):
        assert name in result.stdout
        told = " ".join(call(name, "--help").stdout.split())
        assert re.search(f"Examples: jgmm {name}", told)
    for status in ("0, done", "1, a defect", "2, something", "4, no fit", "130, Ctrl-C", "143"):
        assert status in " ".join(result.stdout.split())


def test_a_wrong_option_is_a_usage_error():
    assert call("run", "a.toml", "--nonsense").exit_code == 2
    assert call("run").exit_code == 2


def test_the_version_is_printed():
    assert call("--version").stdout == f"jgmm {package.__version__}\n"
