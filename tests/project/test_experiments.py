"""Every config is valid, and every study, made small, finds what its docstring says it finds."""

import csv
import importlib
import json
import math
import pathlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgmm
from experiments import _climbing, _shared, model_table
from experiments.trust import coverage
from jgmm._core import errors
from jgmm.workbench.config.checking import validate
from jgmm.workbench.config.models import load
from jgmm.workbench.runs import runner
from jgmm.workbench.studies import registry

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
STUDIES = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("[!_]*.py")
    if not path.stem.startswith("benchmark")
)


def run(name, tmp_path, *overrides):
    """Run a config into a temporary folder; return its metrics and its tables."""
    folder = runner.run_config(
        ROOT / "configs" / f"{name}.toml", [f"output={tmp_path}", *overrides], progress=False
    )
    assert (folder / "report.html").stat().st_size > 10_000
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    tables = {}
    for path in (folder / "tables").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            tables[path.stem] = list(csv.DictReader(file))
    return metrics, tables


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_valid_and_says_how_to_run_it(path):
    checked = load(path)
    study = registry.find_study(checked.study, [ROOT])
    validate(study.Settings, checked.settings, prefix="settings")
    top = path.read_text(encoding="utf-8").partition("study =")[0]
    assert all(line.startswith("#") for line in top.splitlines() if line)
    assert f"jgmm run configs/{path.name}" in top


@pytest.mark.parametrize("name", STUDIES)
def test_study_says_how_to_run_it_and_has_a_config(name):
    assert ROOT / "configs" / f"{name}.toml" in CONFIGS
    module = importlib.import_module(f"experiments.{name}")
    assert f"jgmm run configs/{name}.toml" in module.__doc__


def test_faithful_has_two_components(tmp_path):
    metrics, _ = run(
        "faithful", tmp_path, "fit.n_components=2", "fit.n_restarts=4", "fit.init=points"
    )
    assert metrics["n_components"] == 2
    # The maximum is known to as many digits as the default tolerance gives, 272 * 1e-8 a step.
    assert metrics["log_likelihood"] == pytest.approx(-1130.264, abs=1e-3)
    assert metrics["status"] == "converged"


def test_autompg_general_covariances_beat_the_largest_class(tmp_path):
    metrics, tables = run(
        "autompg", tmp_path, "settings.n_folds=5", 'settings.covariance=["general", "spherical"]'
    )
    # A class has 2 means and 3 entries of its covariance, or 1; the 3 priors sum to one.
    assert [int(row["parameters"]) for row in tables["models"]] == [3 * 5 + 2, 3 * 3 + 2]
    assert metrics["share_of_largest_class"] == pytest.approx(245 / 392)
    assert metrics["accuracy"] > metrics["share_of_largest_class"]


def test_longer_races_lose_less_and_cost_more(tmp_path):
    metrics, tables = run(
        "racing", tmp_path, "settings.seeds=2", "settings.rounds=[3,50]", "fit.n_restarts=32"
    )
    short, long = (metrics[f"race {steps}: times less work"] for steps in (3, 50))
    assert short > long > 1.5
    assert metrics["race 50: share right"] >= metrics["race 3: share right"]
    assert all(float(row["worst_loss"]) > -1e-3 for row in tables["races"])  # best of all starts


def test_the_table_of_models_is_complete_and_respects_nesting(tmp_path):
    models = 'fit.covariance=["VII","EII","tied"]'
    metrics, tables = run(
        "model_table",
        tmp_path,
        models,
        "fit.n_components=[1,2,3]",
        "fit.n_restarts=2",
        "fit.init=points",
    )
    assert metrics["table entries"] == 9
    assert metrics["missing entries"] == metrics["inherited"] == 0
    assert metrics["violations of nesting"] == metrics["violations of growth"] == 0
    assert metrics["chosen by BIC"] == "EEE, 3"
    assert metrics["log-likelihood of the chosen"] == pytest.approx(-1126.316, abs=2e-3)
    assert [line["K"] for line in tables["log_likelihood"]] == ["1", "2", "3"]


def test_violations_of_nesting_are_seen():
    def row(k, covariance, log_likelihood):
        return SimpleNamespace(n_components=k, covariance=covariance, log_likelihood=log_likelihood)

    good = [row(1, "EII", -9.0), row(2, "EII", -8.0)]
    good += [row(1, "full", -7.0), row(2, "full", -6.0)]
    assert model_table.violations(good, 1e-9) == []
    good[3] = row(2, "full", -8.5)
    found = model_table.violations(good, 1e-9)
    assert [(each["by"], each["special_case"], each["lower_by"]) for each in found] == [
        ("model", "EII, 2", 0.5),
        ("components", "full, 1", 1.5),
    ]
    assert model_table.violations(good, 0.5) == []


