"""The context of a study keeps results apart, in one folder, and shows them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgmm._saving.save import read
from jgmm.workbench.config import models
from jgmm.workbench.studies import context


@pytest.fixture
def study(tmp_path):
    return context.StudyContext(models.from_table({}), None, jax.random.key(0), None, tmp_path)


def test_a_metric_is_one_number_or_text_given_once(study):
    study.metric("a", jnp.asarray(2.5))
    study.metric("b", "text")
    assert study.metrics == {"a": 2.5, "b": "text"}
    with pytest.raises(ValueError, match="given already"):
        study.metric("a", 3)
    with pytest.raises(TypeError, match="one number or text"):
        study.metric("c", jnp.arange(2))
    with pytest.raises(TypeError, match="one number or text"):
        study.metric("d", None)


def test_columns_are_named_after_the_data(study):
    from jgmm.mixture.mixture import make_mixture
    from jgmm.workbench.readers import datasets

    study.data = datasets.load("faithful")
    study.mixture("two", make_mixture([1.0], [[1.0, 2.0]], [1.0], "spherical"))
    study.mixture("one", make_mixture([1.0], [[1.0]], [1.0], "spherical"))
    assert [table.columns for table in study.mixtures] == [["eruptions", "waiting"], ["x0"]]


def test_a_large_estimate_of_memory_is_told(study, monkeypatch, capsys):
    from jgmm.workbench.runs import memory

    problem = memory.Problem(1000, 2, 3, ("full",), 4, 100, 3, 8)
    study.check_memory(problem)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(memory.VARIABLE, "0.5")
    study.check_memory(problem)
    assert "jgmm: about 0.3" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b"])
def test_results_stay_in_the_run_folder(study, name):
    with pytest.raises(ValueError, match="cannot name a file"):
        study.table(name, [{"a": 1}])


def test_no_result_replaces_another(study):
    study.table("t", [{"a": 1}])
    with pytest.raises(ValueError, match="written already"):
        study.table("t", [{"a": 2}])


def test_many_features_are_left_to_the_file(study):
    from jgmm.mixture.mixture import make_mixture

    d = context.MAX_TABLE_FEATURES + 1
    study.mixture("wide", make_mixture([1.0], np.zeros((1, d)), [1.0], "spherical"))
    assert study.mixtures == []
    assert "wide.safetensors" in study.notes[0]
    assert read(study.path / "wide.safetensors").columns[-1] == f"x{d - 1}"


def test_progress_shows_steps_and_log_likelihood(study, capsys):
    from jgmm.fitting.restarts import Progress

    study.show_progress = True
    with study.progress(100, "fitting") as show:
        show(Progress(step=50, max_steps=100, log_likelihood=-12.5, n_running=2, n_restarts=4))
        show(Progress(step=100, max_steps=100, log_likelihood=-12.25, n_running=0, n_restarts=4))
    shown = capsys.readouterr().err
    assert "fitting" in shown
    study.show_progress = False
    with study.progress(100, "fitting") as show:
        show(Progress(step=50, max_steps=100, log_likelihood=-12.5, n_running=2, n_restarts=4))
    assert capsys.readouterr().err == ""
