"""A problem for the tests of gradient fits."""

import functools

import jax
import optax
import oracle

N, K, D = 90, 2, 2
KEY = jax.random.key(0)
ADAM, SGD, LBFGS = optax.adam(5e-2), optax.sgd(0.3), optax.lbfgs()
# What most fits share, so that they are one program.
PLAIN = {"optimizer": SGD, "max_steps": 40, "gradient_tol": 0.0, "init": "points"}


@functools.cache
def samples():
    truth = oracle.parameters(4, k=K, d=D)
    return oracle.draw(0, N, *truth)
