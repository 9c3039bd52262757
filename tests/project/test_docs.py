"""The documentation holds: notebooks and code run, links lead somewhere.

Notebooks run cell by cell, in the order they are read, and print what their text says. No kernel
is started, and all is in one file: so pages and notebooks share compiled programs. What runs a
thousand restarts in a notebook runs forty here.
"""

import ast
import contextlib
import importlib
import inspect
import io
import os
import pathlib
import re
import subprocess
import sys

import jupytext
import matplotlib.pyplot as plt
import pytest

import jgmm
from jgmm.covariance import models
from jgmm.em import acceleration_schemes
from jgmm.gradient import PARAMETRIZATIONS

ROOT = pathlib.Path(jgmm.__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
NOTEBOOKS = ROOT / "docs" / "notebooks"
TEXTS = [ROOT / "README.md", *PAGES, *sorted(NOTEBOOKS.glob("*.md"))]
BLOCK = re.compile(r"^```(.*?)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def blocks(path):
    """Code that a reader would run, in order."""
    return [code for name, code in BLOCK.findall(path.read_text()) if name == "python"]


def prose(path):
    """The text without code."""
    return BLOCK.sub("", path.read_text())


def anchors(path):
    """What the headings of a page are called in addresses."""
    heads = re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


# Notebooks

# What each must print, in float64, for its text to be true.
PRINTS = {
    "five_minutes": ["log-likelihood -1130.26 nats", "restarts: 32 converged", "'CONVERGED'"],
    "old_faithful": ["one: BIC 2201.8", "two: BIC 2096.0", "*  3  tied        11  -1126.32"],
    "auto_mpg": ["general   0.673 ± 0.016", "aligned   0.651 ± 0.018", "always America: 0.625"],
    "kmeans_fails": ["as k-means likes it     0.99", "all are long            0.01"],
    "thousand_restarts": ["points  best -1114.44", "race  best -1114.44"],
    "em_against_gradients": ["EM        -1119.21", "L-BFGS    -1119.21", "STEPS_RAN_OUT"],
    "differentiating_a_fit": [
        "optimism: 11.8 nats for 11 parameters",
        "The fit has no derivatives",
    ],
}
FEWER = ("n_restarts = 1000", "n_restarts = 60")


def test_every_notebook_is_listed():
    assert {path.stem for path in NOTEBOOKS.glob("*.md")} == set(PRINTS)


def run_cell(source, name, number, namespace):
    """Execute a cell; like a notebook, show the value it ends with unless a semicolon hides it."""
    body = ast.parse(source).body
    shows = isinstance(body[-1], ast.Expr) and not source.rstrip().endswith(";")
    last = body.pop().value if shows else None
    where = f"{name}.md, cell {number}"
    try:
        exec(compile(ast.Module(body, []), where, "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last), where, "eval"), namespace)
            print("" if value is None else repr(value))
    except Exception as error:
        raise AssertionError(f"{where} failed with {error!r}:\n\n{source}") from error


@pytest.mark.parametrize("name", PRINTS)
def test_notebook(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some save files
    notebook = jupytext.read(NOTEBOOKS / f"{name}.md")
    assert notebook.metadata["kernelspec"]["name"] == "python3"  # so that Jupyter opens it
    namespace, printed, n_figures = {"__name__": "__main__"}, io.StringIO(), 0
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    with contextlib.redirect_stdout(printed):
        for number, source in enumerate(cells, 1):
            run_cell(source.replace(*FEWER), name, number, namespace)
            for each in map(plt.figure, plt.get_fignums()):
                each.canvas.draw()
                n_figures += 1
            plt.close("all")
    assert n_figures >= 1
    assert [text for text in PRINTS[name] if text not in printed.getvalue()] == []


def test_a_cell_that_fails_is_named_and_shown():
    with pytest.raises(AssertionError, match=r"any\.md, cell 3 failed(.|\n)*1 / 0"):
        run_cell("1 / 0", "any", 3, {})


# Pages


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_formulas_can_be_drawn(path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import formulas

    found = re.findall(r"\$\$(.+?)\$\$|\$([^$]+?)\$", prose(path), flags=re.DOTALL)
    drawn = [formulas.svg(block or inline) for block, inline in found if "`" not in inline]
    assert all("M" in each for each in drawn)  # an outline that begins somewhere
    assert drawn or path.name not in ("mathematics.md", "five_minutes.md")


REFERENCE = ROOT / "docs" / "api"
TOPICS = [name for name in dir(jgmm) if inspect.ismodule(getattr(jgmm, name))]


def exported(name):
    """Whether ``jgmm`` and its topics show a name such as ``jgmm.selection.bic``."""
    found, place = jgmm, "jgmm"
    for part in name.split(".")[1:]:
        if inspect.ismodule(found):
            is_topic = place.count(".") == 1 and hasattr(found, "__all__")
            shown = found.__all__ if is_topic else [each for each in dir(found) if each[0] != "_"]
            if part not in shown:
                return False
        found, place = getattr(found, part, None), f"{place}.{part}"
        if found is None:
            return False
    return True


def test_what_is_exported_is_known():
    assert exported("jgmm.fit")
    assert exported("jgmm.selection.bic")
    assert exported("jgmm.mixture.gaussian.ellipse")
    assert exported("jgmm.kmeans.fit")
    assert not exported("jgmm.selection.criteria.evidence")
    assert not exported("jgmm._core.status")
    assert not exported("jgmm.selection.no_such_criterion")


USED = [path for path in TEXTS if path.name not in ("extending.md", "glossary.md", "changelog.md")]


@pytest.mark.parametrize("path", USED, ids=lambda path: path.name)
def test_pages_use_what_is_exported(path):
    names = set(re.findall(r"\bjgmm(?:\.[A-Za-z_]\w*)+", path.read_text(encoding="utf-8")))
    names -= {name for name in names if name.startswith("jgmm.workbench")}
    assert [name for name in sorted(names) if not exported(name)] == []


def test_every_module_is_in_the_reference():
    listed = re.findall(
        r"automodule:: (jgmm[\w.]*)$",
        "".join(path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md")),
        flags=re.MULTILINE,
    )
    modules = set()
    for topic in TOPICS:
        folder = ROOT / "jgmm" / topic
        modules |= {f"jgmm.{topic}.{path.stem}" for path in folder.glob("*.py")}
        modules.add(f"jgmm.{topic}")
    public = {name for name in modules if not name.rpartition(".")[2].startswith("_")}
    assert sorted(listed) == sorted(public)  # else put it on the page of its topic in docs/api


@pytest.mark.parametrize("topic", TOPICS)
def test_the_reference_lists_what_a_topic_exports(topic):
    text = (REFERENCE / f"{topic}.md").read_text(encoding="utf-8")
    names = getattr(importlib.import_module(f"jgmm.{topic}"), "__all__", [])
    assert [name for name in names if f"`{name}`" not in text] == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"https?:", target):
            continue
        place, _, anchor = target.partition("#")
        page = (path.parent / place).resolve() if place else path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_configs_modules_and_tests_that_are_named_exist(path):
    text = path.read_text()
    files = re.findall(
        r"\b(?:configs|tests|experiments|docs|jgmm)/[\w/]+\.(?:toml|py|md|png)", text
    )
    missing = [name for name in files if not (ROOT / name).exists() and "NAME" not in name]
    for name in re.findall(r"python -m (experiments[\w.]*)", text):
        place = ROOT / name.replace(".", "/")
        if not (place.is_dir() or place.with_suffix(".py").exists()):
            missing.append(name)
    assert missing == []


@pytest.fixture
def _tables_as_they_were():
    """What a page adds to the tables of the package is gone after it."""
    tables = (models.MODELS, models._BY_NAME, acceleration_schemes.SCHEMES, PARAMETRIZATIONS)
    before = [dict(table) for table in tables]
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


@pytest.mark.usefixtures("_tables_as_they_were")
@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p)], ids=lambda path: path.name)
def test_the_code_of_a_page_runs(path):
    namespace = {"__name__": "__main__"}
    for number, code in enumerate(blocks(path), 1):
        exec(compile(code, f"{path.name}, block {number}", "exec"), namespace)
    plt.close("all")


def test_names_that_are_taken_are_refused():
    with pytest.raises(ValueError, match="'full' already"):
        models.register(models.model("full"))


@pytest.mark.skipif(
    "JGMM_DOCS" not in os.environ, reason="takes minutes: JGMM_DOCS=1 builds the site, see docs/"
)
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", ROOT / "docs", tmp_path]
    subprocess.run(command, check=True, cwd=ROOT)
    assert (tmp_path / "index.html").stat().st_size > 1000
