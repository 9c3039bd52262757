"""Processes that each read a share of the samples."""

import jax
import numpy as np
import pytest
from clouds import data, from_rows

from jgmm._data import standardization
from jgmm._data.samples import DataSummary, make_samples
from jgmm.distributed.processes import sum_processes
from jgmm.em.options import Options
from jgmm.fitting.single_run import algorithm_for
from jgmm.mixture import mixture
from jgmm.streaming import passes
from jgmm.streaming.reader import SingleProcess
from jgmm.streaming.sources import rebatch


@pytest.fixture(scope="module")
def start():
    return from_rows(data(np.float32)[0])


def test_sums_do_not_depend_on_which_process_adds_a_block(start):
    """Added up by one, or by three who each have some of them: the same to the last bit."""
    x, weights = data(np.float32, 9000)
    options = Options("diag", init=start, max_steps=4)
    method = algorithm_for(options)
    samples = make_samples(x, weights)
    data_summary = DataSummary(
        standardization.center_and_scale(samples, True).frame, samples.total_weight()
    )
    starts = jax.tree.map(lambda leaf: leaf[None], mixture.to_standard(start, data_summary.frame))
    begun = passes.first_state(method, starts, data_summary, options.control(samples, 3))
    blocks = list(rebatch([(x, weights)], 256, 3, np.dtype(np.float32)))

    def added(some):
        sums = begun.sums
        for block in some:
            sums = passes._add(method, sums, begun.runs, block, data_summary)
        return sums.total, sums.lost

    alone = SingleProcess().add(*added(blocks))
    shares = [added(some) for some in (blocks[:5], blocks[5:6], blocks[6:])]
    shared = sum_processes(shares, alone.center)
    for one, other in zip(jax.tree.leaves(shared), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(one, other)
    # In single precision it does show.
    plain = sum(np.asarray(total.second) for total, _ in shares)
    assert (plain != np.asarray(alone.second)).any()
