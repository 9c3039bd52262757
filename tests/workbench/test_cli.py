import json
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
import textwrap

import pytest
from typer.testing import CliRunner

from jgmm.mixture import make_mixture
from jgmm.workbench import cli, storage
from jgmm.workbench.config import UserError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty current folder, and a compilation cache that stays out of the test process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.cache, "use_compilation_cache", lambda: None)
    return tmp_path


def call(*arguments):
    result = CliRunner().invoke(cli.app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def jgmm(*arguments, **options):
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "jgmm.workbench.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


STUDY = """
    import time
    from jgmm.workbench.config import Strict, UserError
    from jgmm.status import DataError

    class Settings(Strict):
        what: str = "pass"

    def run(run):
        run.metric("answer", 42.5)
        run.metric("word", "[bold]plain[/bold]")
        what = run.settings.what
        if what == "wait":
            print("waiting", flush=True)
            time.sleep(100)
        if what == "data":
            raise DataError("row 3 holds nan")
        if what == "user":
            raise UserError("first line\\nsecond line")
        if what == "bug":
            raise ZeroDivisionError
"""


@pytest.fixture
def study(place):
    (place / "quick_study.py").write_text(textwrap.dedent(STUDY))
    (place / "quick.toml").write_text('study = "quick_study"\n')
    yield "quick.toml"
    sys.modules.pop("quick_study", None)


def test_a_run_ends_with_its_numbers_and_the_place_of_its_report(study):
    result = call("run", study, "--output", "out")
    assert result.exit_code == 0
    assert "42.5" in result.stdout
    assert "[bold]plain[/bold]" in result.stdout
    report = re.search(r"report: (.*)", result.stdout)[1]
    assert pathlib.Path(report).is_file()
    assert pathlib.Path(report).parts[0] == "out"


def test_a_quiet_run_prints_its_folder_only(study):
    folder = call("run", study, "--quiet").stdout.strip()
    assert (pathlib.Path(folder) / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("what", "lines"),
    [
        ("data", ["error: row 3 holds nan"]),
        ("user", ["error: first line", "error: second line"]),
    ],
)
def test_a_problem_is_shown_without_a_traceback(study, what, lines):
    result = call("run", study, "--set", f"settings.what={what}")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == lines
    assert not os.path.exists("runs")


def test_a_defect_keeps_its_traceback(study):
    with pytest.raises(ZeroDivisionError):
        call("run", study, "--set", "settings.what=bug")


def test_ctrl_c_exits_130_and_leaves_nothing(study, place):
    command = [sys.executable, "-m", "jgmm.workbench.cli", "run", study]
    command += ["--set", "settings.what=wait"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "cache")}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout.readline() == "waiting\n"
    assert len(list((place / "runs").glob(".*.partial"))) == 1
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
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

    monkeypatch.setattr(cli, "_run", turn)
    with cli.signals.obeyed():
        ended = call("run", study)
    assert ended.exit_code == status
    assert len(ended.stderr.splitlines()) == 1
    assert "nothing was left behind" in ended.stderr


def test_help_does_not_wait_for_jax():
    program = "import sys; from jgmm.workbench import cli; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
    result = call("--help")
    assert result.exit_code == 0
    for name in ("run", "fit", "datasets", "show", "compare", "schema"):
        assert name in result.stdout


def test_a_wrong_option_is_a_usage_error():
    assert call("run", "a.toml", "--nonsense").exit_code == 2
    assert call("run").exit_code == 2


def test_a_missing_config_is_named():
    result = call("run", "none.toml")
    assert (result.exit_code, result.stderr) == (2, "error: none.toml: no such config file\n")


def test_show_prints_a_run_and_a_mixture(study, place):
    folder = call("run", study, "--quiet").stdout.strip()
    shown = call("show", folder).stdout
    assert "answer" in shown
    assert "report.html" in shown
    mixture = make_mixture([0.25, 0.75], [[1.5], [2.5]], [4.0, 9.0], "spherical")
    storage.save_mixture("m.safetensors", mixture, ["height"])
    shown = call("show", "m.safetensors").stdout
    for text in ("height", "0.25", "0.75", "1.5", "2.5", "spherical", "K=2"):
        assert text in shown
    result = call("show", str(place))
    assert result.exit_code == 2
    assert "not the folder of a run" in result.stderr


