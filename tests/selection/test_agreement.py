"""Agreement of two partitions: the adjusted Rand index."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

import jgmm
from jgmm.selection import agreement

LABELS = st.lists(st.tuples(st.integers(0, 4), st.integers(-2, 1)), min_size=2, max_size=40)


def pairs_counted(a, b):
    """The index from its definition, pair by pair."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    in_a = sum(a[i] == a[j] for i, j in pairs)
    in_b = sum(b[i] == b[j] for i, j in pairs)
    both = sum(a[i] == a[j] and b[i] == b[j] for i, j in pairs)
    by_chance = in_a * in_b / len(pairs)
    most = (in_a + in_b) / 2
    return 1.0 if most == by_chance else (both - by_chance) / (most - by_chance)


@settings(max_examples=50)
@given(labels=LABELS)
def test_rand_index_matches_its_definition_and_scikit_learn(labels):
    a, b = map(list, zip(*labels, strict=True))
    found = agreement.adjusted_rand_index(a, b)
    assert found == pytest.approx(pairs_counted(a, b), abs=1e-12)
    assert found == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
    assert found == agreement.adjusted_rand_index(b, a)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 1, 1], ["x", "x", "y", "y"], 1.0),
        ([0, 0, 0], [1, 1, 1], 1.0),
        ([0, 1, 2], [2, 1, 0], 1.0),
        ([0, 0, 0, 0], [0, 1, 2, 3], 0.0),
        ([0, 0, 1, 1], [0, 1, 0, 1], -0.5),
        ([4], [7], 1.0),
    ],
)
def test_rand_index_of_small_partitions(a, b, expected):
    assert agreement.adjusted_rand_index(a, b) == expected


@pytest.mark.parametrize(("a", "b"), [([0, 1], [0]), ([], []), ([[0]], [[0]])])
def test_rand_index_refuses(a, b):
    with pytest.raises(jgmm.DataError, match="one label a sample"):
        agreement.adjusted_rand_index(a, b)
