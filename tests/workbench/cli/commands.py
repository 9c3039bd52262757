"""Run the command line from tests, and two studies that take no time."""

import subprocess
import sys

from typer.testing import CliRunner

from jgmm.workbench.cli.main import app


def call(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def jgmm(*arguments, **options):
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "jgmm.workbench.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


STUDY = """
    import time
    from jgmm.workbench.config import Strict, UserError
    from jgmm import DataError, FitError

    class Settings(Strict):
        what: str = "pass"

    def run(study):
        study.metric("answer", 42.5)
        study.metric("word", "[bold]plain[/bold]")
        what = study.settings.what
        if what == "wait":
            print("waiting", flush=True)
            time.sleep(100)
        if what == "data":
            raise DataError("row 3 holds nan")
        if what == "fit":
            raise FitError("no start ended")
        if what == "user":
            raise UserError("first line\\nsecond line")
        if what == "bug":
            raise ZeroDivisionError
"""

# A study that leaves all that a fit leaves, without a fit.
# A study that leaves all that a fit leaves, without a fit.
CHOICE = """
    import numpy as np
    from jgmm import make_mixture
    from jgmm.workbench.config import Strict

    class Settings(Strict):
        shift: float = 0.0

    def run(study):
        print("printed by the study")
        shift = study.settings.shift
        fits = [(1, -30.0, 70.5, ""), (2, -12.5, 41.25, "yes"), (3, float("nan"), float("nan"), "")]
        rows = [
            {"K": k, "model": "diag", "parameters": 4 * k, "log_likelihood": ell, "bic": bic,
             "status": "converged" if bic == bic else "collapsed", "agree": 3, "chosen": chosen}
            for k, ell, bic, chosen in fits
        ]
        study.table("summary", rows)
        order = slice(None) if shift == 0 else slice(None, None, -1)
        means = np.asarray([[0.0, 1.0], [9.0, 5.0]])[order] + shift
        mixture = make_mixture([0.25, 0.75][order], means, np.ones((2, 2)), "diag")
        study.mixture("mixture", mixture, ["length", "width"])
        labels = [0, 0, 1, 1] if shift == 0 else [1, 1, 0, 0]
        study.table("assignments", [{"sample": i, "component": k} for i, k in enumerate(labels)])
        study.metric("bic", 41.25 + shift)
        study.note("Look twice.")
"""
