"""The lines that ``experiments/trust/mutations.py`` breaks are still what it thinks they are."""

import pytest

from experiments.trust import mutations


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda each: each.wrong)
def test_the_line_to_break_is_there_once(mutation):
    path = mutations.ROOT / "jgmm" / f"{mutation.module}.py"
    assert path.read_text().count(mutation.before) == 1
    assert mutation.before != mutation.after
    tests = mutations.TESTED_WITH.get(mutation.module, mutation.module)
    assert (mutations.ROOT / "tests" / f"test_{tests}.py").exists()
