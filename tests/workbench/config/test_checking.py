"""What is wrong in a config is said with its place and its value."""

import math
import pathlib

import pytest
from workbench.config.problems import problem

from jgmm._core.errors import UserError
from jgmm.workbench.config import checking
from jgmm.workbench.config.checking import validate
from jgmm.workbench.config.models import Strict


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
    assert len(lines) == checking.MAX_PROBLEMS + 1
    assert lines[-1] == "a.toml: and 1980 problems more"


class Inner(Strict):
    scale: float = 1.0


class Settings(Strict):
    sizes: tuple[int, ...] = (1, 2)
    place: pathlib.Path = pathlib.Path("here")
    inner: Inner = Inner()


def test_a_study_s_settings_are_checked_under_their_own_path():
    found = validate(Settings, {"sizes": [3], "place": "there"}, prefix="settings")
    assert found.sizes == (3,)
    assert found.place == pathlib.Path("there")
    with pytest.raises(UserError, match=r'"settings.sizes\[0\]": must be a whole number'):
        validate(Settings, {"sizes": ["3"]}, prefix="settings")
    expected = 'unknown key "settings.inner.scal"; did you mean "settings.inner.scale"?'
    with pytest.raises(UserError) as caught:
        validate(Settings, {"inner": {"scal": 3.0}}, prefix="settings")
    assert expected in str(caught.value)
