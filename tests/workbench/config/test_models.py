import dataclasses
import json
import math
import pathlib
import tomllib

import pytest

from jgmm._core.errors import UserError
from jgmm.covariance.models import _BY_NAME, MODELS
from jgmm.em.acceleration_schemes import SCHEMES
from jgmm.initialization.methods import STARTS
from jgmm.selection.criteria import CRITERIA
from jgmm.workbench.cli.completion import complete_covariance, complete_criterion
from jgmm.workbench.config import models
from jgmm.workbench.config.models import Strict
from jgmm.workbench.config.toml import to_toml


def problem(table: dict, overrides: list[str] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        models.from_table(table, overrides or [], source="a.toml")
    return str(caught.value)


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


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"sed": 1}, 'a.toml: unknown key "sed"; did you mean "seed"?'),
        (
            {"fit": {"n_component": 3}},
            'a.toml: unknown key "fit.n_component"; did you mean "fit.n_components"?',
        ),
        (
            {"n_components": 3},
            'a.toml: unknown key "n_components"; did you mean "fit.n_components"?',
        ),
        ({"data": {"sourc": "x"}}, 'unknown key "data.sourc"; did you mean "data.source"?'),
        ({"data": {"source": "a", "zzz": 1}}, "valid here: source, columns, label, weight"),
        ({"data": {}}, '"data.source" is missing'),
        ({"seed": "one"}, 'a.toml: "seed": must be a whole number; found "one"'),
        ({"seed": 1.5}, '"seed": must be a whole number; found 1.5'),
        ({"seed": True}, '"seed": must be a whole number; found true'),
        ({"seed": -1}, '"seed": must be greater than or equal to 0; found -1'),
        ({"fit": 3}, '"fit": must be a table; found 3'),
        ({"fit": {"n_components": 0}}, '"fit.n_components": must be greater than or equal to 1'),
        ({"fit": {"n_components": [2, 0]}}, '"fit.n_components[1]": must be greater'),
        ({"fit": {"n_components": []}}, '"fit.n_components": must have at least 1 item'),
        ({"fit": {"n_components": "3"}}, '"fit.n_components": must be a whole number; found "3"'),
        ({"fit": {"n_restarts": -2}}, '"fit.n_restarts": must be greater than or equal to 1'),
        ({"fit": {"ridge": -0.1}}, '"fit.ridge": must be greater than or equal to 0; found -0.1'),
        ({"fit": {"tol": math.nan}}, '"fit.tol": must be a finite number; found nan'),
        ({"fit": {"tol": "small"}}, '"fit.tol": must be a number; found "small"'),
        ({"fit": {"covariance": "ful"}}, "Did you mean 'full'?"),
        ({"fit": {"covariance": ["full", "all"]}}, '"all" stands alone'),
        ({"fit": {"init": "kmean"}}, "did you mean 'kmeans'?"),
        (
            {"fit": {"criterion": "bick"}},
            "\"fit.criterion\": unknown criterion 'bick'; did you mean 'bic'?; found \"bick\"",
        ),
        ({"fit": {"accelerate": "andersen"}}, "did you mean 'anderson'?"),
        ({"precision": "float16"}, "must be 'float64' or 'float32'"),
        ({"name": "../up"}, '"name": must start with a letter or digit'),
        ({"name": ""}, '"name": '),
        ({"name": "日" * 34}, "at most 100 bytes"),
        ({"fit": {"n_restarts": 2**31}}, '"fit.n_restarts": must be less than 2147483648'),
        ({"fit": {"race": 10**30}}, '"fit.race": must be less than 2147483648'),
        ({"seed": 1 << 20_000}, "a number has more digits than can be written"),
        ({"data": {"source": "caf\udce9.csv"}}, "this is not Unicode text: "),
        ({"a" * 5000: 1}, 'unknown key "' + "a" * 57 + '..."'),
    ],
)
def test_a_problem_is_said_with_its_place_and_its_value(table, expected):
    assert expected in problem(table)


def test_every_problem_is_said_once():
    lines = problem({"sed": 1, "fit": {"max_step": 2, "n_restarts": 0}}).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("a.toml: ") for line in lines)


def test_not_more_problems_are_listed_than_anybody_reads():
    lines = problem({f"key {i}": i for i in range(2000)}).splitlines()
    assert len(lines) == models.MAX_PROBLEMS + 1
    assert lines[-1] == "a.toml: and 1980 problems more"


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


class Inner(Strict):
    scale: float = 1.0


class Settings(Strict):
    sizes: tuple[int, ...] = (1, 2)
    place: pathlib.Path = pathlib.Path("here")
    inner: Inner = Inner()


def test_a_study_s_settings_are_checked_under_their_own_path():
    found = models.validate(Settings, {"sizes": [3], "place": "there"}, prefix="settings")
    assert found.sizes == (3,)
    assert found.place == pathlib.Path("there")
    with pytest.raises(UserError, match=r'"settings.sizes\[0\]": must be a whole number'):
        models.validate(Settings, {"sizes": ["3"]}, prefix="settings")
    expected = 'unknown key "settings.inner.scal"; did you mean "settings.inner.scale"?'
    with pytest.raises(UserError) as caught:
        models.validate(Settings, {"inner": {"scal": 3.0}}, prefix="settings")
    assert expected in str(caught.value)


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
TABLES = {
    "init": (STARTS, "kmeans"),
    "accelerate": (SCHEMES, "anderson"),
    "criterion": (CRITERIA, "bic"),
    "covariance": (MODELS, "VVV"),
}


@pytest.mark.parametrize("field", TABLES)
def test_an_entry_of_a_table_is_known_without_more_ado(field, monkeypatch):
    """One file is touched to add one: that of the table."""
    table, known = TABLES[field]
    with pytest.raises(UserError, match=r"(?i)known: "):
        models.from_table({"fit": {field: "zzz"}})
    entry = table[known]
    if field == "covariance":
        entry = dataclasses.replace(entry, code="marvel", names=("marvel",))
        monkeypatch.setitem(_BY_NAME, "marvel", entry)
    monkeypatch.setitem(table, "marvel", entry)
    found = getattr(models.from_table({"fit": {field: "marvel"}}).fit, field)
    assert found in ("marvel", ["marvel"])
    assert "did you mean 'marvel'?" in problem({"fit": {field: "marvle"}}).lower()
    described = models.schema({})["$defs"]["Fit"]["properties"][field]
    assert "marvel" in described.get("enum", described.get("examples"))
    complete = {"criterion": complete_criterion, "covariance": complete_covariance}.get(field)
    assert complete is None or complete("marv") == ["marvel"]


def test_the_names_that_stand_for_none_and_for_all_are_listed():
    fields = models.schema({})["$defs"]["Fit"]["properties"]
    assert fields["accelerate"]["enum"] == [*SCHEMES, "none"]
    assert fields["covariance"]["examples"] == ["all", *(each.name for each in MODELS.values())]
    assert models.from_table({"fit": {"accelerate": "none"}}).fit.options()["accelerate"] is None
