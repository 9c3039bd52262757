"""The exponential-family form: the product of features and parameters is the log joint density."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm._data.samples import make_samples
from jgmm.em import exponential_family

K, D = 3, 4


def given(name, dtype, seed=3):
    truth = oracle.parameters(seed, k=K, d=D, model=name)
    return jgmm.make_mixture(*(a.astype(dtype) for a in truth), name)


@pytest.mark.parametrize("name", oracle.FREE)
def test_product_of_features_and_parameters_is_the_log_joint(name, dtype, tolerance):
    mixture = given(name, dtype)
    x = np.random.default_rng(0).normal(size=(5, D)).astype(dtype)
    read = exponential_family.read_for(mixture.model)
    block = exponential_family.features(mixture.model, read(make_samples(x), 0, 5)[0])
    assert 1 + len(block.x) + len(block.quadratic) == exponential_family.n_features(
        mixture.model, D
    )
    eta = exponential_family.natural_parameters(mixture)
    assert (eta.quadratic is None) == mixture.model.shared
    found = exponential_family.scores(eta, block)
    if mixture.model.shared:
        found = found + exponential_family.shared_score(mixture, block.x)[None, :]
    expected = jgmm.e_step(mixture, x)
    # Scores here are of order ten.
    limits = {"rtol": tolerance["rtol"], "atol": 10 * tolerance["atol"]}
    log_joint = expected.log_resp + expected.log_prob[:, None]
    np.testing.assert_allclose(found.T, log_joint, **limits)


def computed_from_constants(jaxpr, known):
    """The names of operations on more than a thousand numbers that all are known to the compiler.

    Args:
      jaxpr: of a function without loops.
      known: whether each of its arguments is.
    """
    is_known = dict(zip(jaxpr.invars, known, strict=True)) | dict.fromkeys(jaxpr.constvars, True)
    found = []
    for each in jaxpr.eqns:
        inputs = [hasattr(v, "val") or is_known.get(v, False) for v in each.invars]
        is_known |= dict.fromkeys(each.outvars, all(inputs))
        inner = each.params.get("jaxpr")
        if inner is not None:
            found += computed_from_constants(inner.jaxpr, inputs)
        elif all(inputs) and each.primitive.name not in ("broadcast_in_dim", "reshape", "iota"):
            size = max(v.aval.size for v in (*each.invars, *each.outvars))
            found += [each.primitive.name] * (size > 1000)
    return found


def test_the_compiler_is_given_no_tables_to_compute():
    """XLA would do it element by element, and tell the user that it takes long."""
    d, entry = 60, jgmm.covariance.model("full")

    def every(x, scale, moments):
        mixture = jgmm.Mixture(jnp.zeros(2, x.dtype), x[:2], scale, "full")
        eta = exponential_family.natural_parameters(mixture)
        block = exponential_family.features(entry, x.T)
        return eta, block, exponential_family.unpack(entry, moments, d)

    shapes = [(5, d), (2, d, d), (2, d * (d + 1) // 2)]
    traced = jax.make_jaxpr(every)(*(jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes))
    # The identity that a factor is padded with is compared index by index where it is used.
    expected = {"add", "eq", "convert_element_type"}
    assert set(computed_from_constants(traced.jaxpr, [False] * len(shapes))) <= expected
