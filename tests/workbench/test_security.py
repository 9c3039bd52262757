"""What comes from data, configs and other people's folders stays text: never code, never a path."""

import ast
import importlib
import pathlib
import pickle
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner
from workbench.runs.html_page import ALLOWED, ATTRIBUTES, Page

import jgmm
from jgmm import plot
from jgmm._core.errors import UserError
from jgmm.workbench.cli.main import app
from jgmm.workbench.config import models
from jgmm.workbench.readers import datasets, formats
from jgmm.workbench.runs import runner
from jgmm.workbench.studies import registry

SOURCES = sorted(pathlib.Path(jgmm.__file__).parent.rglob("*.py"))
FORBIDDEN = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"),
    *("zipfile", "tarfile", "subprocess", "multiprocessing", "ctypes", "yaml"),
}

# --- no pickle, no archive ---------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_in_the_package_can_unpickle_unpack_or_evaluate(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        # Processes are started in one place, of this very command.
        # Members of archives are read as text in one place, and never unpacked to the disk.
        allowed = {"launch": {"subprocess"}, "text": {"zipfile"}}.get(path.stem, set())
        forbidden = FORBIDDEN - allowed
        assert not forbidden & {name.partition(".")[0] for name in names}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "compile", "os.system", "os.popen", "__import__"}
            assert not called.endswith(("unpack_archive", "read_pickle"))
            if called in {"np.load", "numpy.load", "np.fromfile"}:
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert given.get("allow_pickle") == "False"


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_the_bomb_works(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "fired")))
    assert (tmp_path / "fired").exists()


@pytest.mark.parametrize("kind", ["npy", "npz", "pickle"])
@pytest.mark.parametrize("suffix", [*formats.table_openers(), ".safetensors", ".toml"])
def test_a_pickle_under_any_name_is_never_opened(tmp_path, kind, suffix):
    path, fired = tmp_path / f"x{suffix}", tmp_path / "fired"
    with path.open("wb") as file:
        if kind == "npy":
            np.save(file, np.array([[Bomb(fired)]], dtype=object), allow_pickle=True)
        elif kind == "npz":
            np.savez(file, x=np.array([[Bomb(fired)]], dtype=object))
        else:
            pickle.dump(Bomb(fired), file)
    for read in (datasets.load, jgmm.load, models.load):
        with pytest.raises(UserError):
            read(path)
    assert not fired.exists()


def test_a_parquet_type_that_is_a_pickle_is_never_made(tmp_path):
    """Arrow once unpickled types of this name when it read a schema (CVE-2023-47248)."""
    payload = pickle.dumps(Bomb(tmp_path / "fired"))
    name = {b"ARROW:extension:name": b"arrow.py_extension_type"}
    field = pa.field("a", pa.float64(), metadata={**name, b"ARROW:extension:metadata": payload})
    pq.write_table(pa.table([[1.0, 2.0]], schema=pa.schema([field])), tmp_path / "x.parquet")
    assert datasets.load(tmp_path / "x.parquet", ["a"]).x.tolist() == [[1.0], [2.0]]
    assert not (tmp_path / "fired").exists()


# --- no path out of the run's folder -----------------------------------------------------------


@given(st.text())
def test_any_text_makes_a_name_that_stays_where_it_is_put(text):
    name = models.name_from_text(text)
    assert pathlib.PurePath(name).name == name
    assert not name.startswith((".", "-"))
    assert 0 < len(name.encode("utf-8")) <= models.MAX_NAME
    assert models.from_table({"name": name}).name == name


ESCAPES = ["../up", "/tmp/x", "a/b", "a\\b", "..", ".", ".hidden", "a\0b", "a\n", "", "x" * 101]


@pytest.mark.parametrize("name", [*ESCAPES, "日" * 34])
def test_a_run_s_name_is_no_path(name):
    with pytest.raises(UserError, match='"name"'):
        models.from_table({"name": name})


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A study that names its results after the data, and data with names that break out."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    (place / "evil_study.py").write_text(STUDY)
    yield place
    sys.modules.pop("evil_study", None)


