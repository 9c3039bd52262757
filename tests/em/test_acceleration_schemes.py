"""The schemes of acceleration: their names, and where they lead on a linear iteration."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm.em.acceleration import accelerated
from jgmm.em.acceleration_schemes import FIRST_STEPS, SCHEMES, Iterate, Scheme
from jgmm.em.algorithm import EM

KEY = jax.random.key(0)


def test_names_of_schemes():
    em = EM(10)
    assert accelerated(em, None) is em
    with pytest.raises(DataError, match="Did you mean 'squarem'"):
        accelerated(em, "sqarem")
    with pytest.raises(DataError, match="Known: squarem, anderson"):
        jgmm.fit(KEY, [[0.0], [1.0], [2.0]], 1, accelerate="fast")
    from jgmm.workbench.config.models import Fit

    for name in (*SCHEMES, "none"):
        assert Fit(accelerate=name).accelerate == name


END = jnp.asarray([1.0, -2.0, 0.5])
RATES = jnp.asarray([0.5, 0.05, 0.01])  # shares of the way that a step of EM goes, by coordinate


def steps_to_the_end(scheme, tol=1e-6):
    """How many steps a linear iteration takes, and how many of them the scheme chose."""

    @jax.jit
    def move(history, point, proposed):
        step = RATES * (END - point)  # the gradient, too, in the metric of EM
        history = scheme.update(history, Iterate(point, step, step), proposed)
        plan = scheme.propose(history)
        after = jnp.where(plan.is_sensible, plan.point, point + step)
        limited = plan.limited & plan.is_sensible
        return replace(history, response=after - point, limited=limited), after, plan.is_sensible

    point, proposed, chosen = jnp.zeros(3), jnp.asarray(False), []
    history = scheme.init(point)
    while jnp.abs(point - END).max() > tol and len(chosen) < 5000:
        history, point, proposed = move(history, point, proposed)
        chosen.append(bool(proposed))
    return len(chosen), np.asarray(chosen)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_linear_iteration_ends_sooner(name):
    plain = np.log(1e-6 / 0.5) / np.log(1 - 0.01)  # steps of EM, by its slowest coordinate
    found, chosen = steps_to_the_end(SCHEMES[name])
    assert found < plain / 4
    assert not chosen[:FIRST_STEPS].any()
    assert chosen.any()


@pytest.mark.parametrize("name", SCHEMES)
def test_a_proposal_that_did_not_count_makes_the_next_one_more_careful(name):
    scheme = SCHEMES[name]
    assert isinstance(scheme, Scheme)
    bold = replace(scheme.init(jnp.zeros(3)), damping=jnp.asarray(1e-3))
    again = scheme.reset(bold)
    assert 1e-3 < float(again.damping) <= 1
    assert int(again.n_points) <= 1
