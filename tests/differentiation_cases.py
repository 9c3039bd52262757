"""A fit, and fits to samples, weights and a ridge that are moved a little, for derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle

import jgmm

N, K, D = 60, 2, 2
RIDGE = 0.05
KEY = jax.random.key(0)


@functools.cache
def samples():
    return oracle.draw(0, N, *oracle.parameters(4, k=K, d=D))


STEP = 1e-5


@functools.cache
def refits(name):
    """Fits to the last digit: of some samples, and of samples moved ahead and back three ways."""
    rng = np.random.default_rng(1)
    x, weight = samples(), rng.uniform(0.5, 2, size=N)
    # One direction in the samples, one in the weights, and the ridge.
    moves = [
        (rng.normal(size=x.shape), np.zeros(N), 0.0),
        (np.zeros_like(x), rng.normal(size=N), 0.0),
        (np.zeros_like(x), np.zeros(N), 1.0),
    ]
    at = [(x, weight, RIDGE)]
    at += [
        tuple(v + sign * m for v, m in zip(at[0], move, strict=True))
        for move in moves
        for sign in (STEP, -STEP)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(v) for v in leaves]), *at)
    truth = jgmm.make_mixture(*oracle.parameters(4, k=K, d=D, model=name), name)

    @jax.jit
    @jax.vmap
    def refit(x, weight, ridge):
        options = {"tol": 0.0, "rtol": 0.0, "max_steps": 3000, "ridge": ridge}
        return jgmm.fitting.run_em(truth, x, weight, **options).mixture

    return moves, refit(*stacked)


@functools.cache
def fitted(name):
    _, mixtures = refits(name)
    weight = np.random.default_rng(1).uniform(0.5, 2, size=N)
    return samples(), weight, jax.tree.map(lambda leaf: leaf[0], mixtures)
