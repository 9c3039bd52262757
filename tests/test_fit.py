"""``jgmm.fit``: the outcome of every restart, and the choice of the best."""

import dataclasses
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from marks import in_double, in_single

import jgmm
from jgmm._core import budget
from jgmm._core.status import Status
from jgmm._data.samples import make_samples
from jgmm.fitting import single_run
from jgmm.fitting.restarts import Progress
from jgmm.initialization.draw import draw

N, K, D, R, STEPS = 60, 3, 2, 12, 120
FIELDS = ("log_likelihood", "status", "n_steps", "collapsed")


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(1, N, *oracle.parameters(5, k=K, d=D)).astype(dtype)


def fit(x, n_restarts=R, **options):
    options = {"covariance": "diag", "init": "points", "max_steps": STEPS} | options
    # With this key no run ends in a spike, which would take back the best log-likelihood so far.
    return jgmm.fit(jax.random.key(1), x, K, n_restarts=n_restarts, **options)


@pytest.fixture(scope="module")
def result(x):
    return fit(x)


def test_the_best_valid_restart_is_chosen(result):
    restarts = result.restarts
    valid = np.isin(np.asarray(restarts.status), [Status.CONVERGED, Status.STEPS_RAN_OUT])
    assert valid.any()
    best = int(restarts.best)
    assert valid[best]
    assert float(restarts.log_likelihood[best]) == np.asarray(restarts.log_likelihood)[valid].max()
    for field in FIELDS:
        assert getattr(result, field) == getattr(restarts, field)[best]


def test_the_outcome_of_every_restart_is_told(result):
    for field in FIELDS:
        assert getattr(result.restarts, field).shape == (R,)
    assert result.restarts.best.shape == ()
    assert (np.asarray(result.restarts.status) != Status.RUNNING).all()
    # Starts differ, so outcomes do: a key used twice would show here.
    assert len(set(np.asarray(result.restarts.n_steps).tolist())) > 1


def test_the_log_likelihood_belongs_to_the_mixture(result, x, tolerance):
    np.testing.assert_allclose(
        result.log_likelihood, jgmm.log_prob(result.mixture, x).sum(), **tolerance
    )
    assert result.history[int(result.n_steps)] == result.log_likelihood


@in_double
def test_restarts_do_not_depend_on_their_number(result, x):
    """Restart r uses fold_in(key, r): those of a smaller run are the first of a larger one."""
    few = fit(x, n_restarts=3)
    np.testing.assert_array_equal(few.restarts.n_steps, result.restarts.n_steps[:3])
    np.testing.assert_array_equal(few.restarts.status, result.restarts.status[:3])
    rtol = 100 * np.finfo(x.dtype).eps
    np.testing.assert_allclose(
        few.restarts.log_likelihood, result.restarts.log_likelihood[:3], rtol=rtol
    )
    # Two programs, one for each number of restarts, may differ by a rounding.
    slack = 8 * np.finfo(x.dtype).eps * abs(float(few.log_likelihood))
    assert float(result.log_likelihood) >= float(few.log_likelihood) - slack


def test_the_same_key_gives_the_same_fit(result, x):
    chex.assert_trees_all_equal(fit(x), result)
    other = jgmm.fit(
        jax.random.key(2), x, K, n_restarts=R, covariance="diag", init="points", max_steps=STEPS
    )
    assert not np.array_equal(other.restarts.log_likelihood, result.restarts.log_likelihood)


