"""`jgmm run`, `fit` and `select` read the same config, and print what was asked for."""

import json
import os
import pathlib
import re
import stat
import sys
import textwrap

import numpy as np
import pandas
import pydantic
import pytest
from workbench.cli.commands import STUDY, call, jgmm

from jgmm.workbench.cli import fit_commands
from jgmm.workbench.config import models
from jgmm.workbench.runs.runner import run_config


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


def test_a_missing_config_is_named():
    result = call("run", "none.toml")
    assert (result.exit_code, result.stderr) == (2, "error: none.toml: no such config file\n")


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


@pytest.fixture
def count(monkeypatch):
    """How often a config file is read, a config is validated, and a study's own table is."""
    counts = dict.fromkeys(["read", "config", "settings"], 0)
    read, check = models.read_toml, pydantic.BaseModel.model_validate_json.__func__

    def counted_read(path):
        counts["read"] += 1
        return read(path)

    def counted_check(model, *arguments, **options):
        counts["config" if model is models.Config else "settings"] += 1
        return check(model, *arguments, **options)

    monkeypatch.setattr(models, "read_toml", counted_read)
    monkeypatch.setattr(pydantic.BaseModel, "model_validate_json", classmethod(counted_check))
    return counts


def test_a_config_is_read_once_and_validated_once(study, count):
    assert call("run", study, "--set", "seed=3", "--output", "out", "--quiet").exit_code == 0
    assert count == {"read": 1, "config": 1, "settings": 1}


def test_the_config_of_options_is_validated_once(place, count):
    np.save("data.npy", np.random.default_rng(0).normal(size=(20, 1)))
    options = ["data.npy", "--components", "1", "--covariance", "full", "--restarts", "1"]
    assert call("select", *options, "--json").exit_code == 0
    assert count == {"read": 0, "config": 1, "settings": 1}
    assert call("fit", *options, "--quiet").exit_code == 0
    assert count == {"read": 0, "config": 2, "settings": 2}


def test_a_run_from_python_reads_its_config_once(study, count):
    run_config(study, ["seed=3"])
    assert count == {"read": 1, "config": 1, "settings": 1}
    run_config(models.load(study), path=study)
    assert count == {"read": 2, "config": 2, "settings": 2}


def test_a_study_is_found_near_its_config_from_anywhere(place, monkeypatch):
    """Although the config is read only once, by the command line."""
    (place / "lab").mkdir()
    (place / "lab" / "near_study.py").write_text(textwrap.dedent(STUDY))
    (place / "configs").mkdir()
    (place / "configs" / "near.toml").write_text('study = "lab.near_study"\n')
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    assert call("run", str(place / "configs" / "near.toml"), "--quiet").exit_code == 0
    sys.modules.pop("lab.near_study", None)
    sys.modules.pop("lab", None)


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
    assert "read as: 1 column left out as text: who" in shown
    shown = call("select", *options).stdout
    assert re.search(r"spherical +\d+\.\d +\d+\.\d\*", shown)


def test_fit_is_the_study_mixture_without_a_config(monkeypatch):
    made = []
    monkeypatch.setattr(fit_commands, "_run", lambda config, verbosity: made.append(config))
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
