"""What is shipped: the package and nothing else, typed; and a schema for editors of configs."""

import ast
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import zipfile

import jsonschema
import pytest

import jgmm
from jgmm._core import errors
from jgmm.workbench.config import models
from jgmm.workbench.config.checking import validate
from jgmm.workbench.studies import registry

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def schema():
    return json.loads((ROOT / "configs" / "schema.json").read_text(encoding="utf-8"))


def test_the_committed_schema_is_the_one_the_models_give(schema):
    given = json.loads(json.dumps(registry.schema(CONFIGS)))
    assert schema == given, "./dev jgmm schema configs/*.toml > configs/schema.json"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_name_the_schema_and_satisfy_it(path, schema):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#:schema ./schema.json\n")
    for validator in (jsonschema.Draft7Validator, jsonschema.Draft202012Validator):
        validator.check_schema(schema)
        validator(schema).validate(tomllib.loads(text))


def check(table):
    """What a run does before it starts."""
    checked = models.from_table(table)
    validate(registry.find_study(checked.study, [ROOT]).Settings, checked.settings)


@pytest.mark.parametrize(
    "wrong",
    [
        'sed = 1\n[data]\nsource = "iris"',
        '[data]\nsource = "iris"\n[fit]\nn_component = 3',
        '[data]\nsource = "iris"\n[fit]\nn_restarts = 0',
        '[data]\nsource = "iris"\n[settings]\ncertainty = 2',
        'study = "classify"\n[data]\nsource = "iris"\n[settings]\ncertainty = 0.5',
        'study = "experiments.racing"\n[settings]\nseeds = "many"',
    ],
)
def test_the_schema_refuses_what_a_run_refuses(wrong, schema):
    table = tomllib.loads(wrong)
    assert not jsonschema.Draft7Validator(schema).is_valid(table)
    with pytest.raises(errors.UserError):
        check(table)


def test_the_version_is_a_semantic_one_that_the_changelog_knows():
    assert PROJECT["project"]["version"] == jgmm.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", jgmm.__version__)
    changelog = (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
    assert f"\n## {jgmm.__version__}" in changelog


def test_the_package_is_typed_and_alone():
    assert (ROOT / "jgmm" / "py.typed").is_file()
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": ["jgmm"]}


def test_every_public_name_can_be_had_and_no_other_is_shown():
    for name in dir(jgmm):
        assert getattr(jgmm, name) is not None
    # ``from jgmm import *`` leaves out what needs an extra.
    assert sorted(dir(jgmm)) == sorted([*jgmm.__all__, "estimators", "plot"])
    assert len(set(dir(jgmm))) == len(dir(jgmm)) <= 38


FACES = sorted(path.parent.name for path in (ROOT / "jgmm").glob("[!_]*/__init__.py"))


@pytest.mark.parametrize("topic", FACES)
def test_every_public_name_of_a_topic_can_be_had(topic):
    """And is what the face imports: a module of the same name may hide a function."""
    face = importlib.import_module(f"jgmm.{topic}")
    assert face.__doc__
    assert len(set(face.__all__)) == len(face.__all__)
    tree = ast.parse(pathlib.Path(face.__file__).read_text(encoding="utf-8"))
    imported = {
        each.asname or each.name: getattr(importlib.import_module(node.module), each.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("jgmm.")
        for each in node.names
    }
    for name in face.__all__:
        assert getattr(face, name) is imported.get(name, getattr(face, name))


def test_the_topics_show_few_names():
    """A name that is shown has to be documented and kept."""
    shown = {topic: len(importlib.import_module(f"jgmm.{topic}").__all__) for topic in FACES}
    assert sum(shown.values()) <= 120, shown


def test_what_the_package_holds_besides_code():
    """Types for editors, a style sheet and the data sets; the wheel is made of what is here."""
    names = {
        path.relative_to(ROOT / "jgmm").as_posix()
        for path in (ROOT / "jgmm").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert names == {
        "__init__.pyi",
        "py.typed",
        "workbench/readers/data/README.md",
        "workbench/readers/data/autompg.csv",
        "workbench/readers/data/faithful.csv",
        "workbench/runs/report.css",
    }


def test_no_folder_of_the_package_is_ignored():
    """The wheel leaves out what git ignores: ``runs/`` would mean ``jgmm/workbench/runs``, too."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    anywhere = {line.strip("/") for line in lines if not line.startswith("/")} - {"__pycache__"}
    assert {path.name for path in (ROOT / "jgmm").rglob("*")} & anywhere == set()


@pytest.mark.skipif("JGMM_WHEEL" not in os.environ, reason="JGMM_WHEEL=1 builds one, in 15 s")
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*command, str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in names if name.startswith("jgmm/")}
    assert {name.partition("/")[0] for name in names - package} == {
        f"jgmm-{jgmm.__version__}.dist-info"
    }
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "jgmm").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package == here