def test_progress_changes_nothing_and_says_where_the_fit_is(result, x):
    told = []
    watched = fit(x, progress=told.append)
    chex.assert_trees_all_equal(watched, result)
    assert all(isinstance(report, Progress) for report in told)
    steps = [report.step for report in told]
    assert steps == sorted(steps)
    longest = int(result.restarts.n_steps.max())
    assert steps[-1] == longest
    assert steps[0] == budget.CHUNK_STEPS
    # More where starts wait for the end of others.
    assert len(told) >= -(-(longest + 1) // budget.CHUNK_STEPS)
    assert told[-1].n_running == 0
    assert all(report.n_restarts == R and report.max_steps == STEPS for report in told)
    likelihoods = [report.log_likelihood for report in told]
    np.testing.assert_allclose(likelihoods[-1], float(result.log_likelihood), rtol=1e-6)
    assert all(low <= high + 1e-3 for low, high in itertools.pairwise(likelihoods))


@in_single
def test_the_default_misses_no_clean_clusters_with_any_key(dtype):
    """Where one start of k-means divides the wide one with most keys."""
    means, deviations = np.array([[0, 0], [14, 0], [14, 6]]), np.array([3, 0.5, 0.5])
    rng, sizes = np.random.default_rng(0), [300, 40, 40]
    parts = zip(means, deviations, sizes, strict=True)
    draws = [mean + deviation * rng.normal(size=(n, 2)) for mean, deviation, n in parts]
    clusters = np.concatenate(draws).astype(dtype)

    def missed(**options):
        keys = jax.random.split(jax.random.key(0), 40)
        found = [jgmm.fit(key, clusters, 3, **options).log_likelihood for key in keys]
        return int((np.array(found) < max(found) - 1).sum())

    assert missed(n_restarts=1, init="kmeans") > 10
    assert missed() == 0


def test_an_error_in_progress_reaches_the_caller(x):
    def stop(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(x, progress=stop)


@in_double
@pytest.mark.parametrize("max_steps", [0, budget.CHUNK_STEPS])
def test_steps_run_out_exactly(max_steps, x):
    told = []
    # Random responsibilities: a long way to go, so that no restart stands still before the end.
    ended = fit(x, max_steps=max_steps, tol=0.0, rtol=0.0, init="random", progress=told.append)
    assert Status(int(ended.status)) is Status.STEPS_RAN_OUT
    assert int(ended.n_steps) == max_steps
    assert told[-1].n_running == 0
    assert np.isfinite(ended.history).all()


@pytest.fixture(scope="module")
def spiky(dtype):
    """One sample three times, a little apart: of the restarts some collapse on it, some do not."""
    x = oracle.draw(1, N, *oracle.parameters(5, k=K, d=D)).astype(dtype)
    x[:3] = x[0] + np.array([4, 4], dtype)
    return x


def test_restarts_that_fail_are_reported_and_not_chosen(spiky):
    result = fit(spiky)
    status = np.asarray(result.restarts.status)
    assert (status == Status.COLLAPSED).any()
    assert (status == Status.CONVERGED).any()
    assert Status(int(result.status)) is Status.CONVERGED
    collapsed = np.asarray(result.restarts.collapsed)
    assert (collapsed[status == Status.COLLAPSED] >= 0).all()
    assert (collapsed[status != Status.COLLAPSED] == -1).all()


MANY = 256
# What spoils a start, and how it then has to end.
POISON = {
    "mean NaN": (lambda m: m.means.at[1].set(jnp.nan), "means", Status.NON_FINITE_PARAMETERS),
    # Infinitely far from all, it has lost its samples.
    "mean infinite": (lambda m: m.means.at[1].set(jnp.inf), "means", Status.COLLAPSED),
    "far from all": (lambda m: m.means.at[1].add(1e6), "means", Status.COLLAPSED),
    "scale NaN": (lambda m: m.scale.at[1].set(jnp.nan), "scale", Status.COLLAPSED),
    "scale zero": (lambda m: m.scale.at[1].set(0), "scale", Status.COLLAPSED),
    "weight NaN": (
        lambda m: m.log_weights.at[1].set(jnp.nan),
        "log_weights",
        Status.NON_FINITE_PARAMETERS,
    ),
}


def poisoned(starts, every):
    """The starts with every so many of them spoilt, and how each has to end, None as before."""
    states = [jax.tree.map(lambda leaf, r=r: leaf[r], starts) for r in range(MANY)]
    expected = [None] * MANY
    for number, r in enumerate(range(1, MANY, every)):
        spoil, field, expected[r] = list(POISON.values())[number % len(POISON)]
        states[r] = dataclasses.replace(states[r], **{field: spoil(states[r])})
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), expected


@in_double
@pytest.mark.parametrize("how", ["fit", "vmap"])
def test_of_many_restarts_the_healthy_end_as_they_would_alone(how, x):
    """Bit for bit in the same program, whatever becomes of the others; alone, to rounding."""
    starts = draw(
        jax.random.key(2), make_samples(x), K, covariance="diag", init="points", n_restarts=MANY
    )
    bad, expected = poisoned(starts, every=3)

    def run(states):
        if how == "fit":
            return fit(x, MANY, init=states)
        return jax.jit(jax.vmap(lambda m: single_run.run_em(m, x, max_steps=STEPS)))(states)

    healthy, broken = run(starts), run(bad)
    tables = [result.restarts if how == "fit" else result for result in (healthy, broken)]
    was, now = ({f: np.asarray(getattr(t, f)) for f in FIELDS} for t in tables)
    well = np.asarray([status is None for status in expected])
    assert 100 < well.sum() < 200
    for field in FIELDS:
        np.testing.assert_array_equal(now[field][well], was[field][well])
    assert now["status"][~well].tolist() == [int(s) for s in expected if s is not None]
    if how == "fit":
        best = int(broken.restarts.best)
        assert well[best]
        # Newer compilers fuse the way back from the frame here, and not in the table.
        one = {"rtol": float(np.finfo(x.dtype).eps)}
        np.testing.assert_allclose(broken.log_likelihood, was["log_likelihood"][best], **one)
    for r in np.flatnonzero(well)[:3]:
        alone = single_run.run_em(
            jax.tree.map(lambda leaf, r=r: leaf[r], starts), x, max_steps=STEPS
        )
        assert int(alone.status) == now["status"][r]
        if x.dtype == np.float64:  # in float32 rounding decides which of the last steps is it
            assert int(alone.n_steps) == now["n_steps"][r]
        np.testing.assert_allclose(
            alone.log_likelihood, now["log_likelihood"][r], rtol=100 * np.finfo(x.dtype).eps
        )


@in_double
def test_no_valid_restart_raises_and_says_why(x):
    pairs = np.repeat(x[:3], N // 3, axis=0)
    with pytest.raises(jgmm.FitError) as raised:
        fit(pairs, n_restarts=4, covariance="full", init="kmeans++")
    text = str(raised.value)
    assert "collapsed after" in text
    assert "Outcomes of the restarts: 4 collapsed" in text
    assert "ridge" in text


@in_double
def test_a_ridge_keeps_it_and_says_what_it_is(x):
    pairs = np.repeat(x[:3], N // 3, axis=0)
    result = fit(pairs, n_restarts=4, covariance="full", ridge=1e-3)
    assert Status(int(result.status)) is Status.DEGENERATE


@in_double
def test_weights_count_rows(x, dtype):
    """Samples written twice, or counted twice: the same optimum from the same labels."""
    half = N // 2
    twice = np.concatenate([x[:half], x[:half]])
    doubled = np.concatenate([np.full(half, 2, dtype), np.zeros(half, dtype)])
    labels = np.resize([0, 1, 2], N)
    ends = [
        jgmm.fit(
            jax.random.key(0),
            twice,
            K,
            init=labels,
            sample_weight=weight,
            ridge=1e-3,
            max_steps=20,
        )
        for weight in (np.ones(N, dtype), doubled)
    ]
    np.testing.assert_allclose(
        ends[0].log_likelihood, ends[1].log_likelihood, rtol=1e4 * np.finfo(dtype).eps
    )


@in_double
def test_many_data_sets_of_different_lengths_are_one_program(x):
    lengths = np.array([N, N - 17, N, N // 2])
    sets = np.stack([x, x[::-1], 3 * x + 1, x]).astype(np.float64)
    held = np.arange(N)[None, :] < lengths[:, None]
    sets[~held] = np.nan  # what is missing may hold anything
    sets[2, 0, 0] = np.inf  # and one bad data set spoils no other
    keys = jax.random.split(jax.random.key(5), len(sets))

    def one(key, x, weight):
        return jgmm.fit(key, x, K, n_restarts=2, init="kmeans++", sample_weight=weight)

    together = jax.jit(jax.vmap(one))(keys, sets, held.astype(np.float64))
    assert together.status[2] == Status.NON_FINITE_DATA
    for i in (0, 1, 3):
        alone = one(keys[i], sets[i], held[i].astype(np.float64))
        np.testing.assert_array_equal(together.status[i], alone.status)
        np.testing.assert_allclose(together.log_likelihood[i], alone.log_likelihood, rtol=1e-9)
        np.testing.assert_array_equal(together.restarts.n_steps[i], alone.restarts.n_steps)


@in_double
def test_a_device_may_fit_samples_of_its_own(x):
    """Inside ``shard_map``, with the argument that the docstring names."""
    auto, each = (jax.sharding.AxisType.Auto,), jax.sharding.PartitionSpec("own")
    mesh = jax.make_mesh((1,), ("own",), axis_types=auto)

    def one(x):
        return jax.tree.map(lambda leaf: leaf[None], fit(x[0], 2).mixture)

    run = jax.shard_map(one, mesh=mesh, in_specs=each, out_specs=each, check_vma=False)
    found = jax.tree.map(lambda leaf: leaf[0], jax.jit(run)(x[None]))
    chex.assert_trees_all_close(found, fit(x, 2).mixture, rtol=1e-6, atol=1e-6)
    assert "check_vma=False" in jgmm.fit.__doc__


@in_double
def test_inside_jit_bad_data_are_a_status(x):
    inside = jax.jit(lambda x: fit(x).status)
    assert Status(int(inside(x))).is_valid
    for bad in (np.nan, np.inf):
        spoiled = x.copy()
        spoiled[3, 1] = bad
        assert Status(int(inside(spoiled))) is Status.NON_FINITE_DATA


@in_single
def test_recovers_what_made_the_data(dtype):
    """Well separated components, many samples: parameters within five standard errors."""
    truth = oracle.parameters(9, k=K, d=D)
    truth = (truth[0], np.array([[-10.0, 0], [10, 0], [0, 15]]), truth[2])
    n = 3000
    x = oracle.draw(0, n, *truth).astype(dtype)
    found = jgmm.fit(jax.random.key(0), x, K, n_restarts=2, init="kmeans++").mixture
    order = [
        int(np.linalg.norm(np.asarray(found.means) - mean, axis=1).argmin()) for mean in truth[1]
    ]
    counts = truth[0] * n
    weights, means = np.asarray(found.weights)[order], np.asarray(found.means)[order]
    covariances = np.asarray(found.covariances)[order]
    assert (np.abs(weights - truth[0]) < 5 * np.sqrt(truth[0] / n)).all()
    for k in range(K):
        variances = np.diag(truth[2][k])
        assert (np.abs(means[k] - truth[1][k]) < 5 * np.sqrt(variances / counts[k])).all()
        error = np.sqrt((truth[2][k] ** 2 + np.outer(variances, variances)) / counts[k])
        assert (np.abs(covariances[k] - truth[2][k]) < 5 * error).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", [0, 1]),
        ("noise", "box"),
        ("progress", print),
    ],
)
def test_what_a_mesh_cannot_do_is_refused_and_not_dropped(name, value):
    mesh = jgmm.distributed.make_mesh(1)
    with pytest.raises(jgmm.DataError, match=f"{name} cannot be had on a mesh"):
        jgmm.fit(jax.random.key(0), [[0.0], [1.0]], 1, mesh=mesh, **{name: value})
