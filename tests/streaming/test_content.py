"""The content of a pass tells whether another pass has read the same rows."""

import numpy as np
import pytest

from jgmm.streaming.content import N_WORDS, Content, content_of, difference
from jgmm.streaming.sources import rebatch


def data(dtype, n=30):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 3)).astype(dtype), rng.integers(1, 4, n).astype(dtype)


def content(x, weights=None, rows=8):
    blocks = rebatch([(x, weights)], rows, x.shape[1], x.dtype)
    return sum(map(content_of, blocks), Content())


@pytest.mark.parametrize("rows", [8, 30, 300])
def test_it_does_not_depend_on_the_blocks_or_on_the_order(dtype, rows):
    x, weights = data(dtype)
    whole = content(x, weights)
    order = np.random.default_rng(1).permutation(30)
    found = content(x[order], weights[order], rows)
    assert found.same_rows(whole)
    assert (found.n_rows, found.weight) == (30, weights.sum())
    parts = content(x[:11], weights[:11]) + content(x[11:], weights[11:])
    assert parts.same_rows(whole)


def test_weights_of_one_are_no_weights(dtype):
    x, _ = data(dtype)
    assert content(x, np.ones(30, dtype)) == content(x)


def changes(x, weights):
    """Other samples, each near to those given."""
    y, v = x.copy(), weights.copy()
    y[4, 1] = np.nextafter(y[4, 1], 9)
    yield "one bit", y, v
    y = x.copy()
    y[3, :2] *= -1
    yield "two signs", y, v
    yield "all signs", -x, v
    yield "columns swapped", x[:, [1, 0, 2]], v
    y = x.copy()
    y[[2, 3], 1] = x[[3, 2], 1]
    yield "values swapped in a column", y, v
    yield "weights swapped", x, np.roll(v, 1)
    yield "a row twice, another not", x[[0, 0, *range(2, 30)]], v[[0, 0, *range(2, 30)]]
    yield "a row less", x[:-1], v[:-1]
    yield "a row more, of weight zero", np.append(x, x[:1], axis=0), np.append(v, 0)


NAMES = [name for name, _, _ in changes(*data(np.float64))]


@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_the_samples_shows(dtype, name):
    x, weights = data(dtype)
    ((y, v),) = [(y, v) for found, y, v in changes(x, weights) if found == name]
    assert not content(y.astype(dtype), v.astype(dtype)).same_rows(content(x, weights))


def test_a_row_of_weight_zero_may_hold_anything(dtype):
    x, weights = data(dtype)
    weights[5] = 0
    y = x.copy()
    y[5] = np.nan
    assert content(y, weights).same_rows(content(x, weights))


def test_words_keep_every_bit():
    given = Content(2**40 + 1, 0.1, 2**32 - 1)
    words = given.to_words()
    assert (words.shape, words.dtype) == ((N_WORDS,), np.uint32)
    assert Content.from_words(words) == given
    assert Content.from_words(np.zeros(N_WORDS, np.uint32)) == Content()


@pytest.mark.parametrize(
    ("later", "text"),
    [
        (Content(2, 2.0, 5), "3 rows at first and 2 later"),
        (Content(3, 2.5, 5), "a total weight of 3 at first and 2.5 later"),
        (Content(3, 3.0, 5), "3 rows each time, but with other values or weights"),
    ],
)
def test_the_difference_is_said(later, text):
    assert difference(Content(3, 3.0, 4), later) == text
