import numpy as np
import pytest

import jgmm
from jgmm._saving.contents import Contents, Damaged
from jgmm._saving.kinds import KINDS
from jgmm.covariance.models import MODELS
from jgmm.mixture.mixture import Mixture


@pytest.mark.parametrize("covariance", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_mixture_of_every_model_comes_back(covariance, dtype):
    storage, shared = MODELS[covariance].storage, MODELS[covariance].shared
    scale = np.asarray(storage.identity(3, dtype)).repeat(1 if shared else 2, axis=0) * 3
    means = np.arange(6, dtype=dtype).reshape(2, 3)
    mixture = Mixture(np.log(np.asarray([0.25, 0.75], dtype)), means, scale, covariance)
    kind = KINDS["mixture"]
    arrays, structure = kind.split(mixture)
    back = kind.build(Contents(arrays, structure))
    assert back.covariance == MODELS[covariance].name
    for name, array in arrays.items():
        assert getattr(back, name).dtype == dtype
        np.testing.assert_array_equal(getattr(back, name), array)


X = [[0.0], [0.5], [1.0], [5.0], [5.5], [6.5], [7.0]]


@pytest.fixture(scope="module")
def trained():
    labels = ["a", "a", "a", "b", "b", "b", "b"]
    return KINDS["classifier"].split(jgmm.classifier.fit(X, labels, covariance="spherical"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"class_names": ["b", "a"]}, "increasing order"),
        ({"class_names": ["a", "a"]}, "increasing order"),
        ({"class_names": ["a", 1]}, "not of one kind"),
        ({"class_names": ["a", "b", "c"]}, "3 names of 2 classes"),
        ({"n_components": [1, 2]}, "numbers of components of its classes"),
        ({"n_components": [True, 1]}, "numbers of components of its classes"),
        ({"log_priors": np.zeros(2)}, "priors of classes that do not sum to one"),
        ({"mixtures.scale": np.zeros((2, 1))}, "not positive"),
        ({"mixtures.scale": np.ones((2, 2))}, "scale has shape"),
    ],
)
def test_a_damaged_classifier_is_refused(trained, change, expected):
    arrays, structure = (dict(each) for each in trained)
    for name, value in change.items():
        (arrays if isinstance(value, np.ndarray) else structure)[name] = value
    with pytest.raises(Damaged, match=expected):
        KINDS["classifier"].build(Contents(arrays, structure))
