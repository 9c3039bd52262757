"""The study "mixture" with noise: one fit, whose numbers are those of the library."""

import csv
import json

import jax
import numpy as np
import pytest

import jgmm
from jgmm._core.errors import UserError
from jgmm.workbench.config.models import Fit, from_table
from jgmm.workbench.runs.runner import run_config
from jgmm.workbench.studies.noise import check_noise

N, OUTLIERS = 40, 4
FIT = {"n_components": 1, "covariance": "full", "accelerate": "none", "n_restarts": 2}


@pytest.fixture
def samples(place):
    x = np.random.default_rng(0).normal(size=(N, 2))
    x[:OUTLIERS] = [[30.0, 30.0], [-30.0, 30.0], [30.0, -30.0], [-30.0, -30.0]]
    np.save(place / "data.npy", x)
    return x


def test_noise_takes_the_outliers(samples, place):
    config = {"data": {"source": "data.npy"}, "fit": FIT | {"noise": "box"}}
    folder = run_config(from_table(config))
    metrics = json.loads((folder / "metrics.json").read_text())
    result = jgmm.fit(jax.random.key(0), samples, 1, n_restarts=2, noise="box")
    ell = float(result.log_likelihood)
    assert metrics["log_likelihood"] == ell
    assert metrics["noise_weight"] == pytest.approx(float(result.noise.weight), rel=1e-12)
    # Two means, three covariances, and the weight of the noise.
    assert metrics["bic"] == pytest.approx(-2 * ell + 6 * np.log(N), rel=1e-12)
    text = (folder / "tables" / "assignments.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    noise = np.array([float(row["noise"]) for row in rows])
    assert noise[:OUTLIERS].min() > 0.99 > 0.5 > noise[OUTLIERS:].max()
    for row in rows:
        assert float(row["p0"]) + float(row["noise"]) == pytest.approx(1, abs=1e-12)
    (summary,) = csv.DictReader((folder / "tables" / "summary.csv").read_text().splitlines())
    share = np.stack([noise, 1 - noise])
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum()
    assert float(summary["icl"]) == pytest.approx(metrics["bic"] + 2 * entropy, rel=1e-12)
    assert (summary["valid"], summary["agree"]) == ("2", "2")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"n_components": [1, 2]}, "one number of components and one covariance model"),
        ({"covariance": ["full", "tied"]}, "one number of components and one covariance model"),
        ({"accelerate": "anderson"}, 'write accelerate = "none"'),
        ({"criterion": "held_out"}, "no held-out log-likelihood"),
    ],
)
def test_what_noise_does_not_go_with_is_refused(change, text):
    fit = from_table({"fit": FIT | {"noise": 3.0} | change}).fit
    assert isinstance(fit, Fit)
    with pytest.raises(UserError, match=text):
        check_noise(fit, fit.covariance)


def test_no_bootstrap_of_a_fit_with_noise(samples):
    config = {"data": {"source": "data.npy"}, "fit": FIT | {"noise": "box"}}
    with pytest.raises(UserError, match="goes neither with"):
        run_config(from_table(config | {"settings": {"n_bootstrap": 2}}))
