"""Every example in the package's docstrings runs, and prints what it says; so does the README's."""

import doctest
import pathlib
import re

import jax
import pytest

import jgmm

PACKAGE = pathlib.Path(jgmm.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)


def imported(name):
    """The module; without the extra it needs, the test skips and says which."""
    return pytest.importorskip(name, exc_type=ImportError)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = imported(name)
    with jax.enable_x64(False):  # as a newcomer has it
        failed, _ = doctest.testmod(module, verbose=False)
    assert not failed


@pytest.mark.parametrize(("package", "fewest"), [("jgmm", 400), ("jgmm.workbench", 25)])
def test_there_are_examples(package, fewest):
    """So that none is lost because a folder is no longer searched."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = [name for name in MODULES if f"{name}.".startswith(f"{package}.")]
    found = [test for name in names for test in finder.find(imported(name))]
    assert sum(len(test.examples) for test in found) >= fewest


def test_the_readme_begins_with_its_two_commands_and_its_code_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it saves a file
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
