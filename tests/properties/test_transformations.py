"""jit, vmap and grad change nothing but speed, and nothing is compiled twice."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm import kmeans
from jgmm.covariance.models import model
from jgmm.fitting import single_run
from jgmm.mixture import gaussian

N, K, D, STEPS = 60, 3, 2, 30


# A transformation does not know the precision; float64 shows differences best.
@pytest.fixture(scope="module", params=["float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(0, N, *oracle.parameters(1, k=K, d=D)).astype(dtype)


@pytest.fixture(scope="module")
def weight(dtype):
    return np.resize([1.0, 2.0, 0.5], N).astype(dtype)


@pytest.fixture(scope="module")
def mixture(dtype):
    return jgmm.make_mixture(*(a.astype(dtype) for a in oracle.parameters(1, k=K, d=D)))


def close(found, expected, dtype):
    """A program compiled as a whole may order its sums otherwise."""
    tolerance = 1e4 * np.finfo(dtype).eps
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def pick(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


# What every question is asked with: a mixture, samples, weights, responsibilities.
QUESTIONS = {
    "log_prob": lambda m, x, w, r: jgmm.log_prob(m, x),
    "e_step": lambda m, x, w, r: jgmm.e_step(m, x),
    "responsibilities": lambda m, x, w, r: jgmm.responsibilities(m, x),
    "predict": lambda m, x, w, r: jgmm.predict(m, x),
    "accumulate": lambda m, x, w, r: jgmm.accumulate(m, x, w),
    "m_step": lambda m, x, w, r: jgmm.m_step(x, r, "full", w),
    "em_step": lambda m, x, w, r: jgmm.em_step(m, x, w),
    "run": lambda m, x, w, r: single_run.run_em(m, x, w, max_steps=STEPS),
    "sample": lambda m, x, w, r: jgmm.sample(jax.random.key(0), m, 50),
    "marginal": lambda m, x, w, r: jgmm.marginal(m, [1]),
    "condition": lambda m, x, w, r: jgmm.condition(m, [1], x[0, :1]),
    "fit": lambda m, x, w, r: jgmm.fit(
        jax.random.key(0), x, K, n_restarts=2, sample_weight=w, max_steps=STEPS, ridge=1e-3
    ),
    "kmeans": lambda m, x, w, r: kmeans.fit(jax.random.key(0), x, K, sample_weight=w),
}


@pytest.mark.parametrize("question", list(QUESTIONS))
def test_jit_changes_nothing(question, mixture, x, weight, dtype):
    ask = QUESTIONS[question]
    resp = jgmm.responsibilities(mixture, x)
    close(jax.jit(ask)(mixture, x, weight, resp), ask(mixture, x, weight, resp), dtype)


@pytest.mark.parametrize("question", ["accumulate", "m_step", "run", "sample"])
def test_vmap_over_mixtures_is_a_loop(question, mixture, x, weight, dtype):
    ask = QUESTIONS[question]
    mixtures = [
        jgmm.Mixture(mixture.log_weights, mixture.means + shift, mixture.scale, "full")
        for shift in (0.0, 0.25, -0.5)
    ]
    resps = [jgmm.responsibilities(m, x) for m in mixtures]
    batch = jax.jit(jax.vmap(ask, (0, None, None, 0)))(stack(mixtures), x, weight, stack(resps))
    for state, (each, resp) in enumerate(zip(mixtures, resps, strict=True)):
        close(pick(batch, state), ask(each, x, weight, resp), dtype)


@pytest.mark.parametrize("question", ["em_step", "fit", "kmeans"])
def test_vmap_over_data_sets_is_a_loop(question, mixture, x, weight, dtype):
    ask = QUESTIONS[question]
    sets = np.stack([x, 1.25 * x + 0.125, x[::-1] - 0.25])
    batch = jax.jit(jax.vmap(lambda x: ask(mixture, x, weight, None)))(sets)
    for state, each in enumerate(sets):
        close(pick(batch, state), ask(mixture, each, weight, None), dtype)


@pytest.mark.parametrize("covariance", ["tied", "diag", "spherical"])
def test_every_storage_can_be_batched(covariance, x, dtype):
    """A leading axis on every leaf, whatever their shapes."""
    truths = [oracle.parameters(seed, k=K, d=D, model=covariance) for seed in (1, 2)]
    mixtures = [jgmm.make_mixture(*(a.astype(dtype) for a in t), covariance) for t in truths]
    batch = jax.vmap(jgmm.log_prob, (0, None))(stack(mixtures), x)
    for state, each in enumerate(mixtures):
        close(batch[state], jgmm.log_prob(each, x), dtype)


def finite_difference(f, tree, direction, step):
    """Central difference of a scalar along a direction, in float64 whatever f is computed in."""
    ahead = jax.tree.map(lambda a, d: a + step * d, tree, direction)
    behind = jax.tree.map(lambda a, d: a - step * d, tree, direction)
    return (float(f(ahead)) - float(f(behind))) / (2 * step)


def random_direction(seed, tree):
    leaves, shape = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    drawn = [jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves]
    return jax.tree.unflatten(shape, drawn)


def sums(covariance):
    """Scalars of a mixture, by the two routes a likelihood is computed on."""
    return {
        "log_prob": lambda m, x: jgmm.log_prob(m, x).sum(),
        "accumulate": lambda m, x: jgmm.accumulate(m, x).log_likelihood,
    }[covariance]


@pytest.mark.parametrize(
    ("route", "covariance"),
    [("log_prob", name) for name in ("full", "tied", "diag", "spherical")]
    + [("accumulate", "full"), ("accumulate", "spherical")],
)
def test_gradients_are_finite_differences(route, covariance, x, dtype):
    """In float64 to the square of the step; the float32 gradient against the float64 one."""
    truth = oracle.parameters(1, k=K, d=D, model=covariance)
    exact = jgmm.make_mixture(*truth, covariance)
    f = jax.jit(sums(route))
    gradient = jax.jit(jax.grad(sums(route)))
    found = gradient(jax.tree.map(lambda leaf: leaf.astype(dtype), exact), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {dtype}
    for seed in range(3):
        # Only the lower triangle of a factor is looked at.
        direction = random_direction(seed, exact)
        if model(covariance).storage.ndim == 3:
            direction = jgmm.Mixture(
                direction.log_weights, direction.means, jnp.tril(direction.scale), covariance
            )
        slope = sum(
            float((g.astype(float) * d).sum())
            for g, d in zip(jax.tree.leaves(found), jax.tree.leaves(direction), strict=True)
        )
        expected = finite_difference(lambda m: f(m, x.astype(np.float64)), exact, direction, 1e-5)
        rtol = {4: 1e-3, 8: 1e-6}[dtype.itemsize]
        np.testing.assert_allclose(slope, expected, rtol=rtol, atol=rtol)


def test_the_gradient_in_samples_is_the_score(mixture, x, dtype):
    """∇ₓ log p(x) = Σₖ p(k | x) Σₖ⁻¹ (μₖ − x), which is not differentiated but written down."""
    found = jax.jit(jax.grad(lambda x: jgmm.log_prob(mixture, x).sum()))(x)
    resp = np.asarray(jgmm.responsibilities(mixture, x), np.float64)
    away = np.asarray(mixture.means, np.float64)[None] - x[:, None].astype(np.float64)
    inverse = np.linalg.inv(np.asarray(mixture.covariances, np.float64))
    close(found, np.einsum("nk,kde,nke->nd", resp, inverse, away), dtype)


def test_gradients_stay_finite_far_away(mixture, dtype):
    far = jnp.full((1, D), 1e10, dtype)
    assert np.isfinite(jax.grad(lambda x: jgmm.log_prob(mixture, x).sum())(far)).all()


def test_gaussian_gradient_by_hand(dtype):
    """d/dμ log N(x | μ, σ²) = (x − μ) / σ²."""
    x, one = jnp.asarray([[3.0]], dtype), jnp.ones((1, 1), dtype)
    slope = jax.grad(lambda mean: gaussian.log_prob(x, mean, 2 * one)[0])(one[0])
    np.testing.assert_allclose(slope, [0.5], rtol=1e-6)


# Compilation.


class Compilations(logging.Handler):
    """Counts the programs JAX compiles, by the lines it logs about them."""

    def __init__(self):
        super().__init__()
        self.names = []

    def emit(self, record):
        text = record.getMessage()
        if text.startswith("Compiling "):
            self.names.append(text.split()[1])

    def __enter__(self):
        self.context = jax.log_compiles()
        self.context.__enter__()
        logger = logging.getLogger("jax")
        self.propagate, logger.propagate = logger.propagate, False
        logger.addHandler(self)
        return self

    def __exit__(self, *error):
        logger = logging.getLogger("jax")
        logger.removeHandler(self)
        logger.propagate = self.propagate
        self.context.__exit__(*error)


def test_the_counter_counts():
    with Compilations() as new:
        jax.jit(lambda x: x + 1)(np.zeros(7))
    assert len(new.names) == 1


@pytest.mark.parametrize("question", list(QUESTIONS))
def test_the_second_call_compiles_nothing(question, mixture, x, weight):
    ask, resp = QUESTIONS[question], jgmm.responsibilities(mixture, x)
    jax.block_until_ready(ask(mixture, x, weight, resp))
    other = jgmm.Mixture(mixture.log_weights, mixture.means + 0.5, mixture.scale, "full")
    with Compilations() as new:
        jax.block_until_ready(ask(other, 1.5 * x, 2 * weight, resp))
    assert new.names == []


@pytest.mark.parametrize(
    "change",
    [{"tol": 1e-3}, {"rtol": 1e-3}, {"ridge": 1e-2}, {"tol": 1e-5, "rtol": 0.0, "ridge": 1e-4}],
    ids=lambda change: "+".join(change),
)
def test_what_varies_compiles_nothing(change, mixture, x):
    """Tolerances and ridges are data; so is the key."""
    common = {"n_restarts": 2, "max_steps": STEPS}
    jgmm.fit(jax.random.key(0), x, K, ridge=1e-3, **common)
    single_run.run_em(mixture, x, max_steps=STEPS)
    with Compilations() as new:
        jgmm.fit(jax.random.key(1), x, K, **({"ridge": 1e-3} | common | change))
        single_run.run_em(mixture, x, max_steps=STEPS, **change)
    assert new.names == []


def test_watching_progress_compiles_nothing_more(x):
    common = {"n_restarts": 2, "max_steps": STEPS, "ridge": 1e-3}
    jgmm.fit(jax.random.key(0), x, K, progress=lambda report: None, **common)
    with Compilations() as new:
        jgmm.fit(jax.random.key(1), x, K, progress=lambda report: None, **common)
    assert new.names == []
