"""The study "stream" says how fast each pass is, and refuses what it cannot fit."""

import json

import numpy as np
import pytest

import jgmm
from jgmm._core.errors import UserError
from jgmm.streaming.prefetch import Timings
from jgmm.streaming.reader import PassProgress
from jgmm.workbench.config.models import from_table
from jgmm.workbench.readers.streams import FileSource
from jgmm.workbench.runs.runner import run_config
from jgmm.workbench.studies.stream import Clock, call_all, progress_bar


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(30, 2)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def passes():
    """Two reports of the pass before the first step, and two of that step."""
    for step, n_rows in ((-1, 10), (-1, 30), (1, 10), (1, 30)):
        yield PassProgress(step, 5, n_rows, -12.5, Timings(1.0, 2.0, 3.0))


def test_passes_are_shown_and_timed(capsys):
    clock = Clock()
    with progress_bar(FileSource("data.npy"), True, 5) as show:
        for each in passes():
            call_all(show, clock)(each)
    assert "first pass" in capsys.readouterr().err
    first, second = clock.table()
    assert (first["pass"], second["pass"]) == ("first pass", 1)
    assert second["rows"] == 30
    assert second["seconds"] == 5.0  # reading runs at the same time
    assert second["rows_per_second"] == 6.0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"data": None}, r"needs a table \[data\]"),
        ({"data": {"source": "data.npy", "label": "x1"}}, "without label"),
        ({"fit": {"n_components": [1, 2]}}, "fits one mixture: give one"),
        ({"data": {"source": "data.npy", "known": "x1"}}, "without label and known"),
        ({"fit": {"n_components": 1, "covariance": "all"}}, "fits one mixture: give one"),
        ({"fit": {"n_components": 1, "race": 5}}, r"fit\.race.*does not take it"),
        ({"fit": {"n_components": 1, "noise": "box"}}, r"fit\.noise.*does not take it"),
        ({"fit": {"n_components": 1, "criterion": "aic"}}, r"fit\.criterion.*does not take it"),
        ({"fit": {"n_components": 1, "n_folds": 3}}, r"fit\.n_folds.*does not take it"),
        ({"settings": {"online": {}, "coreset": True}}, r"coreset.*does not go with"),
        (
            {"settings": {"online": {}}, "fit": {"n_components": 1, "floor": 0.1}},
            r"fit\.floor.*does not take it",
        ),
    ],
)
def test_what_it_cannot_fit_is_refused(place, change, text):
    table = {"study": "stream", "data": {"source": "data.npy"}, "fit": {"n_components": 1}}
    table = {key: value for key, value in (table | change).items() if value is not None}
    with pytest.raises(UserError, match=text):
        run_config(from_table(table))
    assert [entry.name for entry in place.iterdir()] == ["data.npy"]


def test_online_em_is_that_of_the_library(place):
    """From one start of one component, so that there is one answer."""
    folder = run_config(
        from_table(
            {
                "study": "stream",
                "data": {"source": "data.npy"},
                "fit": {"n_components": 1, "n_restarts": 1, "init": "points"},
                "settings": {"online": {"batch": 30, "full_steps": 2}},
            }
        )
    )
    x = np.load("data.npy")
    mixture = jgmm.load(folder / "mixture.safetensors")
    np.testing.assert_allclose(mixture.means[0], x.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mixture.covariances[0], np.cov(x.T, bias=True), rtol=1e-9)
    assert json.loads((folder / "metrics.json").read_text())["rows"] == 30
    assert not (folder / "tables").exists()
