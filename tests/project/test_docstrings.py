"""Every example in the library's docstrings runs, and prints what it says."""

import doctest
import pathlib
import re

import jax
import pytest

import jgmm

PACKAGE = pathlib.Path(jgmm.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imported(name):
    """The module; without the extra it needs, the test skips and says which."""
    return pytest.importorskip(f"jgmm.{name}", exc_type=ImportError)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = imported(name)
    with jax.enable_x64(False):  # as a newcomer has it
        failed, _ = doctest.testmod(module, verbose=False)
    assert not failed


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [imported(name) for name in MODULES]
    examples = sum(len(test.examples) for module in modules for test in finder.find(module))
    assert examples >= 30


def test_the_readme_begins_with_its_two_commands_and_its_code_runs(capsys):
    text = (PACKAGE.parent / "README.md").read_text()
    first = [line.strip() for line in text.splitlines() if line.startswith("    ")][:2]
    assert first == ["./dev jgmm run configs/faithful.toml", "./dev pytest"]
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "CONVERGED" in printed
    assert "-1130.26" in printed
