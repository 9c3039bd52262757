"""The contents of a saved file, taken out piece by piece, with a sentence on what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jgmm._core.status import Status


class Damaged(Exception):
    """The contents of a file are not what they must be; the text says what."""


def check(condition: Any, what: str) -> None:
    """Raise ``Damaged`` unless the condition holds."""
    if not condition:
        raise Damaged(what)


@dataclass(frozen=True)
class Contents:
    """Arrays by name, and the plain values that say how they belong together."""

    arrays: Mapping[str, np.ndarray]
    structure: Mapping[str, Any]

    def inside(self, prefix: str, structure: Mapping[str, Any] | None = None) -> Contents:
        """Return the contents of one part, whose arrays have names that begin with a prefix.

        >>> Contents({"a.b": np.zeros(1)}, {}).inside("a.").has("b")
        True
        """
        own = {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }
        return Contents(own, self.structure if structure is None else structure)

    def has(self, name: str) -> bool:
        """Return whether there is an array of that name."""
        return name in self.arrays

    def array(self, name: str, n_axes: int) -> np.ndarray:
        """Return an array of numbers that has the given number of axes, none of them empty.

        Raises:
          Damaged: there is no such array.
        """
        check(self.has(name), f"{name} missing")
        array = self.arrays[name]
        numeric = array.dtype in (np.float32, np.float64, np.int32, np.int64)
        check(numeric, f"{name} is of type {array.dtype}")
        fits = array.ndim == n_axes and 0 not in array.shape
        check(fits, f"{name} has shape {array.shape}; it must have {n_axes} axes, none of length 0")
        return array

    def floats(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array of floats of the given shape; see ``array``."""
        array = self.array(name, len(shape))
        check(array.dtype.kind == "f", f"{name} is of type {array.dtype}")
        check(array.shape == shape, f"{name} has shape {array.shape}; it must have {shape}")
        return array

    def counts(self, name: str, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
        """Return whole numbers from ``low`` to below ``high``, of the given shape; see ``array``.

        >>> Contents({"n": np.asarray([3, 4])}, {}).counts("n", (2,), 0, 5).tolist()
        [3, 4]
        """
        array = self.array(name, len(shape))
        check(array.dtype.kind == "i", f"{name} is of type {array.dtype}")
        check(array.shape == shape, f"{name} has shape {array.shape}; it must have {shape}")
        check(((array >= low) & (array < high)).all(), f"{name} holds numbers out of range")
        return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))

    def statuses(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return codes of ``Status`` of the given shape; see ``counts``."""
        return self.counts(name, shape, min(Status), max(Status) + 1)

    def value(self, name: str, *kinds: type) -> Any:
        """Return a plain value of one of the given types; a truth value is no whole number.

        Raises:
          Damaged: there is no such value.
        """
        check(name in self.structure, f"{name} missing")
        value = self.structure[name]
        check(
            type(value) in kinds, f"{name} is not of type {' or '.join(k.__name__ for k in kinds)}"
        )
        return value

    def count(self, name: str, low: int = 0) -> int:
        """Return a whole number that is at least ``low``; see ``value``."""
        found = self.value(name, int)
        check(low <= found < 1 << 31, f"{name} is out of range")
        return int(found)

    def number(self, name: str) -> float:
        """Return a number, which JSON holds as text where it is NaN or infinite; see ``value``.

        >>> Contents({}, {"a": 0.5, "b": "-inf"}).number("b")
        -inf
        """
        found = self.value(name, float, int, str)
        try:
            return float(found)
        except (ValueError, OverflowError):
            raise Damaged(f"{name} is no number") from None

    def parts(self, name: str) -> list[Contents]:
        """Return the tables of a list, which is not empty; see ``value``."""
        found = self.value(name, list)
        check(
            found and all(isinstance(each, dict) for each in found), f"{name} is no list of tables"
        )
        return [Contents(self.arrays, each) for each in found]


def plain_number(value: float) -> float | str:
    """Return a number as JSON can hold it: as it is, or as text where it is NaN or infinite.

    >>> plain_number(0.5), plain_number(float("nan"))
    (0.5, 'nan')
    """
    return float(value) if math.isfinite(value) else str(float(value))


def are_texts(names: Any, n: int) -> bool:
    """Return whether something is a list of n texts.

    >>> are_texts(["a", "b"], 2), are_texts(["a"], 2)
    (True, False)
    """
    return isinstance(names, list) and len(names) == n and all(isinstance(x, str) for x in names)


def prefixed(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays under names that begin with a prefix."""
    return {prefix + name: array for name, array in arrays.items()}


def leaves_of(tree: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return attributes of an object as NumPy arrays, by name."""
    return {name: np.asarray(getattr(tree, name)) for name in names}
