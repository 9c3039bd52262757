"""Which covariance model is a special case of which other."""

from __future__ import annotations

from collections.abc import Iterable

from jgmm.covariance.models import CovarianceModel

LETTERS = "IEV"  # from the most restricted to the least


def of_family(entry: CovarianceModel) -> bool:
    """Whether the letters of its code say what a model restricts."""
    return set(entry.code) <= set(LETTERS)


def contains(outer: CovarianceModel, inner: CovarianceModel) -> bool:
    """Whether every mixture of the inner model is known to be one of the outer."""
    if not (of_family(outer) and of_family(inner)):
        return outer is inner
    pairs = zip(outer.code, inner.code, strict=True)
    return all(LETTERS.index(a) >= LETTERS.index(b) for a, b in pairs)


def largest_within(
    outer: CovarianceModel, models: Iterable[CovarianceModel]
) -> list[CovarianceModel]:
    """Of some models the special cases of one that lie in no other special case of it."""
    inner = [each for each in models if each is not outer and contains(outer, each)]
    return [each for each in inner if not any(e is not each and contains(e, each) for e in inner)]


def simplest_first(models: Iterable[CovarianceModel]) -> list[CovarianceModel]:
    """The models, each after its special cases; those not of the family last."""

    def freedom(entry: CovarianceModel) -> int:
        return sum(map(LETTERS.index, entry.code)) if of_family(entry) else 3 * len(LETTERS)

    return sorted(models, key=freedom)
