"""The tests of ``jgmm/em/m_step.py`` are in ``tests/em/test_m_step.py``; so for every module."""

import pathlib

import jgmm

PACKAGE = pathlib.Path(jgmm.__file__).parent
TESTS = pathlib.Path(__file__).parents[1]
# Modules without a file of tests of their own, and where they are tried.
TRIED_ELSEWHERE = {
    "_core/budget": "constants; tests of what they bound change them",
}
# Tests of several modules at once: folders, and files.
ACROSS = {"properties", "project"}
ACROSS_TOPICS = {"workbench/faults", "workbench/fuzz", "workbench/security"}


def modules():
    """Every module by its path in the package, an underscore of its file name left out."""
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return {
        path.with_name(path.name.lstrip("_")).as_posix() for path in paths if path.name[:2] != "__"
    }


def promised():
    """The path that every file of tests promises."""
    paths = (path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))
    return {
        path.with_name(path.stem.removeprefix("test_")).as_posix()
        for path in paths
        if path.parts[0] not in ACROSS
    }


def test_every_module_has_its_tests():
    assert modules() - promised() == set(TRIED_ELSEWHERE)


def test_every_file_of_tests_has_its_module():
    """Or is of a topic as a whole and bears its name, such as ``tests/plot/test_plot.py``."""
    strangers = {path for path in promised() - modules() if len(set(path.split("/")[-2:])) > 1}
    assert strangers == ACROSS_TOPICS
