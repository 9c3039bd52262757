"""Options of a fit: defaults, checks, the record that every function takes, and refusals."""

import dataclasses
import inspect
import typing

import jax
import numpy as np
import pytest

import jgmm
from jgmm._data import standardization
from jgmm._data.samples import identity, make_samples
from jgmm.em.options import AcceptedOptions, OptionKeywords, Options, OtherKeywords, make_control
from jgmm.uncertainty.bootstrap import METHODS

X = np.random.default_rng(0).normal(size=(20, 2)) * [1, 3] + [5, 0]
FIELDS = [each.name for each in dataclasses.fields(Options)]


@pytest.mark.parametrize("value", [-1e-3, np.nan])
@pytest.mark.parametrize("which", ["tol", "rtol", "ridge"])
def test_controls_below_zero_are_refused(which, value):
    with pytest.raises(jgmm.DataError, match=f"{which} must be at least zero"):
        Options(**{which: value}).control(make_samples(X), 2)


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("max_steps", -1, 0), ("n_restarts", 0, 1), ("n_restarts", True, 1)],
)
def test_counts_are_whole_numbers(name, value, least):
    """Where options are put together, and so for every function that takes them."""
    said = f"{name} must be a whole number of at least {least}; it is {value!r}"
    with pytest.raises(jgmm.DataError, match=said):
        AcceptedOptions().read(None, {name: value})
    with pytest.raises(jgmm.DataError, match="max_steps must be a whole number"):
        jgmm.streaming.fit(jax.random.key(0), X, 1, max_steps=-3)


def test_the_number_of_starts_is_sixteen_or_that_of_the_starts_given():
    mixture = jgmm.make_mixture([1.0], [[0.0, 0.0]], [1.0], "spherical")
    several = jax.tree.map(lambda leaf: np.stack([leaf] * 5), mixture)
    given = [("kmeans", 16), (np.zeros(20, int), 1), (mixture, 1), (several, 5)]
    for init, number in given:
        assert Options(init=init).n_starts == number
        assert Options(init=init, n_restarts=3).n_starts == 3
    result = jgmm.fit(jax.random.key(0), X, 1, covariance="spherical", init=several)
    assert result.restarts.status.shape == (5,)


def test_default_tolerances_follow_the_dtype():
    assert float(make_control(np.float64, None, None, 0.0).tol) == 1e-8
    np.testing.assert_allclose(float(make_control(np.float32, None, None, 0.0).tol), 1e-6)


def test_a_conjugate_prior_is_the_same_from_samples_and_from_their_frame(dtype, tolerance):
    samples = make_samples(X.astype(dtype))
    frame = standardization.standardize(samples, jgmm.covariance.model("full")).frame
    options = Options(prior="conjugate")
    one, other = (options.control(whole, 3).prior for whole in (samples, frame))
    for a, b in zip(vars(one).values(), vars(other).values(), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)
    covariance = np.cov(X.T, bias=True) / 3
    np.testing.assert_allclose(one.root @ one.root.T, covariance, **tolerance)


def test_what_the_model_cannot_bear_is_refused():
    with pytest.raises(jgmm.DataError, match="VVE takes no floor"):
        Options("VVE", floor=0.1).control(make_samples(X), 2)
    prior = jgmm.mixture.conjugate(X, 2)
    with pytest.raises(jgmm.DataError, match="the prior is for 2 columns; x has 3"):
        Options(prior=prior).control(identity(3, np.float64), 2)


def test_keywords_for_type_checkers_are_the_fields_of_the_record():
    assert set(typing.get_type_hints(OptionKeywords)) == set(FIELDS)
    assert set(typing.get_type_hints(OtherKeywords)) == set(FIELDS) - {"covariance"}


def test_keywords_replace_fields_of_the_record_and_the_record_replaces_defaults():
    accepted = AcceptedOptions(defaults=Options(n_restarts=16, tol=1e-3))
    assert accepted.read(None, {}) == Options(n_restarts=16, tol=1e-3)
    assert accepted.read(None, {"tol": 0.1}) == Options(n_restarts=16, tol=0.1)
    assert accepted.read(Options(ridge=0.1), {"tol": 0.1}) == Options(ridge=0.1, tol=0.1)


def test_an_unknown_keyword_is_refused_with_the_known_ones():
    with pytest.raises(TypeError, match=r"unknown option 'nothing'\. Known: covariance, n_restar"):
        AcceptedOptions().read(None, {"nothing": 3})


@pytest.mark.parametrize("value", [np.ones(2), "conjugate", 0.5])
def test_a_refused_option_is_an_error_as_keyword_and_in_a_record(value):
    accepted = AcceptedOptions(refused={"prior": "there is no room for it."})
    for options, keywords in ((None, {"prior": value}), (Options(prior=value), {})):
        with pytest.raises(jgmm.DataError, match="prior cannot be used here: there is no room"):
            accepted.read(options, keywords)
    assert accepted.read(Options(ridge=0.1), {"prior": None}) == Options(ridge=0.1)


