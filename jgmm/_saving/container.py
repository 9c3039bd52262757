"""A file of arrays and of a description: safetensors, with one JSON text in its metadata.

Nothing in such a file is ever executed. It is written atomically, see ``jgmm._core.files``.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jgmm._core.errors import UserError
from jgmm._core.files import read_file, write_bytes

MAX_BYTES = 1 << 34
"""The most bytes of a file that is read."""
_METADATA = "jgmm"


def write(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]
) -> None:
    """Write arrays and a description.

    Args:
      path: the file, replaced in one step if it exists.
      arrays: arrays by name.
      description: plain values; no number in it may be NaN or infinite.

    Raises:
      UserError: the place cannot be written.
      ImportError: safetensors is not installed.
    """
    # Several entries of metadata would be in no fixed order.
    metadata = {_METADATA: json.dumps(description, allow_nan=False)}
    whole = {name: np.array(array, order="C") for name, array in arrays.items()}
    write_bytes(path, _safetensors().save(whole, metadata))


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read arrays and a description; the latter is empty where jgmm did not write the file.

    Raises:
      UserError: the file is missing, cut short, or of another format.
      ImportError: safetensors is not installed.
    """
    load = _safetensors().load
    try:
        content = read_file(path, MAX_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        arrays = load(content)
    except Exception as error:  # whichever it is, the file is damaged or of another format
        raise UserError(
            f"{path}: not a whole safetensors file ({error}); it was cut short, or is something "
            f"else ({len(content)} bytes)"
        ) from error
    # The header has been checked already: 8 bytes with its length, then JSON of that length.
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    try:
        description = json.loads(header.get(_METADATA, "{}"))
    except (ValueError, RecursionError):
        description = {}
    return arrays, description if isinstance(description, dict) else {}


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            'saving and loading need safetensors: pip install "jgmm[workbench]"'
        ) from error
    return safetensors.numpy
