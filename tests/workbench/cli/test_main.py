import json
import math
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
import textwrap

import numpy as np
import pandas
import pytest
from typer.testing import CliRunner

import jgmm as package
from jgmm._core.errors import UserError
from jgmm.covariance.models import MODELS
from jgmm.mixture.mixture import make_mixture
from jgmm.workbench.cli.main import app, fit_commands, terminal
from jgmm.workbench.cli.options import parse_components
from jgmm.workbench.config import models
from jgmm.workbench.runs import comparison, storage
from jgmm.workbench.system import compilation_cache, signals


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty current folder, and a compilation cache that stays out of the test process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compilation_cache, "use_compilation_cache", lambda: None)
    return tmp_path


def call(*arguments):
    result = CliRunner().invoke(app.app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def jgmm(*arguments, **options):
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "jgmm.workbench.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


STUDY = """
    import time
    from jgmm.workbench.config import Strict, UserError
    from jgmm.status import DataError, FitError

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
        if what == "fit":
            raise FitError("no start ended")
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


def test_ctrl_c_exits_130_and_leaves_nothing(study, place):
    command = [sys.executable, "-m", "jgmm.workbench.cli.main", "run", study]
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


def test_help_does_not_wait_for_jax():
    program = "import sys; from jgmm.workbench import cli; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
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
    assert "certainty" in json.loads(call("schema", "--study", "mixture").stdout)["properties"]


def test_datasets_lists_the_built_in_ones():
    shown = call("datasets").stdout
    for text in ("faithful", "272", "eruptions", "Härdle"):
        assert text in shown
    listed = {entry["name"]: entry for entry in json.loads(call("datasets", "--json").stdout)}
    assert listed["faithful"]["columns"] == ["eruptions", "waiting"]


def test_the_version_is_printed():
    assert call("--version").stdout == f"jgmm {package.__version__}\n"


def test_quiet_and_verbose_contradict_each_other(study):
    result = call("run", study, "--quiet", "--verbose")
    assert result.exit_code == 2
    assert "contradict" in result.stderr


# A study that leaves all that a fit leaves, without a fit.
CHOICE = """
    import numpy as np
    from jgmm.mixture import make_mixture
    from jgmm.workbench.config import Strict

    class Settings(Strict):
        shift: float = 0.0

    def run(run):
        print("printed by the study")
        shift = run.settings.shift
        fits = [(1, -30.0, 70.5, ""), (2, -12.5, 41.25, "yes"), (3, float("nan"), float("nan"), "")]
        rows = [
            {"K": k, "model": "diag", "parameters": 4 * k, "log_likelihood": ell, "bic": bic,
             "status": "converged" if bic == bic else "collapsed", "agree": 3, "chosen": chosen}
            for k, ell, bic, chosen in fits
        ]
        run.table("summary", rows)
        order = slice(None) if shift == 0 else slice(None, None, -1)
        means = np.asarray([[0.0, 1.0], [9.0, 5.0]])[order] + shift
        mixture = make_mixture([0.25, 0.75][order], means, np.ones((2, 2)), "diag")
        run.mixture("mixture", mixture, ["length", "width"])
        labels = [0, 0, 1, 1] if shift == 0 else [1, 1, 0, 0]
        run.table("assignments", [{"sample": i, "component": k} for i, k in enumerate(labels)])
        run.metric("bic", 41.25 + shift)
        run.note("Look twice.")
"""


@pytest.fixture
def choices(place):
    """Two runs of that study: the components of the second are moved, and in another order."""
    (place / "choice_study.py").write_text(textwrap.dedent(CHOICE))
    (place / "choice.toml").write_text('study = "choice_study"\n')
    yield [
        json.loads(call("run", "choice.toml", "--json", "--set", f"settings.shift={shift}").stdout)
        for shift in (0.0, 0.5)
    ]
    sys.modules.pop("choice_study", None)


def test_a_run_as_json_is_all_there_is_on_stdout(choices):
    found, _ = choices
    assert found["metrics"] == {"bic": 41.25}
    assert found["notes"] == ["Look twice."]
    assert found["table"][1]["chosen"] == "yes"
    assert found["table"][1]["bic"] == 41.25
    assert found["table"][2]["bic"] == "nan"  # for which JSON has no number
    assert found["mixture"]["columns"] == ["length", "width"]
    assert found["mixture"]["means"] == [[0, 1], [9, 5]]
    assert pathlib.Path(found["report"]).is_file()
    assert json.loads(call("show", found["folder"], "--json").stdout) == found
    saved = json.loads(call("show", found["folder"] + "/mixture.safetensors", "--json").stdout)
    assert saved == found["mixture"]


def test_a_summary_shows_the_fits_best_first_and_marks_the_chosen(choices):
    lines = call("run", "choice.toml").stdout.splitlines()
    fits = [line for line in lines if "diag" in line]
    assert [line.lstrip("* ").split()[0] for line in fits] == ["2", "1", "3"]
    assert ["*" in line for line in fits] == [True, False, False]
    for text in ("-12.50", "41.25", "converged", "3 of 16"):
        assert text in fits[0]
    assert "collapsed" in fits[2]
    assert "note: Look twice." in lines
    assert lines[-1].startswith("report: ")
    assert not any("length" in line for line in lines)
    told = call("run", "choice.toml", "--verbose").stdout
    for text in ("length", "0.25", "report.html", "mixture.safetensors"):
        assert text in told


def test_compare_pairs_components_and_assignments(choices):
    first, second = (run["folder"] for run in choices)
    found = json.loads(call("compare", first, second, "--json").stdout)
    assert found["config"] == {"settings.shift": [0.0, 0.5]}
    assert found["metrics"] == {"bic": [41.25, 41.75]}
    assert found["mixture"]["components"] == [[0, 1], [1, 0]]
    assert found["mixture"]["means"][0] == [[0, 1], [0.5, 1.5]]
    np.testing.assert_allclose(found["mixture"]["weights"], [[0.25, 0.25], [0.75, 0.75]])
    assert found["adjusted_rand_index"] == 1
    shown = call("compare", first, second).stdout
    for text in ("settings.shift", "0 ~ 1", "mean of width", "Rand index 1.0000"):
        assert text in shown


def test_components_without_a_partner_are_listed():
    def mixture(*means):
        k = len(means)
        return {
            "columns": ["a"],
            "weights": [1 / k] * k,
            "means": [[mean] for mean in means],
            "covariances": [[[1.0]]] * k,
        }

    found = comparison.match(mixture(0.0, 5.0), mixture(5.1, 9.0, 0.2))
    assert found["components"] == [(0, 2), (1, 0), (None, 1)]
    assert found["means"][2] == [None, [9.0]]


def test_fit_and_select_choose_the_same(place):
    rng = np.random.default_rng(0)
    x = rng.normal(size=40) + np.repeat([0, 9], 20)
    pandas.DataFrame({"who": ["x"] * 40, "length": x}).to_csv("data.csv", index=False)
    options = ["data.csv", "--components", "1:2", "--covariance", "spherical", "--restarts", "1"]
    selected = json.loads(call("select", *options, "--json").stdout)
    assert [path.name for path in place.iterdir()] == ["data.csv"]  # nothing is left
    fitted = json.loads(call("fit", *options, "--json").stdout)
    assert fitted["table"] == selected["table"]
    assert [row["chosen"] for row in fitted["table"]] == ["", "yes"]
    assert fitted["mixture"]["columns"] == ["length"]
    assert "largest that was tried" in fitted["notes"][0]
    shown = call("show", fitted["folder"]).stdout
    assert "40 samples of length" in shown
    assert "left out, as not of numbers: who" in shown
    shown = call("select", *options).stdout
    assert re.search(r"spherical +\d+\.\d +\d+\.\d\*", shown)


@pytest.mark.parametrize(
    ("agree", "log_likelihood", "most", "told"),
    [(0, -12.5, 2, True), (0, math.nan, 2, False), (3, -12.5, 2, False), (0, -12.5, 1, False)],
)
def test_a_fit_reached_from_a_special_case_alone_is_said_to_be(
    capsys, agree, log_likelihood, most, told
):
    row = {"K": 1, "model": "diag", "parameters": 4, "log_likelihood": -10.0, "bic": 30.0}
    row |= {"status": "converged", "agree": 2, "chosen": "yes"}
    other = {"K": 2, "log_likelihood": log_likelihood, "bic": 40.0, "agree": agree, "chosen": ""}
    terminal.fits([row, row | other], "bic", 3, most, "elsewhere")
    shown = capsys.readouterr().out
    assert ("agree 0: reached from a special case alone" in shown) == told
    assert ("and 1 more elsewhere" in shown) == (most == 1)


def test_a_grid_too_wide_for_the_terminal_is_left_out(monkeypatch, capsys):
    rows = [{"K": k, "model": "full", "bic": 1e6, "status": "converged"} for k in range(1, 21)]
    monkeypatch.setenv("COLUMNS", "80")
    assert not terminal.grid(rows, "bic", rows[0])
    assert capsys.readouterr().out == ""
    assert terminal.grid(rows[:6], "bic", rows[0])
    assert "1000000.0*" in capsys.readouterr().out


def test_shells_complete_commands_and_values(place):
    (place / "mine.csv").touch()
    (place / "mine.txt").touch()
    for words, expected in (
        ("jgmm sel", ["select"]),
        ("jgmm fit mi", ["mine.csv"]),
        ("jgmm fit fai", ["faithful"]),
        ("jgmm fit iris --criterion ai", ["aic", "aicc"]),
        ("jgmm fit iris --covariance full,ti", ["full,tied"]),
        ("jgmm fit iris --precision float3", ["float32"]),
    ):
        asked = {
            "_JGMM_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        result = CliRunner().invoke(app.app, [], env=asked, prog_name="jgmm")
        assert result.stdout.split() == expected, words


def test_names_of_models_are_those_of_the_library():
    assert sorted(models.COVARIANCES) == sorted(model.name for model in MODELS.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", [3]), ("1:3", [1, 2, 3]), ("2,5", [2, 5]), ("1:2,4", [1, 2, 4]), ("4:4", [4])],
)
def test_numbers_of_components_are_read(text, expected):
    assert parse_components(text) == expected


@pytest.mark.parametrize("text", ["", "0", "3:1", "a", "1:", "1:99999999999", "1:b", "9" * 5000])
def test_numbers_of_components_that_make_no_sense_are_refused(text):
    with pytest.raises(UserError, match="--components"):
        parse_components(text)


def test_fit_is_the_study_mixture_without_a_config(monkeypatch):
    made = []
    monkeypatch.setattr(
        fit_commands, "_run", lambda config, path, changes, voice: made.append(config)
    )
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
    assert default.fit.covariance == ["spherical", "diag", "tied", "full"]
    assert default.fit.criterion == "bic"
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
