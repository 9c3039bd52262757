import inspect
import json
import math
import tomllib

import pytest
from workbench.config.problems import problem

import jgmm
from jgmm import classifier
from jgmm.covariance.models import MODELS
from jgmm.streaming import online
from jgmm.workbench.config import models
from jgmm.workbench.config.names import covariances_for
from jgmm.workbench.config.toml import to_toml
from jgmm.workbench.studies import classify, stream


def test_defaults_fill_an_empty_config():
    found = models.from_table({})
    assert found.study == "mixture"
    assert found.fit.n_components == list(range(1, 10))
    assert found.data is None


def test_single_values_are_lists_of_one():
    found = models.from_table({"fit": {"n_components": 3, "covariance": "tied"}})
    assert found.fit.n_components == [3]
    assert found.fit.covariance == ["tied"]


@pytest.mark.parametrize(("n_features", "expected"), [(1, 2), (2, len(MODELS))])
def test_all_stands_for_every_covariance_model_of_the_data(n_features, expected):
    """In one column there are two; `jgmm.select` of such samples fits the same."""
    found = models.from_table({"fit": {"covariance": "all"}})
    assert found.fit.covariance == ["all"]
    names = covariances_for(found.fit.covariance, n_features)
    assert len(names) == len(set(names)) == expected
    assert (names == ["E", "V"]) == (n_features == 1)


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


# --- every option of a function has a key, and every key is an option --------------------------

# Where an argument has another name in a config.
KEYS = {
    "key": "seed",
    "x": "data.source",
    "source": "data.source",
    "sample_weight": "data.weight",
    "labels": "data.known",
    "coreset": "settings.coreset",
    "subsample": "settings.subsample",
    "block_rows": "settings.block_rows",
}
# Arguments without a key, and why.
NO_KEY = {
    "options": "a record of the other arguments",
    "progress": "a function; the workbench draws its own bars",
    "checkpointer": "an object; the study makes it, see settings.checkpoint_minutes",
    "group": "processes; `jgmm run --processes`, `--cluster`",
    "mesh": "devices of this process; not of the record of what was computed",
}
# Keys that are no argument, and why.
NO_ARGUMENT = {
    "stream": {
        "settings.skip_bad": "how files are read",
        "settings.checkpoint_minutes": "when states are saved",
        "settings.checkpoint_steps": "when states are saved",
    },
}
# The functions of each study, and the tables that its keys are in.
STUDIES = {
    "mixture": ([jgmm.fit, jgmm.select], {"fit": models.Fit}),
    "classify": (
        [classifier.fit, classifier.cross_validate],
        {"settings": classify.Settings},
    ),
    "stream": (
        [jgmm.streaming.fit, online.fit],
        {"fit": models.Fit, "settings": stream.Settings, "settings.online": stream.Online},
    ),
}
# Keys of [fit] that the study "stream" refuses by name, see tests/workbench/studies/test_stream.py.
REFUSED = {"stream": {"fit.noise", "fit.criterion", "fit.n_folds"}}


def keys_of(table):
    return {
        f"{name}.{field}"
        for name, model in table.items()
        for field in model.model_fields
        if f"{name}.{field}" not in table
    }


def arguments_of(study):
    return {name for each in STUDIES[study][0] for name in inspect.signature(each).parameters}


@pytest.mark.parametrize("study", STUDIES)
def test_options_and_keys_are_the_same_but_for_those_listed(study):
    own = keys_of(STUDIES[study][1])
    keys = own | keys_of({"data": models.Data}) | {"seed"}
    named = {key.rpartition(".")[2]: key for key in sorted(keys)} | KEYS
    if study == "classify":
        named["labels"] = "data.label"
    found = {name: named.get(name) for name in arguments_of(study) - set(NO_KEY)}
    assert {name for name, key in found.items() if key not in keys} == set()
    listed = set(NO_ARGUMENT.get(study, {})) | REFUSED.get(study, set())
    assert own - set(found.values()) == listed


def test_the_arguments_without_a_key_are_arguments():
    assert set(NO_KEY) <= set().union(*map(arguments_of, STUDIES))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("noise", "box"),
        ("noise", 2.5),
        ("equal_weights", True),
        ("floor", 0.01),
        ("prior", "conjugate"),
    ],
)
def test_options_of_a_fit_are_read_as_they_are_written(key, value):
    assert getattr(models.from_table({"fit": {key: value}}).fit, key) == value


@pytest.mark.parametrize("value", ["bx", 0, -1.0, True, math.inf])
def test_noise_is_a_box_or_a_volume(value):
    assert '"fit.noise": ' in problem({"fit": {"noise": value}})
