"""`jgmm show`, `compare`, `datasets` and `schema` show what is there."""

import json
import re

import numpy as np
import pytest
from workbench.cli.commands import call

import jgmm
from jgmm.mixture.mixture import make_mixture


def test_show_prints_a_run_and_a_mixture(study, place):
    folder = call("run", study, "--quiet").stdout.strip()
    shown = call("show", folder).stdout
    assert "answer" in shown
    assert "report.html" in shown
    mixture = make_mixture([0.25, 0.75], [[1.5], [2.5]], [4.0, 9.0], "spherical")
    jgmm.save("m.safetensors", mixture, ["height"])
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
