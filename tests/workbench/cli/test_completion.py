"""Shells complete commands, files and the values of options."""

from typer.testing import CliRunner

from jgmm.workbench.cli.main import app


def test_shells_complete_commands_and_values(place):
    (place / "mine.csv").touch()
    (place / "mine.doc").touch()
    for words, expected in (
        ("jgmm sel", ["select"]),
        ("jgmm fit mi", ["mine.csv"]),
        ("jgmm fit fai", ["faithful"]),
        ("jgmm fit iris --criterion ai", ["aic", "aicc"]),
        ("jgmm fit iris --covariance full,ti", ["full,tied"]),
        ("jgmm fit iris --precision float3", ["float32"]),
    ):
        asked = {
            "_JGMM_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        result = CliRunner().invoke(app, [], env=asked, prog_name="jgmm")
        assert result.stdout.split() == expected, words
