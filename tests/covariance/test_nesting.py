"""Which covariance model is a special case of which other."""

import itertools

from jgmm.covariance import nesting
from jgmm.covariance.models import MODELS

K, D = 3, 2
PAIRS = [
    (outer, inner)
    for outer, inner in itertools.permutations(MODELS, 2)
    if nesting.contains(MODELS[outer], MODELS[inner])
]


def test_what_contains_what():
    """Every model but the least has a special case; all have the least, and the freest has all."""
    assert {inner for outer, inner in PAIRS if outer == "VVV"} == set(MODELS) - {"VVV"}
    assert {outer for outer, inner in PAIRS if inner == "EII"} == set(MODELS) - {"EII"}
    assert {inner for outer, inner in PAIRS if outer == "EVE"} == {"EII", "EEI", "EVI", "EEE"}
    assert {inner for outer, inner in PAIRS if outer == "VEI"} == {"EII", "VII", "EEI"}
    assert not any((inner, outer) in PAIRS for outer, inner in PAIRS)


def test_no_special_case_has_more_parameters():
    for outer, inner in PAIRS:
        assert MODELS[outer].count(K, D) > MODELS[inner].count(K, D)


def test_what_is_one_model_in_one_column_or_with_one_component():
    """Models that are one have one count; in three columns with two components all differ."""
    for k, d, distinct in ((2, 1, 2), (1, 1, 1), (1, 3, 3), (2, 3, 14)):
        codes = {name: nesting.reduced_code(entry, k, d) for name, entry in MODELS.items()}
        assert len(set(codes.values())) == distinct
        for name, code in codes.items():
            assert MODELS[name].count(k, d) == MODELS[code].count(k, d)


def test_the_largest_within():
    def within(code, codes):
        return {e.code for e in nesting.largest_within(MODELS[code], [MODELS[c] for c in codes])}

    assert within("VVV", MODELS) == {"VVE", "VEV", "EVV"}
    assert within("VEE", MODELS) == {"VEI", "EEE"}
    assert within("EII", MODELS) == set()
    assert within("VVV", ["VVV", "EII", "VII"]) == {"VII"}


def test_simplest_first_puts_special_cases_before():
    order = [entry.code for entry in nesting.simplest_first(reversed(MODELS.values()))]
    assert sorted(order) == sorted(MODELS)
    assert all(order.index(inner) < order.index(outer) for outer, inner in PAIRS)
