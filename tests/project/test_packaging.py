"""What is shipped: the package and nothing else, typed; and a schema for editors of configs."""

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
    models.validate(registry.find_study(checked.study, [ROOT]).Settings, checked.settings)


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


def test_every_public_name_can_be_had():
    for name in jgmm.__all__:
        assert getattr(jgmm, name) is not None
    for path in (ROOT / "jgmm").glob("[!_]*.py"):
        if path.stem not in ("estimator_base", "label_estimators"):
            assert importlib.import_module(f"jgmm.{path.stem}") is getattr(jgmm, path.stem)


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
    assert "jgmm/py.typed" in package
