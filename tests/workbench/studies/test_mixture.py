import csv
import json

import jax
import numpy as np
import pytest

import jgmm
from jgmm._core.errors import UserError
from jgmm._saving.save import read
from jgmm.workbench.config import models
from jgmm.workbench.runs.runner import run_config

N = 40


pytestmark = pytest.mark.usefixtures("place")


def write_data(path, n_features):
    """Two clouds twenty standard deviations apart, with their names."""
    labels = np.arange(N) % 2
    x = np.random.default_rng(0).normal(size=(N, n_features)) + 20.0 * labels[:, None]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*(f"c{d}" for d in range(n_features)), "cloud"])
        rows.writerows(
            [*row, ("low", "high")[k]] for row, k in zip(x.tolist(), labels, strict=True)
        )


def study(path, components, label="cloud", settings=None, **fit):
    table = {
        "study": "mixture",
        "settings": settings or {},
        "data": {"source": path.name} | ({"label": label} if label else {}),
        "fit": {
            "n_components": components,
            "covariance": "spherical",
            "n_restarts": 2,
            "init": "kmeans++",
        }
        | fit,
    }
    return run_config(models.from_table(table))


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.parametrize(
    ("n_features", "figures"),
    [
        (1, {"criterion", "density", "components"}),
        (2, {"criterion", "density", "uncertainty", "components"}),
        (5, {"criterion", "pairs", "uncertainty", "components"}),
    ],
)
def test_two_clouds_are_found_and_shown(place, n_features, figures):
    path = place / "clouds.csv"
    write_data(path, n_features)
    folder = study(path, [1, 2])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["n_components"], metrics["covariance"]) == (2, "spherical")
    assert metrics["status"] == "converged"
    assert metrics["adjusted_rand_index"] == 1
    assert metrics["doubtful_samples"] == 0
    assert {file.stem for file in (folder / "plots").iterdir()} == figures
    summary = rows_of(folder / "tables" / "summary.csv")
    assert [row["K"] for row in summary] == ["1", "2"]
    assert [row["chosen"] for row in summary] == ["", "yes"]
    assert float(summary[1]["bic"]) == metrics["bic"]
    # BIC by its definition: K - 1 weights, K D means and K variances.
    parameters = 1 + 2 * n_features + 2
    expected = -2 * metrics["log_likelihood"] + parameters * np.log(N)
    assert metrics["bic"] == pytest.approx(expected, rel=1e-12)  # the same sum in another order
    confusion = rows_of(folder / "tables" / "confusion.csv")
    counts = np.array([[int(row["component 0"]), int(row["component 1"])] for row in confusion])
    assert sorted(counts.ravel().tolist()) == [0, 0, N // 2, N // 2]
    names = [f"c{d}" for d in range(n_features)]
    assert read(folder / "mixture.safetensors").columns == names


def test_assignments_are_soft_and_hard(place):
    write_data(place / "clouds.csv", 2)
    folder = study(place / "clouds.csv", 2)
    rows = rows_of(folder / "tables" / "assignments.csv")
    assert len(rows) == N
    for row in rows:
        chances = [float(row["p0"]), float(row["p1"])]
        assert sum(chances) == pytest.approx(1, abs=1e-12)  # a few roundings
        assert int(row["component"]) == int(np.argmax(chances))
    assert {row["label"] for row in rows} == {"low", "high"}
    assert "assignments" not in (folder / "report.html").read_text()
    assert {file.stem for file in (folder / "plots").iterdir()} == {"density", "uncertainty"}


def test_doubtful_samples_are_counted(place):
    x = np.random.default_rng(1).normal(size=(N, 2))  # one cloud, so that two halves overlap
    np.save(place / "cloud.npy", x)
    folder = study(place / "cloud.npy", 2, label=None, max_steps=3)
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = rows_of(folder / "tables" / "assignments.csv")
    doubtful = [max(float(row["p0"]), float(row["p1"])) < 0.9 for row in rows]
    assert metrics["doubtful_samples"] == sum(doubtful) > 0
    assert "adjusted_rand_index" not in metrics
    assert metrics["status"] == "steps_ran_out"
    report = (folder / "report.html").read_text()
    assert "The steps ran out before the tolerance was met" in report
    assert not (folder / "tables" / "confusion.csv").exists()


def test_standard_errors_are_those_of_two_clouds(place):
    """Of a mean σ/√Nₖ; the refits are 50, so that it is known to 1/√100, four of those."""
    write_data(place / "clouds.csv", 1)
    folder = study(place / "clouds.csv", 2, settings={"n_bootstrap": 50})
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["refits_that_failed"] == 0
    rows = rows_of(folder / "tables" / "uncertainty.csv")
    kinds = ["weight"] * 2 + ["mean"] * 2 + ["variance"] * 2
    assert [row["parameter"] for row in rows] == kinds
    assert [row["column"] for row in rows] == ["", "", *["c0"] * 4]
    for mean, variance in zip(rows[2:4], rows[4:], strict=True):
        expected = (float(variance["estimate"]) / (N / 2)) ** 0.5
        assert float(mean["standard_error"]) == pytest.approx(expected, rel=4 / 100**0.5)
        assert float(mean["low"]) < float(mean["estimate"]) < float(mean["high"])
    assert (folder / "plots" / "intervals.png").exists()
    assert "weighted bootstrap, 50 replicates" in (folder / "report.html").read_text()


def test_one_refit_is_refused(place):
    write_data(place / "clouds.csv", 1)
    with pytest.raises(UserError, match="must be 0, or at least 2"):
        study(place / "clouds.csv", 2, settings={"n_bootstrap": 1})


def test_the_reader_is_warned_when_more_components_may_be_better(place):
    write_data(place / "clouds.csv", 2)
    report = (study(place / "clouds.csv", [1, 2]) / "report.html").read_text()
    assert "is the largest that was tried" in report


def test_the_criterion_is_the_one_asked_for(place):
    write_data(place / "clouds.csv", 2)
    folder = study(place / "clouds.csv", [1, 2], criterion="icl")
    metrics = json.loads((folder / "metrics.json").read_text())
    summary = rows_of(folder / "tables" / "summary.csv")
    assert metrics["icl"] == min(float(row["icl"]) for row in summary)


def test_weights_count_as_repetitions(place):
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(N, 1)), rng.integers(1, 4, N)
    table = "x,w\n" + "".join(f"{v!r},{k}\n" for v, k in zip(x[:, 0].tolist(), w, strict=True))
    (place / "weighted.csv").write_text(table)
    np.save(place / "repeated.npy", np.repeat(x, w, axis=0))
    fit = {"n_components": 1, "n_restarts": 1, "covariance": "spherical", "init": "points"}
    found = []
    for data in ({"source": "weighted.csv", "weight": "w"}, {"source": "repeated.npy"}):
        folder = run_config(models.from_table({"data": data, "fit": fit}))
        found.append(json.loads((folder / "metrics.json").read_text()))
    assert found[0]["bic"] == pytest.approx(found[1]["bic"], rel=1e-12)  # sums in another order


