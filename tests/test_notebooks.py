"""The notebooks run, cell by cell and in the order they are read, and print what their text says.

No kernel is started: all run in this process, so that they share compiled programs. What runs a
thousand restarts in a notebook runs a hundred here.
"""

import ast
import contextlib
import io
import pathlib

import jupytext
import matplotlib.pyplot as plt
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "notebooks"
# What each must print, in float64, for its text to be true.
PRINTS = {
    "five_minutes": ["log-likelihood -1130.26 nats", "restarts: 32 converged", "'CONVERGED'"],
    "old_faithful": ["one: BIC 2201.8", "two: BIC 2096.0", "*  3  tied        11  -1126.32"],
    "auto_mpg": ["general   0.673 ± 0.016", "aligned   0.651 ± 0.018", "always America: 0.625"],
    "kmeans_fails": ["as k-means likes it     0.99", "all are long            0.01"],
    "thousand_restarts": ["points  best -1114.44", "race:  best -1114.44"],
    "em_against_gradients": ["EM        -1119.21", "L-BFGS    -1119.21", "STEPS_RAN_OUT"],
    "differentiating_a_fit": ["optimism: 11.8 nats for 11 parameters", "The fit has no derivatives"],
}
FEWER = ("n_restarts = 1000", "n_restarts = 100")


def test_every_notebook_is_listed():
    assert {path.stem for path in FOLDER.glob("*.md")} == set(PRINTS)


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
def test_notebook(name):
    notebook = jupytext.read(FOLDER / f"{name}.md")
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
