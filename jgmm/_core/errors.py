"""The exceptions that users see: bad data, a failed fit, a mistake in a file or a command."""

from __future__ import annotations


class DataError(ValueError):
    """Samples, weights or arguments cannot be used; the text says what, where and what to do."""


class FitError(RuntimeError):
    """No start of a fit ended in usable parameters; the text says why and what to try."""


class UserError(Exception):
    """Something a person can put right: what happened, where, and what to do about it.

    The command line prints it without a traceback and exits with status 2. What it quotes may be of
    any length; a line of more than 1000 characters loses its middle.
    """

    def __init__(self, text: str) -> None:
        """Take the whole text, of one line or several."""
        super().__init__("\n".join(map(_abridged, text.splitlines())))


def _abridged(line: str) -> str:
    return line if len(line) <= 1000 else f"{line[:600]} … {line[-395:]}"
