"""The lines that ``experiments/trust/mutations.py`` breaks occur once, and have tests."""

import pytest

from experiments.trust import mutations


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda each: each.wrong)
def test_the_line_to_break_is_there_once(mutation):
    path = mutations.ROOT / mutation.path
    assert path.read_text().count(mutation.before) == 1
    assert mutation.before != mutation.after
    assert (mutations.ROOT / mutation.tests).exists()
