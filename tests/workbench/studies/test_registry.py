"""Studies are found by name, and one that is not there or cannot be used is told from others."""

import pytest

from jgmm._core.errors import UserError
from jgmm.workbench.studies import registry


def test_a_study_that_lacks_a_package_says_which(tmp_path):
    (tmp_path / "lacking_study.py").write_text("import no_such_package_of_ours\n")
    with pytest.raises(UserError, match="needs the package no_such_package_of_ours"):
        registry.find_study("lacking_study", [tmp_path])


def test_experiments_are_suggested(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "overlap.py").touch()
    with pytest.raises(UserError, match=r'did you mean "experiments\.overlap"'):
        registry.find_study("experiments.overlp", [tmp_path])
