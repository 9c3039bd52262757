import csv
import json
import sys
import textwrap
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgmm
from jgmm._core.errors import UserError
from jgmm.workbench.config import models
from jgmm.workbench.runs.runner import run_config

STUDY = """
    import jax
    import jax.numpy as jnp
    import jgmm
    from jgmm.workbench.config import Strict
    from jgmm import plot

    class Settings(Strict):
        n_samples: int = 40
        shift: float = 4.0
        fail: str = ""

    def run(study):
        x = jax.random.normal(study.key, (study.settings.n_samples, 2))
        x = x.at[::2].add(study.settings.shift) if study.data is None else study.data.x
        with study.progress(study.config.fit.max_steps, "fitting") as progress:
            result = jgmm.fit(study.key, x, 2, n_restarts=3, progress=progress)
        study.metric("log_likelihood", result.log_likelihood)
        study.metric("precision", str(x.dtype))
        study.note("Two <clouds>.")
        study.table("counts", [{"k": 0, "n": jnp.asarray(3)}, {"k": 1, "n": 5}], "How many.")
        study.mixture("two", result.mixture, ["a", "b"])
        study.restarts(result)
        if study.settings.fail == "interrupt":
            raise KeyboardInterrupt
        if study.settings.fail == "error":
            raise RuntimeError("in the study")
        figure, (ax,) = plot.new_figure()
        ax.plot([1, 2], [3, 4])
        study.figure("line", figure, "A line.")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a study of its own, as the current folder."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "tiny_study.py").write_text(textwrap.dedent(STUDY))
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny.toml").write_text('study = "lab.tiny_study"\nseed = 3\n')
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name == "lab" or name.startswith("lab.")]:
        del sys.modules[name]


def test_a_run_leaves_everything_it_promises(place):
    folder = run_config("configs/tiny.toml", ["fit.max_steps=50"])
    assert folder.parent.name == "runs"
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert files == {
        "config.toml",
        "environment.json",
        "notes.txt",
        "metrics.json",
        "report.html",
        "restarts.csv",
        "two.safetensors",
        "tables/counts.csv",
        "plots/line.png",
    }
    metrics = json.loads((folder / "metrics.json").read_text())
    assert np.isfinite(metrics["log_likelihood"])
    restarts = list(csv.DictReader((folder / "restarts.csv").read_text().splitlines()))
    assert [row["restart"] for row in restarts] == ["0", "1", "2"]
    best = max(float(row["log_likelihood"]) for row in restarts if row["status"] == "converged")
    assert best == metrics["log_likelihood"]
    assert (folder / "plots" / "line.png").read_bytes().startswith(b"\x89PNG")
    assert jgmm.load(folder / "two.safetensors").n_components == 2
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["jax"] == jax.__version__
    assert environment["seed"] == 3
    report = (folder / "report.html").read_text()
    assert "Two &lt;clouds&gt;." in report
    assert "How many." in report


def test_a_run_can_be_repeated_from_what_it_left(place):
    first = run_config("configs/tiny.toml", ["settings.shift=2"])
    second = run_config(first / "config.toml")
    assert first != second
    for name in ("metrics.json", "config.toml", "restarts.csv", "two.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert tomllib.loads((first / "config.toml").read_text())["settings"]["shift"] == 2.0


def test_the_precision_is_that_of_the_config_during_the_run_only(place):
    for precision in ("float32", "float64"):
        folder = run_config("configs/tiny.toml", [f"precision={precision}"])
        assert json.loads((folder / "metrics.json").read_text())["precision"] == precision
        assert jgmm.load(folder / "two.safetensors").means.dtype == precision
        assert jnp.zeros(()).dtype == jnp.float64  # as conftest.py sets it


def test_data_named_in_the_config_reach_the_study(place):
    np.save("points.npy", np.random.default_rng(0).normal(size=(40, 2)))
    folder = run_config("configs/tiny.toml", ["data.source=points.npy"])
    environment = json.loads((folder / "environment.json").read_text())
    assert "points.npy" in environment["data"]
    assert environment["precision"] == "float64"


def test_a_study_is_found_beside_the_config_from_anywhere(place, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    before = list(sys.path)
    folder = run_config(place / "configs" / "tiny.toml")
    assert folder.resolve().parent == elsewhere / "runs"
    assert sys.path == before


def test_a_config_made_in_code_runs(place):
    made = models.from_table({"study": "lab.tiny_study", "name": "made", "output": "out"})
    folder = run_config(made, ["settings.shift=3"])
    assert folder.parent.name == "out"
    assert folder.name.startswith("made-")


@pytest.mark.parametrize(
    ("how", "error"), [("interrupt", KeyboardInterrupt), ("error", RuntimeError)]
)
def test_a_run_that_ends_early_leaves_nothing(place, how, error):
    with pytest.raises(error):
        run_config("configs/tiny.toml", [f"settings.fail={how}"])
    assert sorted(entry.name for entry in place.iterdir()) == ["configs", "lab"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("settings.n_sample=3", 'unknown key "settings.n_sample"; did you mean "settings.n_samp'),
        ("settings.shift=far", '"settings.shift": must be a number; found "far"'),
        ("study=mixtur", 'no study "mixtur"; did you mean "mixture"?'),
        ("study=lab.tiny_stud", 'no study "lab.tiny_stud"'),
        ("study=lab/tiny_study.py", 'for a file, write "lab.tiny_study"'),
        ('study=""', '"study": must have at least 1 character'),
        ("study=.", 'study = "." is not a module name'),
        ("study=/", 'study = "/" is not a module name'),
        ("study=/.py", 'study = "/.py" is not a module name'),
        ("data.source=~nobody_of_that_name/x.csv", "no such file"),
        ("study=json", 'the module "json" is not a study'),
        ("data.source=none.csv", "none.csv"),
        ("output=configs/tiny.toml", "a file of that name is in the way"),
    ],
)
def test_a_problem_is_found_before_anything_is_left(place, change, expected):
    with pytest.raises(UserError) as caught:
        run_config("configs/tiny.toml", [change])
    assert expected in str(caught.value)
    assert sorted(entry.name for entry in place.iterdir()) == ["configs", "lab"]


def test_the_home_folder_is_known_in_the_output(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place / "home"))
    folder = run_config("configs/tiny.toml", ["output=~/runs", "fit.max_steps=2"])
    assert folder.parent == place / "home" / "runs"
