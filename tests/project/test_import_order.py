"""A module imports its own topic and the topics above it in the list, and nothing else of jgmm."""

import ast
import pathlib

import jgmm

PACKAGE = pathlib.Path(jgmm.__file__).parent
# The table of contents of the package: each topic may use those before it.
ORDER = [
    "_core",
    "covariance",
    "_data",
    "mixture",
    "em",
    "kmeans",
    "initialization",
    "fitting",
    "gradient",
    "uncertainty",
    "differentiation",
    "selection",
    "classifier",
    "streaming",
    "distributed",
    "_fit",
    "_saving",
    "estimators",
    "plot",
    "jgmm",
    "workbench",
]
# "module -> module" that may break the rule for now.
EXCEPTIONS: set[str] = set()


def modules():
    """Every module of the package by its dotted name, and its tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        yield name.removesuffix(".__init__"), ast.parse(path.read_text(encoding="utf-8"))


TREES = dict(modules())


def imported(name):
    """The modules of jgmm that a module imports, anywhere in it, also for types alone."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.split(".")[0] == "jgmm")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jgmm":
            for each in node.names:
                inside = f"{node.module}.{each.name}"
                yield inside if inside in TREES else node.module


def topic(name):
    """The topic a module belongs to; ``jgmm`` itself, which shows them all, is one of its own."""
    return name.split(".")[1] if "." in name else name


def test_the_list_names_every_topic():
    assert {topic(name) for name in TREES} == set(ORDER)


def test_modules_import_upwards_only():
    broken = {
        f"{name} -> {target}"
        for name in TREES
        for target in imported(name)
        if ORDER.index(topic(target)) > ORDER.index(topic(name))
    }
    assert broken == EXCEPTIONS


def test_no_module_is_imported_by_what_it_imports():
    reached = {}

    def visit(name, path):
        assert name not in path, " -> ".join([*path, name])
        if name not in reached:
            for target in imported(name):
                if target != name and target in TREES:
                    visit(target, (*path, name))
            reached[name] = True

    for name in TREES:
        visit(name, ())
