"""Checkpoints of long fits: written atomically, and resumed bit for bit.

A checkpoint is a safetensors file with every number of a ``passes.PassState``, the hash of the
config it belongs to, and a checksum. Among the numbers is the content of the samples, with which
``jgmm.streaming.fit`` compares those it is given before it goes on. In a job of several processes
each process writes its own file, all into one folder.
"""

import hashlib
import json
import pathlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from jgmm._core.errors import UserError
from jgmm._core.files import as_user_error
from jgmm._saving import container

if TYPE_CHECKING:
    from jgmm.streaming.passes import PassState

FORMAT = "jgmm.checkpoint"
FORMAT_VERSION = 3
DEFAULT_MINUTES = 5.0
"""Minutes between two checkpoints, by default."""


class Checkpoint:
    """A ``passes.Checkpointer`` that saves the state of a fit in a file.

    Attributes:
      folder: the folder of the checkpoints of all processes.
      path: the file of this process.
      resumed: the step of the state that was restored, or None.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        config: Any,
        *,
        minutes: float = DEFAULT_MINUTES,
        steps: int | None = None,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        """Set the place of the checkpoints, and how often one is written.

        Args:
          folder: the folder of the checkpoints, made if it is absent.
          config: everything that the fit depends on, as plain values; the checkpoint of another
            config is refused.
          minutes: the time between two checkpoints.
          steps: write a checkpoint also after this number of steps.
          process: the number of this process, from 0, and the number of processes.
        """
        self.folder = pathlib.Path(folder)
        self.path = self.folder / "{:04d}-of-{:04d}.safetensors".format(*process)
        self._fingerprint = fingerprint(config)
        self._seconds, self._steps = 60 * minutes, steps
        self._written, self._step = time.monotonic(), 0
        self._is_first = process[0] == 0
        self.resumed: int | None = None

    def restore(self, like: "PassState") -> "PassState | None":
        """Return the state in the file, or None if there is no file.

        Args:
          like: a state of the same shapes and types.

        Raises:
          UserError: the file cannot be resumed; the text says why, and how to start again.
        """
        with as_user_error(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._is_first:  # a run that was killed while it wrote leaves such a file
                for partial in self.folder.glob(".*.partial"):
                    partial.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        state = load(self.path, like, self._fingerprint)
        self._step = self.resumed = int(state.runs.n_steps.max())
        return state

    def save(self, state: "PassState", now: bool = False) -> None:
        """Write the state if a checkpoint is due, or in any case if ``now``."""
        is_due = time.monotonic() - self._written >= self._seconds
        if not (is_due or now or self._steps is not None):
            return
        step = int(state.runs.n_steps.max())
        if is_due or now or (self._steps is not None and step >= self._step + self._steps):
            save(self.path, state, self._fingerprint)
            self._written, self._step = time.monotonic(), step

    def remove(self) -> None:
        """Remove the checkpoints of all processes, once the fit is complete."""
        with as_user_error(self.folder):
            for path in self.folder.glob("*-of-*.safetensors"):
                path.unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()


def fingerprint(config: Any) -> str:
    """Return a hash of plain values, which does not depend on the order of keys.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _leaves(state: Any) -> dict[str, Any]:
    """Return every array of a state by its path in the pytree."""
    import jax

    paths, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in paths}


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode("utf-8"))
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def save(path: pathlib.Path, state: "PassState", fingerprint: str) -> None:
    """Write a state atomically: the file is always whole, either the previous one or this one.

    Args:
      path: the file.
      state: the state of the fit.
      fingerprint: the hash of the config that the state belongs to.

    Raises:
      UserError: the place cannot be written.
    """
    import jax

    arrays = {name: np.asarray(leaf) for name, leaf in _leaves(jax.device_get(state)).items()}
    description = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "config": fingerprint,
        "checksum": _checksum(arrays),
    }
    container.write(path, arrays, description)


def load(path: pathlib.Path, like: "PassState", fingerprint: str) -> "PassState":
    """Read a state.

    Args:
      path: the file.
      like: a state of the same structure, shapes and types.
      fingerprint: the hash of the config that the state must belong to.

    Raises:
      UserError: the file is cut short or damaged, is no checkpoint, or that of another config.
    """
    import jax
    import jax.numpy as jnp

    anew = f"Remove {path.parent} to begin anew."
    try:
        arrays, description = container.read(path)
    except UserError as error:
        raise UserError(f"{error}. {anew}") from error
    if description.get("format") != FORMAT or description.get("version") != FORMAT_VERSION:
        raise UserError(f"{path}: not a checkpoint that this jgmm can read. {anew}")
    if description.get("config") != fingerprint:
        raise UserError(f"{path}: the checkpoint of another config, or of other data. {anew}")
    if description.get("checksum") != _checksum(arrays):
        raise UserError(f"{path}: damaged: its numbers are not those that were written. {anew}")
    wanted = _leaves(like)
    found = {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
    if found != {name: (leaf.shape, str(leaf.dtype)) for name, leaf in wanted.items()}:
        raise UserError(f"{path}: the checkpoint of a fit of another shape or precision. {anew}")
    return jax.tree.unflatten(
        jax.tree.structure(like), [jnp.asarray(arrays[name]) for name in wanted]
    )
