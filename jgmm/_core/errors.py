"""Exceptions that users see: unusable data, a failed fit, a mistake in a file or a command."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class DataError(ValueError):
    """Samples, weights or arguments cannot be used; the text says what, where and what to do."""


class FitError(RuntimeError):
    """No start of a fit ended in usable parameters; the text says why and what to try."""


class UserError(Exception):
    """A mistake the user can correct: the text says what happened, where, and what to do.

    The command line prints it without a traceback and exits with status 2. The text may quote
    input of any length: from a line of more than 1000 characters the middle is left out.
    """

    def __init__(self, text: str) -> None:
        """Take the whole text, of one line or several."""
        super().__init__("\n".join(map(_abridged, text.splitlines())))


class PrecisionWarning(UserWarning):
    """Numbers were rounded to a lower precision than they had; the text says why."""


def _abridged(line: str) -> str:
    return line if len(line) <= 1000 else f"{line[:600]} … {line[-395:]}"


def shown(value: Any, limit: int = 80) -> str:
    """Return how a value is written in an error message: never a whole array, and always short.

    Args:
      value: anything a user gave.
      limit: the most characters of a value that is written out.

    >>> shown(0.5), shown("ful"), shown([1, 2])
    ('0.5', "'ful'", '[1, 2]')
    >>> shown([[0.0, 1.0]] * 150)
    'a list of 150'
    """
    kind = type(value).__name__
    kind = "array" if kind in ("ndarray", "ArrayImpl") else kind
    article = "an" if kind[0].lower() in "aeiou" else "a"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{article} {kind} of shape {shape}"
    if isinstance(value, list | tuple | set | dict) and (
        len(value) > 8 or any(hasattr(each, "__len__") for each in value)
    ):
        return f"{article} {kind} of {len(value)}"
    text = repr(value)
    if len(text) <= limit and "\n" not in text:
        return text
    return f"{text[:limit]}…" if isinstance(value, str) else f"{article} {kind}"


def nearest(name: object, known: Iterable[str], n: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the known names most similar to a misspelt one, the most similar first.

    Upper and lower case count as the same letter.

    Args:
      name: the name that is not known; anything but text is turned into text.
      known: the names to choose from.
      n: how many to return at most.
      cutoff: least similarity, from 0 to 1, as ``difflib.get_close_matches`` measures it.

    >>> nearest("FUL", ["full", "diag"])
    ['full']
    """
    folded = {each.lower(): each for each in known}
    keys = difflib.get_close_matches(str(name).lower(), folded, n=n, cutoff=cutoff)
    return [folded[key] for key in keys]


def suggest(
    name: object,
    known: Iterable[str],
    *,
    n: int = 1,
    cutoff: float = 0.6,
    quote: Callable[[str], str] = repr,
    question: str = " Did you mean {}?",
) -> str:
    """Return a question that suggests the known names most similar to a misspelt one.

    Args:
      name, known, n, cutoff: as for ``nearest``.
      quote: how a suggested name is written in the question.
      question: the text around the suggestion.

    Returns:
      The question, or nothing where no known name is similar.

    >>> suggest("ful", ["full", "diag"])
    " Did you mean 'full'?"
    >>> suggest("colour", ["full", "diag"])
    ''
    """
    found = nearest(name, known, n, cutoff)
    return question.format(" or ".join(map(quote, found))) if found else ""