def test_iris_species_are_found_without_labels(tmp_path):
    metrics, tables = run("iris", tmp_path, "fit.n_restarts=4")
    assert metrics["adjusted_rand_index"] > 0.8
    assert 0 < metrics["doubtful_samples"] < 30
    assert len(tables["assignments"]) == 150


def test_kmeans_fails_where_it_should_and_only_there(tmp_path):
    small = (
        "settings.n_seeds=6",
        "settings.n_samples=300",
        "settings.n_restarts=4",
        'settings.scenarios=["round", "elongated"]',
    )
    metrics, tables = run("kmeans_fails", tmp_path, *small)
    rows = {
        row["scenario"]: {k: float(v) for k, v in row.items() if k != "scenario"}
        for row in tables["adjusted_rand"]
    }
    assert metrics["EM fits that failed"] == 0
    # Where all its assumptions hold k-means is as good, to within what one sample in 300 changes.
    assert abs(rows["round"]["gain"]) < 0.03
    assert rows["elongated"]["k-means"] < 0.2 < 0.8 < rows["elongated"]["mixture"]


def test_recovery_errors_fall_as_one_over_root_n(tmp_path):
    small = ("settings.n_samples=[250, 1000, 2000]", "settings.n_repetitions=12")
    metrics, tables = run("recovery", tmp_path, *small)
    assert metrics["fits that failed"] == 0
    for row in tables["slopes"]:
        slope, low, high = (float(row[key]) for key in ("mean", "low", "high"))
        # About four standard errors: three parameters, and a small study's slope is still biased.
        assert abs(slope + 0.5) < high - low < 0.6
    first, *_, last = tables["errors"]
    assert float(last["means"]) < float(first["means"]) / 2  # in theory a quarter


def test_thousand_starts_counts_what_became_of_them(tmp_path):
    small = ("fit.n_restarts=60", 'settings.starts=["points", "kmeans"]', "precision=float64")
    metrics, tables = run("thousand_starts", tmp_path, *small)
    assert metrics["best log-likelihood"] == pytest.approx(-1114.44, abs=0.01)
    for row in tables["starts"]:
        assert 0 < float(row["at_best"]) < 0.5
        assert float(row["failed"]) < 0.1
        assert 1 < float(row["median_steps"]) < int(row["most_steps"]) < 1000
        found = float(row["at_best"])
        assert (1 - found) ** float(row["starts_needed"]) == pytest.approx(0.01)
        assert float(row["at_best"]) == metrics[f"{row['start']}: share at the best"]
    best = tables["optima"][0]
    assert int(best["points"]) == round(60 * float(tables["starts"][0]["at_best"]))


def test_optimisers_reach_the_same_optimum(tmp_path):
    metrics, tables = run(
        "optimisers",
        tmp_path,
        'settings.problems=["iris spherical"]',
        'settings.methods=["EM + anderson", "L-BFGS"]',
        "settings.n_starts=2",
        "settings.gradient_steps=400",
        "settings.em_steps=400",
    )
    rows = {row["method"].split()[-1]: row for row in tables["methods"]}
    assert list(rows) == ["EM", "anderson", "L-BFGS"]
    for name in ("EM", "anderson"):
        assert float(rows[name]["as_high"]) == 1.0
        assert int(rows[name]["worse"]) == 0
        # 150 densities of some nats are added up: only rounding falls.
        assert float(rows[name]["largest_fall"]) < 1e-10
    assert metrics["EM + anderson: times fewer passes"] > 1
    assert float(rows["L-BFGS"]["near"]) == 1.0
    (passes,) = tables["passes"]
    assert float(passes["EM + anderson"]) < float(passes["EM"])
    # A line search costs passes, too.
    assert float(passes["L-BFGS"]) > float(passes["EM + anderson"])


