"""Options are read as they are written, or refused."""

import pytest
from workbench.cli.commands import call

from jgmm._core.errors import UserError
from jgmm.workbench.cli.options import parse_components


def test_quiet_and_verbose_contradict_each_other(study):
    result = call("run", study, "--quiet", "--verbose")
    assert result.exit_code == 2
    assert "contradict" in result.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", [3]), ("1:3", [1, 2, 3]), ("2,5", [2, 5]), ("1:2,4", [1, 2, 4]), ("4:4", [4])],
)
def test_numbers_of_components_are_read(text, expected):
    assert parse_components(text) == expected


@pytest.mark.parametrize("text", ["", "0", "3:1", "a", "1:", "1:99999999999", "1:b", "9" * 5000])
def test_numbers_of_components_that_make_no_sense_are_refused(text):
    with pytest.raises(UserError, match="--components"):
        parse_components(text)