STUDY = """
import numpy as np
from jgmm import make_mixture, plot
from jgmm.workbench.config import Strict, name_from_text

class Settings(Strict):
    words: str = ""
    name: str = ""

def run(study):
    data, words = study.data, study.settings.words
    if study.settings.name:
        study.table(study.settings.name, [{"a": 1}])
    study.metric(words, words)
    study.note(words)
    study.table("rows", [{column: words for column in data.columns}], words)
    mixture = make_mixture([1.0], np.zeros((1, len(data.columns))), [1.0], "spherical")
    study.mixture(name_from_text(data.label_names[0]), mixture, data.columns)
    figure, (ax,) = plot.new_figure(size=(3, 2))
    plot.scatter(data.x[:, :2], data.labels, ax, columns=data.columns)
    study.figure("points", figure, words)
"""
EVIL = [
    "<script>alert(1)</script>",
    "</style><b>",
    "\"' onload='x'",
    "-->",
    "../../../../etc/passwd",
    "$\\input{/etc/passwd}$",
]


@pytest.mark.parametrize("name", [name for name in ESCAPES if 0 < len(name) < 100])
def test_a_result_s_name_is_no_path(evil, name):
    (evil / "x.csv").write_text("a,k\n1,b\n2,c\n")
    table = {"study": "evil_study", "data": {"source": "x.csv", "label": "k"}}
    with pytest.raises(ValueError, match="cannot name a file"):
        runner.run_config(models.from_table({**table, "settings": {"name": name}}), progress=False)
    assert {entry.name for entry in evil.iterdir()} <= {"evil_study.py", "x.csv", "__pycache__"}


@pytest.mark.parametrize("words", EVIL)
def test_names_from_data_and_config_stay_text_in_every_file_of_a_run(evil, words):
    file = "<img src=x onerror=alert(1)>.csv"
    quoted = words.replace('"', '""')
    rows = f'1,2,"{quoted}"\n3,4,b\n'
    (evil / file).write_text(f'"{quoted}","{quoted}2",k\n' + rows)
    data = {"source": file, "label": "k"}
    table = {"study": "evil_study", "name": "a", "data": data, "settings": {"words": words}}
    run = runner.run_config(models.from_table(table), progress=False)
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    (own,) = [name for name in files if name.endswith(".safetensors")]
    assert files == {
        *("config.toml", "environment.json", "metrics.json", "report.html", "tables/rows.csv"),
        *("plots/points.png", "notes.txt", own),
    }
    source = (run / "report.html").read_text("utf-8")
    page = Page(source)
    assert {tag for tag, _ in page.tags} <= ALLOWED
    assert {name for _, attributes in page.tags for name in attributes} <= ATTRIBUTES
    assert source.count("</style>") == 1
    shown = " ".join(page.text)
    assert words in shown
    assert file in shown
    assert words.encode() not in (run / "plots" / "points.png").read_bytes()
    assert models.load(run / "config.toml").settings["words"] == words


def test_no_name_is_ever_latex():
    """A matplotlibrc in the current folder may ask for it, and LaTeX can read files."""
    import matplotlib

    columns = ["a_b $\\input{/etc/passwd}$", "%#&~^\\"]
    with matplotlib.rc_context({"text.usetex": True}):
        figure, (ax,) = plot.new_figure(size=(3, 2))
        plot.scatter([[0.0, 1.0], [2.0, 3.0]], np.array(["x_y", "$z"]), ax, columns=columns)
        # As LaTeX these names are errors, whether it is installed or not.
        assert plot.png(figure).startswith(b"\x89PNG")


# --- no code from where data are ---------------------------------------------------------------


def test_a_built_in_study_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    seen = {}

    def record(name, package=None):
        seen[name] = list(sys.path)
        return real(name, package)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", record)
    registry.find_study("mixture", [tmp_path])
    with pytest.raises(UserError):
        registry.find_study("no_such_study_of_ours", [tmp_path])
    assert str(tmp_path) not in seen["jgmm.workbench.studies.mixture"]
    assert seen["no_such_study_of_ours"][0] == str(tmp_path)


# --- nothing a terminal would obey -------------------------------------------------------------


def test_control_characters_are_shown_not_obeyed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "\x1b]0;title\x07\x1b[2Jred\u202e[/bold]:warning:"
    pathlib.Path("x.csv").write_text(f"{name},b\n1,2\n")
    run = CliRunner().invoke
    ended = run(app, ["fit", "x.csv", "--label", "none", "--output", "out"])
    assert ended.exit_code == 2
    assert "\\x1b]0;title\\x07\\x1b[2Jred\\u202e" in ended.stderr
    mixture = jgmm.make_mixture([1.0], [[2.0]], [1.0], "spherical")
    jgmm.save("m.safetensors", mixture, [name])
    shown = run(app, ["show", "m.safetensors"], env={"COLUMNS": "200"})
    assert "\\x1b[2Jred\\u202e[/bold]:warning:" in shown.stdout
    for text in (ended.output, shown.output):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
