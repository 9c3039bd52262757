"""An empty current folder for every test of the command line, and studies to run in it."""

import json
import sys
import textwrap

import pytest
from workbench.cli.commands import CHOICE, STUDY, call

from jgmm._core import compilation_cache


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty current folder, and a compilation cache that stays out of the test process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compilation_cache, "use_compilation_cache", lambda: None)
    return tmp_path


@pytest.fixture
def study(place):
    (place / "quick_study.py").write_text(textwrap.dedent(STUDY))
    (place / "quick.toml").write_text('study = "quick_study"\n')
    yield "quick.toml"
    sys.modules.pop("quick_study", None)


@pytest.fixture
def choices(place):
    """Two runs of that study: the components of the second are moved, and in another order."""
    (place / "choice_study.py").write_text(textwrap.dedent(CHOICE))
    (place / "choice.toml").write_text('study = "choice_study"\n')
    yield [
        json.loads(call("run", "choice.toml", "--json", "--set", f"settings.shift={shift}").stdout)
        for shift in (0.0, 0.5)
    ]
    sys.modules.pop("choice_study", None)