def test_spikes_are_not_counted_as_optima():
    x = np.random.default_rng(0).normal(size=(50, 2))
    spike = jgmm.make_mixture(
        [0.98, 0.02], np.stack([x.mean(axis=0), x[0]]), np.stack([np.eye(2), 1e-20 * np.eye(2)])
    )
    plain = jgmm.make_mixture([0.5, 0.5], np.zeros((2, 2)), np.stack([np.eye(2)] * 2))
    mixtures = jax.tree.map(lambda *leaves: jnp.stack(leaves), spike, plain)
    ends = jnp.stack([jgmm.log_prob(mixture, x).sum() for mixture in (spike, plain)])
    assert ends[0] > ends[1]  # better than the truth
    ran_out = jnp.full(2, int(jgmm.Status.STEPS_RAN_OUT))
    unused = jnp.zeros(2)
    result = jgmm.FitResult(mixtures, ends, unused, ran_out, unused, unused, unused)
    found = _climbing.valid_ends(result, x)
    assert found.tolist() == [-math.inf, float(ends[1])]


@pytest.mark.parametrize(
    ("name", "override", "complaint"),
    [
        ("kmeans_fails", "data.source=faithful", "draws its own samples"),
        ("recovery", "fit.n_components=3", "draws its own samples"),
        ("thousand_starts", "fit.n_components=[2, 3]", "one n_components"),
        ("thousand_starts", "fit.init=points", "settings.starts"),
        ("thousand_starts", 'settings.starts=["kmean"]', "kmeans"),
        ("optimisers", "fit.ridge=0.1", "draws its own samples"),
        ("optimisers", 'settings.methods=["Adm"]', "Known: EM"),
    ],
)
def test_settings_that_a_study_would_ignore_are_refused(name, override, complaint, tmp_path):
    with pytest.raises(errors.UserError, match=complaint):
        run(name, tmp_path, override)
    assert list(tmp_path.iterdir()) == []


def test_mean_interval_is_students():
    # Four values of mean 1 and standard error 1: t(0.975, 3) = 3.182446.
    found = _shared.mean_interval([1 - 3**0.5] * 2 + [1 + 3**0.5] * 2)
    np.testing.assert_allclose(found, (1, 1 - 3.182446, 1 + 3.182446), rtol=1e-6)


def test_slope_interval_covers_a_known_slope():
    x = np.arange(20.0)
    exact = _shared.slope_interval(x, 3 - 0.5 * x)
    np.testing.assert_allclose(exact, [-0.5] * 3, rtol=1e-6)
    noisy = _shared.slope_interval(x, 3 - 0.5 * x + np.cos(7 * x))
    assert noisy.low < -0.5 < noisy.high


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_aligned_undoes_a_permutation(covariance):
    means = [[0.0, 0.0], [0.5, 0.0], [9.0, 9.0]]
    sizes = jnp.array([1.0, 4.0, 9.0]) if covariance != "tied" else jnp.ones(3)
    truth = jgmm.make_mixture(
        [0.5, 0.3, 0.2], means, sizes[:, None, None] * jnp.eye(2)[None, :, :], covariance
    )
    order = jnp.array([2, 0, 1])
    mixed = jgmm.make_mixture(
        truth.weights[order], truth.means[order], truth.covariances[order], covariance
    )
    for a, b in zip(
        jax.tree.leaves(_shared.aligned(mixed, truth)), jax.tree.leaves(truth), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_what_scale_costs_is_told_for_few_samples_too(tmp_path):
    small = (
        "settings.n_samples=20000",
        "settings.n_components=3",
        'settings.formats=["npy"]',
        "settings.memory_rows=4000",
        "settings.processes=[]",
        "settings.devices=[]",
        "settings.subsamples=[1000]",
        "settings.batches=[1000]",
    )
    metrics, tables = run("scale", tmp_path, *small)
    assert metrics["bytes a process sends a step"] == 2 * 4 * (3 * (2 + 8 + 64) + 1)
    assert 0 < metrics["npy: peak memory, GB"] < 1.5
    # A pass of online EM is worth more than a step of EM, and starts from few rows lose little.
    lost = {row["way"]: float(row["nats_lost_a_sample"]) for row in tables["shortcuts"]}
    assert lost["one pass of online EM, batches of 1000"] < lost["one step of EM"]
    assert abs(lost["start from 1000 rows"]) < 0.01


def test_coverage_counts_intervals_that_hold_the_truth():
    """Of components far apart nearly all is known; 20 data sets tell 95 % from 75 %."""
    row = coverage.measure(8.0, 200, 20)
    names = ("weights", "means", "deviations")
    assert all(0.95 < row[f"observed, {name}"] <= 1 for name in names)
    assert all(0.75 < row[f"coverage, {name}"] <= 1 for name in names)
    assert row["no interval"] == 0