def test_a_decided_option_is_an_error_as_keyword_and_has_no_effect_in_a_record():
    accepted = AcceptedOptions(decided={"init": "the start is given."})
    with pytest.raises(jgmm.DataError, match="init cannot be given here: the start is given"):
        accepted.read(None, {"init": "kmeans"})
    assert accepted.read(Options(init="points", ridge=0.1), {}) == Options(ridge=0.1)


# Every function that fits. What it does not take it refuses with a sentence.
FUNCTIONS = {
    "fit": jgmm.fit,
    "select": jgmm.select,
    "run_em": jgmm.fitting.run_em,
    "held_out": jgmm.selection.held_out,
    "bootstrap_test": jgmm.selection.bootstrap_test,
    "sequential_test": jgmm.selection.sequential_test,
    "bootstrap": jgmm.uncertainty.bootstrap,
    "classifier": jgmm.classifier.fit,
    "cross_validate": jgmm.classifier.cross_validate,
    "gradient": jgmm.gradient.fit,
    "differentiation": jgmm.differentiation.fit,
    "stream": jgmm.streaming.fit,
    "online": jgmm.streaming.online.fit,
}


@pytest.mark.parametrize("value", [-1, True])
def test_a_number_of_steps_that_makes_no_sense_is_refused_by_every_function(value):
    """By the record itself, so by whatever takes one."""
    said = f"max_steps must be a whole number of at least 0; it is {value!r}"
    with pytest.raises(jgmm.DataError, match=said):
        Options(max_steps=value)
    for function in (*FUNCTIONS.values(), jgmm.distributed.fit):
        with pytest.raises(jgmm.DataError, match=said):
            accepted_by(function).read(None, {"max_steps": value})


def accepted_by(function):
    module = inspect.getmodule(inspect.unwrap(function))
    return module.ACCEPTED


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_shows_the_options_it_takes_and_gives_reasons_for_the_others(name):
    function, accepted = FUNCTIONS[name], accepted_by(FUNCTIONS[name])
    shown = inspect.signature(function).parameters
    assert "options" in shown
    left_out = {*accepted.decided, *accepted.refused}
    for field in FIELDS:
        own = field == "covariance" and name in ("select", "held_out")
        assert (field in shown) == (field not in left_out or own), field
        if field in shown and not own:
            assert shown[field].default == getattr(accepted.defaults, field)
    for reason in (*accepted.decided.values(), *accepted.refused.values()):
        assert reason.endswith(".")
        assert len(reason.split()) >= 4


TWO = jgmm.make_mixture([0.5, 0.5], [[-3.0, 0.0], [3.0, 0.0]], [1.0, 1.0], "spherical")
CLOUD = np.asarray(jgmm.sample(jax.random.key(0), TWO, 60)[0])
PRIOR = Options(covariance="spherical", prior="conjugate", n_restarts=2, init="points")


def test_a_prior_reaches_the_bootstrap():
    fitted, key = jgmm.fit(jax.random.key(1), CLOUD, 2, options=PRIOR), jax.random.key(2)
    found = jgmm.uncertainty.bootstrap(key, fitted.mixture, CLOUD, n_replicates=2, options=PRIOR)
    weights = METHODS["weighted"](jax.random.fold_in(key, 1), make_samples(CLOUD), 0)
    prior = jgmm.mixture.conjugate(CLOUD, 2)  # that of the samples, not of the replicate
    second = jgmm.fitting.run_em(fitted.mixture, CLOUD, weights, prior=prior)
    assert float(second.log_prior) != 0
    np.testing.assert_allclose(found.replicates.scale[1], second.mixture.scale, rtol=1e-12)


def test_a_prior_and_a_floor_reach_a_classifier_of_one_gaussian_a_class():
    labels, kept = (CLOUD[:, 0] > 0).astype(int), {"covariance": "spherical"}
    trained = jgmm.classifier.fit(CLOUD, labels, **kept, prior="conjugate")
    one_each = jgmm.m_step(CLOUD, np.eye(2)[labels], **kept, prior="conjugate")
    np.testing.assert_allclose(trained.mixtures.scale[:, 0], one_each.scale, rtol=1e-12)
    assert (one_each.scale != jgmm.m_step(CLOUD, np.eye(2)[labels], **kept).scale).all()
    held_up = jgmm.classifier.fit(CLOUD, labels, **kept, floor=0.9)
    variance = np.var(CLOUD, axis=0).mean()
    np.testing.assert_allclose(held_up.mixtures.scale**2, 0.9 * variance, rtol=1e-6)


def test_acceleration_reaches_the_test_of_one_component_more():
    kept = {"covariance": "spherical", "n_replicates": 2, "n_restarts": 1, "init": "points"}
    plain, fast = (
        jgmm.selection.bootstrap_test(jax.random.key(3), CLOUD, 1, accelerate=scheme, **kept)
        for scheme in (None, "squarem")
    )
    np.testing.assert_allclose(fast.statistic, plain.statistic, rtol=1e-3)
    with pytest.raises(jgmm.DataError, match="prior cannot be used here: the statistic is"):
        jgmm.selection.bootstrap_test(jax.random.key(3), CLOUD, 1, prior="conjugate", **kept)
