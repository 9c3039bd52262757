"""Tables fit the terminal, mark what was chosen, and show text as it is."""

import math
import pathlib

import pytest
from workbench.cli.commands import call

from jgmm.workbench.cli import terminal


def test_a_summary_shows_the_fits_best_first_and_marks_the_chosen(choices):
    lines = call("run", "choice.toml").stdout.splitlines()
    fits = [line for line in lines if "diag" in line]
    assert [line.lstrip("* ").split()[0] for line in fits] == ["2", "1", "3"]
    assert ["*" in line for line in fits] == [True, False, False]
    for text in ("-12.50", "41.25", "converged", "3 of 16"):
        assert text in fits[0]
    assert "collapsed" in fits[2]
    assert "note: Look twice." in lines
    assert lines[-1].startswith("report: ")
    assert not any("length" in line for line in lines)
    told = call("run", "choice.toml", "--verbose").stdout
    for text in ("length", "0.25", "report.html", "mixture.safetensors"):
        assert text in told


@pytest.mark.parametrize(
    ("agree", "log_likelihood", "most", "told"),
    [(0, -12.5, 2, True), (0, math.nan, 2, False), (3, -12.5, 2, False), (0, -12.5, 1, False)],
)
def test_a_fit_reached_from_a_special_case_alone_is_said_to_be(
    capsys, agree, log_likelihood, most, told
):
    row = {"K": 1, "model": "diag", "parameters": 4, "log_likelihood": -10.0, "bic": 30.0}
    row |= {"status": "converged", "agree": 2, "chosen": "yes"}
    other = {"K": 2, "log_likelihood": log_likelihood, "bic": 40.0, "agree": agree, "chosen": ""}
    terminal.fits([row, row | other], "bic", 3, most, "elsewhere")
    shown = capsys.readouterr().out
    assert ("agree 0: reached from a special case alone" in shown) == told
    assert ("and 1 more elsewhere" in shown) == (most == 1)


def test_a_grid_too_wide_for_the_terminal_is_left_out(monkeypatch, capsys):
    rows = [{"K": k, "model": "full", "bic": 1e6, "status": "converged"} for k in range(1, 21)]
    monkeypatch.setenv("COLUMNS", "80")
    assert not terminal.grid(rows, "bic", rows[0])
    assert capsys.readouterr().out == ""
    assert terminal.grid(rows[:6], "bic", rows[0])
    assert "1000000.0*" in capsys.readouterr().out


def test_runs_may_have_names_that_look_like_markup(study, place):
    folder = pathlib.Path(call("run", study, "--quiet").stdout.strip())
    for name in ("[red]a", "[b\\", "caf\udce9", ":smile:"):
        folder = folder.rename(place / name)
        shown = name.replace("\udce9", "\\udce9")
        assert shown in call("show", str(folder)).stdout
        ended = call("compare", str(folder), str(folder))
        assert ended.stdout.count(shown) >= 2  # above either column