def test_missing_data_are_asked_for(place):
    with pytest.raises(UserError, match=r"add a table \[data\]"):
        run_config(models.from_table({}))
    assert list(place.iterdir()) == []


def test_all_models_of_one_column_are_two(place):
    write_data(place / "clouds.csv", 1)
    folder = study(place / "clouds.csv", 2, covariance="all")
    assert [row["model"] for row in rows_of(folder / "tables" / "summary.csv")] == ["E", "V"]


def test_known_components_and_equal_weights_reach_the_fit(place):
    """Halves of one cloud that are known: the fit does not find them by itself."""
    x = np.random.default_rng(3).normal(size=N)
    known = np.where(np.arange(N) < N - 4, np.arange(N) % 2, -1)
    rows = "".join(f"{v!r},{k}\n" for v, k in zip(x.tolist(), known, strict=True))
    (place / "known.csv").write_text("x,z\n" + rows)
    changes = {"source": "known.csv", "known": "z"}
    fit = {"n_components": 2, "covariance": "spherical", "equal_weights": True, "n_restarts": 1}
    folder = run_config(models.from_table({"data": changes, "fit": fit}))
    mixture = jgmm.load(folder / "mixture.safetensors")
    assert mixture.weights.tolist() == [0.5, 0.5]
    expected = jgmm.fit(
        jax.random.key(0), x[:, None], 2, covariance="spherical", labels=known, equal_weights=True
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["log_likelihood"] == pytest.approx(float(expected.log_likelihood), rel=1e-6)
    with pytest.raises(UserError, match=r'nor with "data\.known"'):
        run_config(models.from_table({"data": changes, "fit": fit, "settings": {"n_bootstrap": 2}}))
