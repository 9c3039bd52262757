import json
import math
import tomllib

import pytest
from workbench.config.problems import problem

from jgmm.covariance.models import MODELS
from jgmm.workbench.config import models
from jgmm.workbench.config.toml import to_toml


def test_defaults_fill_an_empty_config():
    found = models.from_table({})
    assert found.study == "mixture"
    assert found.fit.n_components == list(range(1, 10))
    assert found.data is None


def test_single_values_are_lists_of_one():
    found = models.from_table({"fit": {"n_components": 3, "covariance": "tied"}})
    assert found.fit.n_components == [3]
    assert found.fit.covariance == ["tied"]


def test_all_stands_for_every_covariance_model():
    found = models.from_table({"fit": {"covariance": "all"}})
    assert len(found.fit.covariance) == len(set(found.fit.covariance)) == len(MODELS)


def test_names_of_files_are_cut_between_characters():
    assert models.name_from_text("a" + "日" * 100) == "a" + "日" * 33


def test_overrides_are_read_as_toml_or_as_text():
    changes = ["fit.n_components=[2, 3]", "data.source=faithful", 'name="b"', "fit.tol=1e-3"]
    found = models.from_table({"name": "a"}, changes)
    assert found.fit.n_components == [2, 3]
    assert found.data is not None
    assert found.data.source == "faithful"
    assert found.name == "b"
    assert found.fit.tol == 1e-3


def test_an_override_leaves_its_neighbours_and_the_callers_table_alone():
    table = {"fit": {"n_components": 2, "n_restarts": 5}}
    found = models.from_table(table, ["fit.n_components=4"])
    assert (found.fit.n_components, found.fit.n_restarts) == ([4], 5)
    assert table == {"fit": {"n_components": 2, "n_restarts": 5}}


@pytest.mark.parametrize("text", ["seed", "=3", "fit.=3", "", "a..b=1"])
def test_an_override_that_is_no_assignment_is_refused(text):
    assert "expected KEY=VALUE" in problem({}, [text])


def test_an_override_of_an_unknown_key_is_refused_like_one_in_the_file():
    assert 'unknown key "fit.n_restart"; did you mean "fit.n_restarts"?' in problem(
        {}, ["fit.n_restart=3"]
    )
    assert '"seed": must be a whole number; found a table' in problem({}, ["seed.x=3"])


def test_a_file_gives_the_run_its_name(tmp_path):
    path = tmp_path / "old faithful.toml"
    path.write_text("seed = 3\n")
    assert models.load(path).name == "old-faithful"
    path.write_text('name = "x"\n')
    assert models.load(path).name == "x"


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        models.from_table({}).seed = 3  # type: ignore[misc]


def test_the_schema_is_json_and_forbids_unknown_keys():
    schema = json.loads(json.dumps(models.schema({"lab": models.Strict})))
    assert schema["additionalProperties"] is False
    (case,) = schema["allOf"]
    assert case["if"]["properties"]["study"] == {"const": "lab"}
    components = schema["$defs"]["Fit"]["properties"]["n_components"]
    assert {"integer", "array"} == {option["type"] for option in components["anyOf"]}
    assert components["description"] == "Numbers of components K to try."


def test_a_config_reads_back_as_it_was_written():
    table = {
        "seed": 7,
        "data": {"source": "a.csv", "columns": ["x", 'q"uote']},
        "fit": {"tol": 1e-9},
        "settings": {"deep": {"er": [1, 2.5, {"k": True}]}, "limit": math.inf, "many": 10**20},
    }
    first = models.from_table(table)
    assert models.from_table(tomllib.loads(to_toml(first.model_dump(mode="json")))) == first


# Where a name goes in a config, the table of the library it is from, and an entry to add to it.