def test_compare_shows_what_differs(study):
    first = call("run", study, "--quiet").stdout.strip()
    second = call("run", study, "--quiet", "--set", "seed=7").stdout.strip()
    shown = call("compare", first, second).stdout
    seeds = [line for line in shown.splitlines() if re.search(r"\bseed\b", line)]
    assert "0" in seeds[0]
    assert "7" in seeds[0]
    assert "answer" in shown
    assert "precision" not in shown  # the same in both
    assert "config: the same" in call("compare", first, first).stdout


def test_runs_may_have_names_that_look_like_markup(study, place):
    folder = pathlib.Path(call("run", study, "--quiet").stdout.strip())
    for name in ("[red]a", "[b\\", "caf\udce9", ":smile:"):
        folder = folder.rename(place / name)
        shown = name.replace("\udce9", "\\udce9")
        assert shown in call("show", str(folder)).stdout
        ended = call("compare", str(folder), str(folder))
        assert ended.stdout.count(shown) >= 2  # above either column


@pytest.mark.parametrize("content", ["[1]", "{", "[" * 100_000, "\udcff"])
def test_a_damaged_run_is_said_to_be(place, content):
    (place / "metrics.json").write_text(content, errors="surrogateescape")
    ended = call("show", str(place))
    assert ended.exit_code == 2
    assert "metrics.json: damaged" in ended.stderr


def test_the_schema_is_json():
    assert "fit" in json.loads(call("schema").stdout)["properties"]


def test_datasets_lists_the_built_in_ones():
    assert "faithful" in call("datasets").stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", [3]), ("1:3", [1, 2, 3]), ("2,5", [2, 5]), ("1:2,4", [1, 2, 4]), ("4:4", [4])],
)
def test_numbers_of_components_are_read(text, expected):
    assert cli.parse_components(text) == expected


@pytest.mark.parametrize("text", ["", "0", "3:1", "a", "1:", "1:99999999999", "1:b", "9" * 5000])
def test_numbers_of_components_that_make_no_sense_are_refused(text):
    with pytest.raises(UserError, match="--components"):
        cli.parse_components(text)


def test_fit_is_the_study_mixture_without_a_config(monkeypatch):
    made = []
    monkeypatch.setattr(cli, "_run", lambda config, path, changes, quiet: made.append(config))
    assert call("fit", "my data.csv").exit_code == 0
    options = ["--components", "1:3,5", "--covariance", "full,tied", "--label", "species"]
    options += ["--columns", "a,b", "--restarts", "4", "--seed", "9", "--criterion", "icl"]
    options += ["--precision", "float32", "--weight", "w", "--set", "fit.init=points"]
    assert call("fit", "iris", *options, "--output", "a'b").exit_code == 0
    default, full = made
    assert (default.study, default.name, default.data.source) == (
        "mixture",
        "my-data",
        "my data.csv",
    )
    assert default.fit.n_components == list(range(1, 10))
    assert full.fit.n_components == [1, 2, 3, 5]
    assert full.fit.covariance == ["full", "tied"]
    assert (full.fit.n_restarts, full.fit.criterion, full.fit.init) == (4, "icl", "points")
    assert (full.seed, full.precision, full.output) == (9, "float32", "a'b")
    assert (full.data.columns, full.data.label, full.data.weight) == (["a", "b"], "species", "w")
    assert call("fit", "iris", "--covariance", "ful").exit_code == 2


def test_the_compilation_cache_is_private_and_used(study, place):
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "cache")}
    done = jgmm("run", study, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    folder = place / "cache" / "jgmm" / "xla"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert any(folder.iterdir())


def test_without_a_cache_folder_the_run_goes_on(study, place):
    (place / "file").touch()
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "file")}
    done = jgmm("run", study, env=environment)
    assert done.returncode == 0
    assert "no compilation cache" in done.stderr
    assert "42.5" in done.stdout
