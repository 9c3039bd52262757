"""Names in a config are those of the tables of the library."""

import dataclasses

import pytest
from workbench.config.problems import problem

from jgmm._core.errors import UserError
from jgmm.covariance.models import _BY_NAME, MODELS
from jgmm.em.acceleration_schemes import SCHEMES
from jgmm.initialization.methods import STARTS
from jgmm.selection.criteria import CRITERIA
from jgmm.workbench.cli.completion import complete_covariance, complete_criterion
from jgmm.workbench.config import models

TABLES = {
    "init": (STARTS, "kmeans"),
    "accelerate": (SCHEMES, "anderson"),
    "criterion": (CRITERIA, "bic"),
    "covariance": (MODELS, "VVV"),
}


@pytest.mark.parametrize("field", TABLES)
def test_an_entry_of_a_table_is_known_without_more_ado(field, monkeypatch):
    """One file is touched to add one: that of the table."""
    table, known = TABLES[field]
    with pytest.raises(UserError, match=r"(?i)known: "):
        models.from_table({"fit": {field: "zzz"}})
    entry = table[known]
    if field == "covariance":
        entry = dataclasses.replace(entry, code="marvel", names=("marvel",))
        monkeypatch.setitem(_BY_NAME, "marvel", entry)
    monkeypatch.setitem(table, "marvel", entry)
    found = getattr(models.from_table({"fit": {field: "marvel"}}).fit, field)
    assert found in ("marvel", ["marvel"])
    assert "did you mean 'marvel'?" in problem({"fit": {field: "marvle"}}).lower()
    described = models.schema({})["$defs"]["Fit"]["properties"][field]
    assert "marvel" in described.get("enum", described.get("examples"))
    complete = {"criterion": complete_criterion, "covariance": complete_covariance}.get(field)
    assert complete is None or complete("marv") == ["marvel"]


def test_the_names_that_stand_for_none_and_for_all_are_listed():
    fields = models.schema({})["$defs"]["Fit"]["properties"]
    assert fields["accelerate"]["enum"] == [*SCHEMES, "none"]
    assert fields["covariance"]["examples"] == ["all", *(each.name for each in MODELS.values())]
    assert models.from_table({"fit": {"accelerate": "none"}}).fit.options()["accelerate"] is None
