"""Components of two mixtures are paired by their means."""

from jgmm.workbench.runs import comparison


def test_components_without_a_partner_are_listed():
    def mixture(*means):
        k = len(means)
        return {
            "columns": ["a"],
            "weights": [1 / k] * k,
            "means": [[mean] for mean in means],
            "covariances": [[[1.0]]] * k,
        }

    found = comparison.match(mixture(0.0, 5.0), mixture(5.1, 9.0, 0.2))
    assert found["components"] == [(0, 2), (1, 0), (None, 1)]
    assert found["means"][2] == [None, [9.0]]
