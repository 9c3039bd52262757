"""Calls that a new user makes: each works, or ends in one sentence with the way out.

The tests run beartype, which would refuse such calls before jgmm does; so they are made in a
process without it, all in one.
"""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import jgmm
from jgmm._core.errors import DataError, FitError
from jgmm.selection.likelihood_ratio import RatioTest, _check_reach

# What is called, and what the error says: the whole text, or its beginning.
ERRORS = {
    "jgmm.fit(x, 3)": "TypeError: key must be a typed key such as jax.random.key(0), not an "
    "array of shape (20, 2). The key comes first: fit(jax.random.key(0), x, n_components).",
    "jgmm.fit(x.tolist(), n_components=3)": "TypeError: key must be a typed key such as "
    "jax.random.key(0), not a list of 20. The key comes first: fit(jax.random.key(0), x, "
    "n_components).",
    "jgmm.select(x)": "TypeError: key must be a typed key such as jax.random.key(0), not an "
    "array of shape (20, 2). The key comes first: select(jax.random.key(0), x).",
    "jgmm.sample(m, 5)": "TypeError: key must be a typed key such as jax.random.key(0), not a "
    "Mixture. The key comes first: sample(jax.random.key(0), mixture, n_samples).",
    "jgmm.fit(0, x, 2)": "TypeError: key must be a typed key such as jax.random.key(0), not 0. "
    "The key comes first: fit(jax.random.key(0), x, n_components).",
    "jgmm.fit(jax.random.PRNGKey(0), x, 2)": "TypeError: key is an untyped one, as "
    "jax.random.PRNGKey makes them; it must be a typed key such as jax.random.key(0). The one you "
    "have becomes one by jax.random.wrap_key_data(key).",
    "jgmm.fit(key, 3, x)": "DataError: x must be two-dimensional, samples in rows; it has shape "
    "(). One feature: x[:, None]; one sample: x[None, :].",
    "jgmm.fit(key, x, x)": "DataError: n_components must be a whole number of at least 1; it is an "
    "array of shape (20, 2).",
    "jgmm.fit(key, x, 2, covariance_type='diag')": "TypeError: there is no option "
    "'covariance_type'; here it is covariance.",
    "jgmm.fit(key, x, 2, n_init=3)": "TypeError: there is no option 'n_init'; here it is "
    "n_restarts.",
    "jgmm.fit(key, x, 2, random_state=0)": "TypeError: there is no option 'random_state'; here it "
    "is the key, which comes first: jax.random.key(0), or another number for other starts.",
    "jgmm.select(key, x, 2, max_iter=9)": "TypeError: there is no option 'max_iter'; here it is "
    "max_steps.",
    "jgmm.fit(key, x, 2, n_restart=3)": "TypeError: unknown option 'n_restart'. Did you mean "
    "'n_restarts'? Known: covariance, n_restarts, ",
    "jgmm.predict(x, m)": "DataError: the mixture is needed here, and it comes before the samples, "
    "as in log_prob(mixture, x); in its place is an array of shape (20, 2).",
    "jgmm.log_prob(m, m)": "DataError: x is of type Mixture; it must be an array, a list or a data "
    "frame.",
    "jgmm.log_prob(noisy, x)": "DataError: this fit has a noise component, which is no part of its "
    "mixture. With the noise: jgmm.mixture.noise.log_prob(result.mixture, result.noise, x), or "
    "predict or probability in that module. Without the noise: give result.mixture.",
    "jgmm.condition(m, 0, [1.0, 2.0])": "DataError: values must have shape (1,), one a known "
    "coordinate; they have (2,).",
    "jgmm.fit(key, sparse, 2)": "DataError: x is sparse (csr_matrix), and every entry is needed "
    "here. Give x.toarray(), which takes 320 MB in float64.",
    "jgmm.fit(key, x, 2, noise=True)": "DataError: noise=True does not say how large the region of "
    'the noise is: noise="box" is the samples\' bounding box; or give a volume. None, the default, '
    "is no noise.",
    "jgmm.fit(key, x, 2, noise=x)": "DataError: the volume of the noise must be a positive number; "
    "it is an array of shape (20, 2).",
    "jgmm.fit(key, x, 2, tol=-x)": "DataError: tol must be at least zero; it is an array of "
    "shape (20, 2).",
    "jgmm.fit(key, x, 2, prior=x)": 'DataError: prior must be None, "conjugate" or a '
    "jgmm.mixture.Prior, not an array of shape (20, 2).",
    "jgmm.selection.sequential_test(key, x, n_replicates=9)": "DataError: n_replicates=9 cannot "
    "reach the level 0.05: the least p-value is 1 / 10. Take at least 19.",
    "jgmm.make_mixture(np.ones(30), np.zeros((30, 1)), np.ones(30), 'V')": "DataError: weights "
    "must be nonnegative and sum to one; they are a list of 30.",
}
SCRIPT = """
import dataclasses, json, sys
import jax, numpy as np, scipy.sparse, jgmm
x = np.random.default_rng(0).normal(size=(20, 2))
key = jax.random.key(0)
m = jgmm.make_mixture([0.5, 0.5], [[0.0, 0.0], [4.0, 0.0]], [1.0, 1.0], "spherical")
one = np.float32(0)
result = jgmm.FitResult(m, one, one, np.int32(1), np.int32(1), one, np.int32(-1))
noisy = dataclasses.replace(result, noise=jgmm.mixture.Noise(one, one))
sparse = scipy.sparse.csr_matrix((200_000, 200))
said = {}
for call in json.loads(sys.argv[1]):
    try:
        eval(call)
        said[call] = "nothing"
    except Exception as error:
        said[call] = f"{type(error).__name__}: {error}"
said["same"] = all(
    np.array_equal(ask(m), ask(result))
    for ask in (lambda m: jgmm.log_prob(m, x), lambda m: jgmm.predict(m, x),
                lambda m: jgmm.sample(key, m, 3)[0], lambda m: jgmm.condition(m, 0, 5.0).means)
)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said():
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(ERRORS))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


@pytest.mark.parametrize("call", list(ERRORS))
def test_each_ends_in_a_sentence_with_the_way_out(call, said):
    whole = not ERRORS[call].endswith(" ")
    assert said[call] == ERRORS[call] if whole else said[call].startswith(ERRORS[call])
    assert "[[" not in said[call]


def test_a_result_is_taken_where_a_mixture_is(said):
    assert said["same"]


def test_numbers_are_taken_where_one_coordinate_is_known():
    one = jgmm.make_mixture([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]])
    given = jgmm.condition(one, 0, 5.0)
    assert given.means.tolist() == jgmm.condition(one, [0], [5.0]).means.tolist()
    assert jgmm.marginal(one, 1).n_features == 1


def test_a_level_that_lost_replicates_put_out_of_reach():
    one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "E")
    replicates = np.arange(19.0)
    _check_reach(RatioTest(1, 30.0, 1 / 20, replicates, one, one), 0.05)
    replicates[3] = np.nan
    _check_reach(RatioTest(1, 10.0, 9 / 19, replicates, one, one), 0.05)
    with pytest.raises(FitError, match="1 of 19 replicates were lost, and the 18 left cannot"):
        _check_reach(RatioTest(1, 30.0, 1 / 19, replicates, one, one), 0.05)


def test_one_column_has_two_models():
    x = np.r_[np.linspace(0, 1, 6), np.linspace(5, 6, 6)][:, None]
    options = {"init": "points", "n_restarts": 2, "max_steps": 20}
    found = jgmm.select(jax.random.key(0), x, [1, 2], "all", **options)
    assert [row.covariance for row in found.table] == ["E", "E", "V", "V"]
    assert set(found.results) == {(k, name) for k in (1, 2) for name in "EV"}
    assert found.results[2, "V"].mixture.covariance == "spherical"
    assert found.mixture is found.result.mixture
    with pytest.raises(DataError):
        jgmm.select(jax.random.key(0), x, [99], "all")
