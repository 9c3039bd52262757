import math
import pathlib
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgmm._core.errors import UserError
from jgmm.workbench.config.toml import override, read_toml, to_toml


def test_an_override_cannot_smuggle_in_a_second_key():
    assert override({}, ["name=1\nseed=2"]) == {"name": "1\nseed=2"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"seed = \n", "not valid TOML"),
        (b"seed = 1\nseed = 2\n", "not valid TOML"),
        (b"\xff\xfe", "UTF-8"),
        (b"seed = " + b"1" * 5000, "a number has more digits than can be read"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nested deeper than 50"),
        (b"a = " + b"{a = " * 60 + b"1" + b"}" * 60, "nested deeper than 50"),
        (b".".join([b"a"] * 5000) + b" = 1", "nested deeper than 50"),
        (b"#" * (1 << 21), "more than 1048576 bytes"),
        (b"a = 1\x00", "not valid TOML"),
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


def test_a_file_that_begins_with_a_mark_of_its_encoding_is_read(tmp_path):
    (tmp_path / "a.toml").write_text('name = "é"\r\n', "utf-8-sig")  # as editors on Windows do
    assert read_toml(tmp_path / "a.toml") == {"name": "é"}


def test_what_is_no_file_is_not_read():
    with pytest.raises(UserError, match="a pipe or a device"):
        read_toml(pathlib.Path("/dev/zero"))
    with pytest.raises(UserError, match="no file can have this name"):
        read_toml(pathlib.Path("a\0b"))


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 5000, "{a = " * 60 + "1" + "}" * 60])
def test_an_override_that_no_parser_bears_is_text(value):
    assert override({}, [f"name={value}"]) == {"name": value}


def test_an_override_is_no_deeper_than_a_file():
    with pytest.raises(UserError, match=r"a\.\.\.: a key of more than 50 parts"):
        override({}, [".".join(["a"] * 51) + "=1"])


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
