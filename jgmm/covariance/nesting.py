"""Nesting of covariance models: which model is a special case of which other."""

from __future__ import annotations

from collections.abc import Iterable

from jgmm.covariance.models import CovarianceModel

UNIVARIATE = ("E", "V")  # the models of one column: variances that are equal, or not
LETTERS = "IEV"  # Identity, Equal, Variable: from the most restricted to the least


def contains(outer: CovarianceModel, inner: CovarianceModel) -> bool:
    """Return whether every mixture of the inner model is known to be one of the outer model.

    A model outside the volume–shape–orientation family contains itself only.

    >>> from jgmm.covariance import model
    >>> contains(model("full"), model("tied")), contains(model("tied"), model("full"))
    (True, False)
    """
    if not (outer.in_family and inner.in_family):
        return outer is inner
    pairs = zip(outer.code, inner.code, strict=True)
    return all(LETTERS.index(a) >= LETTERS.index(b) for a, b in pairs)


def reduced_code(entry: CovarianceModel, n_components: int, n_features: int) -> str:
    """Return the code of the simplest model that is the same one in this problem.

    One component has nothing to vary from, and one column has neither shape nor orientation: there
    V, VEI and VVV are one model. A model outside the family is only itself.

    >>> from jgmm.covariance import model
    >>> reduced_code(model("VEE"), 2, 1), reduced_code(model("VEE"), 1, 3)
    ('VII', 'EEE')
    """
    if not entry.in_family:
        return entry.code
    code = f"{entry.code[0]}II" if n_features == 1 else entry.code
    return code.replace("V", "E") if n_components == 1 else code


def largest_within(
    outer: CovarianceModel, models: Iterable[CovarianceModel]
) -> list[CovarianceModel]:
    """Return the largest special cases of a model: those that no other special case contains.

    Args:
      outer: the model whose special cases are wanted.
      models: the candidates; ``outer`` itself does not count.
    """
    inner = [each for each in models if each is not outer and contains(outer, each)]
    return [each for each in inner if not any(e is not each and contains(e, each) for e in inner)]


def simplest_first(models: Iterable[CovarianceModel]) -> list[CovarianceModel]:
    """Sort models so that each follows its special cases; those not of the family come last."""

    def freedom(entry: CovarianceModel) -> int:
        return sum(map(LETTERS.index, entry.code)) if entry.in_family else 3 * len(LETTERS)

    return sorted(models, key=freedom)
