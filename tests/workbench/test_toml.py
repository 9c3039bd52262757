import math
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgmm.workbench.files import UserError
from jgmm.workbench.toml import override, read_toml, to_toml


def test_an_override_cannot_smuggle_in_a_second_key():
    assert override({}, ["name=1\nseed=2"]) == {"name": "1\nseed=2"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"seed = \n", "not valid TOML"),
        (b"seed = 1\nseed = 2\n", "not valid TOML"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path, content, expected):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=expected) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_brings_the_nearest_name(tmp_path):
    (tmp_path / "faithful.toml").touch()
    with pytest.raises(UserError, match=r'did you mean ".*faithful\.toml"'):
        read_toml(tmp_path / "faithfull.toml")
    with pytest.raises(UserError, match="is a folder"):
        read_toml(tmp_path)
    with pytest.raises(UserError, match=r"no such config file$"):
        read_toml(tmp_path / "absent" / "a.toml")


# Everything a TOML file of ours may hold. Surrogates are no characters, hence no text.
texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.one_of(texts, st.booleans(), st.integers(), st.floats(allow_nan=False))
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=6
)


@settings(deadline=None)
@given(st.dictionaries(texts, values))
def test_any_table_reads_back_as_it_was_written(table):
    assert tomllib.loads(to_toml(table)) == table


def test_nan_and_minus_zero_survive_writing():
    back = tomllib.loads(to_toml({"a": math.nan, "b": -0.0}))
    assert math.isnan(back["a"])
    assert math.copysign(1, back["b"]) == -1
