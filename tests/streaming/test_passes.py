"""EM over blocks: a fit goes on from every state that was kept, and can be interrupted."""

import jax
import numpy as np
import pytest
from clouds import data, from_rows

import jgmm
from jgmm._core.errors import DataError
from jgmm._core.status import Status
from jgmm.streaming.fit import fit

KEY = jax.random.key(1)
SHORT = {"covariance": "diag", "block_rows": 256, "max_steps": 4}  # tests that share a program


@pytest.fixture(scope="module")
def start():
    return from_rows(data(np.float32)[0])


class InMemory:
    """A checkpointer that keeps every state in a list, and restores a given one."""

    def __init__(self, state=None, fail_after=None):
        self.kept, self.state, self.fail_after = [], state, fail_after

    def restore(self, like):
        if self.state is not None:
            shapes = [
                jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), s) for s in (like, self.state)
            ]
            assert shapes[0] == shapes[1]
        return self.state

    def save(self, state, now=False):
        self.kept.append(state)
        if len(self.kept) == self.fail_after and not now:
            raise KeyboardInterrupt


@pytest.mark.parametrize("accelerate", [None, "anderson"])
def test_every_pass_state_leads_to_the_same_end_bit_for_bit(start, accelerate):
    x, weights = data(np.float32)
    options = {"init": start, "accelerate": accelerate, "sample_weight": weights, **SHORT}
    first = InMemory()
    expected = fit(KEY, x, 3, checkpointer=first, **options)
    assert len(first.kept) == 5 * (4 + 1)
    for state in first.kept[3::5]:  # in the middle of passes and between them
        found = fit(KEY, x, 3, checkpointer=InMemory(state), **options)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("accelerate", [None, "anderson"])
def test_ctrl_c_returns_the_best_so_far(start, accelerate):
    x, _ = data(np.float32)
    options = {"init": start, "accelerate": accelerate, **SHORT}
    found = fit(KEY, x, 3, checkpointer=InMemory(fail_after=13), **options)
    assert Status(int(found.status)) is Status.INTERRUPTED
    expected = float(jgmm.log_prob(found.mixture, x).sum())
    np.testing.assert_allclose(found.log_likelihood, expected, rtol=1e-5)
    with pytest.raises(KeyboardInterrupt):  # there is nothing yet
        fit(KEY, x, 3, checkpointer=InMemory(fail_after=2), **options)


@pytest.mark.parametrize("number", [0, 7, -1])  # in the first pass, in the second, at the end
def test_a_state_of_other_samples_is_refused(start, number):
    x, weights = data(np.float32)
    options = {"init": start, "sample_weight": weights, **SHORT}
    first = InMemory()
    fit(KEY, x, 3, checkpointer=first, **options)
    state = InMemory(first.kept[number])
    other = x.copy()
    other[np.argmax(weights), 1] += 0.5
    for source, change, said in (
        (other, {}, "900 rows each time, but with other values or weights"),
        (x, {"sample_weight": weights[::-1]}, "with other values or weights"),
        (x[:896], {"sample_weight": weights[:896]}, "900 rows at first and 896 later"),
    ):
        with pytest.raises(DataError, match=f"the checkpoint belongs to other samples: .*{said}"):
            fit(KEY, source, 3, checkpointer=state, **options | change)
    assert not state.kept  # it was not replaced


def test_a_fit_goes_on_where_rows_come_in_another_order(start):
    """What an unfinished pass has added is of no use then: it begins again."""
    x, _ = data(np.float32)
    options = {"init": start, **SHORT}
    first = InMemory()
    expected = fit(KEY, x, 3, checkpointer=first, **options)
    found = fit(KEY, x[::-1], 3, checkpointer=InMemory(first.kept[7]), **options)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-6)
    np.testing.assert_allclose(found.mixture.means, expected.mixture.means, rtol=1e-4, atol=1e-4)
