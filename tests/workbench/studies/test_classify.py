import csv
import json

import numpy as np
import pytest

import jgmm
from jgmm._core.errors import DataError, UserError
from jgmm.workbench.config.models import from_table
from jgmm.workbench.runs.runner import run_config

N = 60


pytestmark = pytest.mark.usefixtures("place")


def write_data(x, labels):
    with open("data.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*(f"c{d}" for d in range(x.shape[1])), "kind"])
        rows.writerows([*row, kind] for row, kind in zip(x.tolist(), labels, strict=True))


def three_clouds(n_features):
    """Clouds thirty standard deviations apart, called by numbers that sort badly as text."""
    k = np.arange(N) % 3
    x = np.random.default_rng(0).normal(size=(N, n_features))
    x[:, 0] += 30.0 * k
    write_data(x, [("2", "10", "9")[i] for i in k])


def study(**settings):
    data = {"source": "data.csv", "label": "kind"}
    settings = {"n_folds": 3, "covariance": ["full", "EII"]} | settings
    return run_config(from_table({"study": "classify", "data": data, "settings": settings}))


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.parametrize(
    ("n_features", "figures"), [(2, {"confusion", "regions"}), (3, {"confusion"})]
)
def test_clear_classes_are_told_apart(n_features, figures):
    three_clouds(n_features)
    folder = study()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["accuracy"] == 1
    assert metrics["standard_error"] == 0
    # Of equally accurate models the one with fewest parameters: 2 priors, 3 D means, 1 variance.
    assert metrics["covariance"] == "EII"
    assert metrics["parameters"] == 2 + 3 * n_features + 1
    assert metrics["share_of_largest_class"] == pytest.approx(1 / 3, rel=1e-12)
    assert {file.stem for file in (folder / "plots").iterdir()} == figures
    models = rows_of(folder / "tables" / "models.csv")
    assert [row["model"] for row in models] == ["full", "EII"]
    full = 2 + 3 * n_features + 3 * n_features * (n_features + 1) // 2
    assert int(models[0]["parameters"]) == full
    for row in rows_of(folder / "tables" / "confusion.csv"):
        name = row.pop("true class")
        assert {key: int(count) for key, count in row.items()} == {
            f"as {other}": N // 3 if other == name else 0 for other in ("2", "9", "10")
        }
    assert len(list(folder.glob("class_*.safetensors"))) == 3


def test_predictions_and_posteriors_stand_under_the_right_names():
    three_clouds(2)
    rows = rows_of(study() / "tables" / "predictions.csv")
    assert len(rows) == N
    for row in rows:
        assert row["predicted"] == row["label"]
        assert float(row[f"posterior {row['label']}"]) > 0.99


def test_classes_that_overlap_are_judged_on_samples_not_seen():
    # Labels that have nothing to do with x: a model that knew the samples would look too good.
    rng = np.random.default_rng(1)
    names = np.array(["true class", "b"])  # one of which is a column of the table of confusions
    write_data(rng.normal(size=(N, 2)), names[rng.permutation(np.arange(N) % 2)].tolist())
    folder = study(covariance="full", n_components=2, n_restarts=2, ridge=1e-3)
    row = rows_of(folder / "tables" / "models.csv")[0]
    # Chance is 1/2 with a standard deviation of 1 / (2 sqrt(60)) = 0.065: four of them.
    assert abs(float(row["accuracy"]) - 0.5) < 0.26
    assert float(row["training_accuracy"]) > float(row["accuracy"])
    counts = [
        int(count)
        for line in rows_of(folder / "tables" / "confusion.csv")
        for key, count in line.items()
        if key.startswith("as ")
    ]
    assert sum(counts) == N


def test_a_model_that_fails_is_said_to_and_the_others_go_on():
    three_clouds(2)
    x = np.loadtxt("data.csv", delimiter=",", skiprows=1, usecols=(0, 1))
    write_data(np.column_stack([x, x[:, 0]]), [("a", "b", "c")[i % 3] for i in range(N)])
    folder = study(covariance=["full", "spherical"])
    models = rows_of(folder / "tables" / "models.csv")
    assert {row["model"]: row["status"] for row in models} == {
        "full": "failed",
        "spherical": "fitted",
    }
    assert "full failed: " in (folder / "report.html").read_text()


def test_what_is_missing_is_asked_for(place):
    three_clouds(2)
    table = {"study": "classify"}
    with pytest.raises(UserError, match="learns from labelled samples"):
        run_config(from_table(table))
    with pytest.raises(UserError, match="learns from labelled samples"):
        run_config(from_table(table | {"data": {"source": "data.csv"}}))
    data = {"source": "data.csv", "label": "kind"}
    with pytest.raises(UserError, match=r"\[settings\], not in \[fit\]"):
        run_config(from_table(table | {"data": data, "fit": {"ridge": 1.0}}))
    with pytest.raises(UserError, match=r'"data\.known" is for mixtures'):
        run_config(from_table(table | {"data": {"source": "data.csv", "known": "kind"}}))
    with pytest.raises(UserError, match=r'"settings\.covariance": unknown'):
        study(covariance="ful")
    write_data(np.zeros((N, 2)), ["one"] * N)
    with pytest.raises(DataError, match="one class only"):
        study()
    assert [entry.name for entry in place.iterdir()] == ["data.csv"]


def test_options_of_the_classifier_have_keys():
    """Given priors are those of the classifier, and classes may have their own numbers."""
    three_clouds(1)
    priors = [0.25, 0.25, 0.5]
    folder = study(
        covariance="all",
        priors=priors,
        equal_weights=True,
        n_components=[1, 2, 1],
        n_restarts=2,
        prior="conjugate",
    )
    assert [row["model"] for row in rows_of(folder / "tables" / "models.csv")] == ["E", "V"]
    assert [float(row["prior"]) for row in rows_of(folder / "tables" / "priors.csv")] == priors
    second = jgmm.load(next(folder.glob("class_1_*")))
    assert second.weights.tolist() == [0.5, 0.5]
    shared = study(covariance="full", shared=True)
    parameters = [int(row["parameters"]) for row in rows_of(shared / "tables" / "models.csv")]
    assert parameters == [2 + 3 + 1]
