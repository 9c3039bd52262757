"""The compilation cache: a private folder in which JAX keeps compiled programs between sessions.

A compiled program in the cache is run without any check. Whoever can write to the folder can
therefore run any program as the user, so the folder must be writable by its owner only.
"""

import contextlib
import os
import pathlib
import platform
import stat
import warnings
import zlib

import jax

from jgmm._core import budget
from jgmm._core.errors import UserError

_TOO_SMALL_BY_DEFAULT = {
    "jax_persistent_cache_min_compile_time_secs": (1.0, 0.0),
    "jax_persistent_cache_min_entry_size_bytes": (0, -1),
}
"""Settings with which JAX leaves out the small programs that jgmm is made of: JAX's value, ours."""


def use_compilation_cache() -> pathlib.Path:
    """Keep compiled programs on disk, so that the next session loads them and compiles nothing.

    Call it at the beginning of a session, before the first fit. It turns on the persistent
    compilation cache of JAX, and so keeps the programs of all code in this process that uses JAX,
    not only those of jgmm. Where the user has chosen a folder for that cache
    (``JAX_COMPILATION_CACHE_DIR``), nothing is changed.

    Returns:
      The folder: ``jgmm/xla/CPU`` in ``$XDG_CACHE_HOME`` or ``~/.cache``, where CPU stands for what
      this processor can do, since machines with different ones may share a home. It belongs to
      the user alone, may be removed at any time, and holds at most about half a gigabyte at the
      beginning of a session: the programs that were not read for long are removed.

    Raises:
      UserError: there can be no private folder, or JAX's cache is turned off; the text says why.

    >>> import jgmm
    >>> folder = jgmm.use_compilation_cache()
    """
    if not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        raise UserError("JAX's compilation cache is turned off (jax_enable_compilation_cache)")
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if chosen is not None:
        return pathlib.Path(chosen)
    folder = private_folder(_caches(), "jgmm", "xla", _processor())
    remove_damaged(folder)
    remove_unused(folder)
    for name, (theirs, ours) in _TOO_SMALL_BY_DEFAULT.items():
        if getattr(jax.config, name) == theirs:
            jax.config.update(name, ours)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX compiles what it cannot read, and goes on without what it cannot write. Where warnings
    # are errors, its warning of that would end a fit.
    warnings.filterwarnings("default", "Error (reading|writing) persistent compilation cache")
    return folder


def remove_damaged(folder: pathlib.Path) -> None:
    """Remove entries that a kill or a full disk cut short since the last call.

    JAX never replaces an entry that exists: every later session would fail to read it, and warn.
    """
    mark = folder / "checked"
    try:
        since = mark.stat().st_mtime_ns if mark.exists() else 0
        mark.touch()
        for entry in folder.glob("*-cache"):
            with contextlib.suppress(FileNotFoundError):  # another process has removed it
                if entry.stat().st_mtime_ns >= since and _is_cut_short(entry.read_bytes()):
                    entry.unlink()
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from error


def remove_unused(folder: pathlib.Path) -> None:
    """Remove the entries that were read longest ago, if the folder is larger than it may be."""
    found = []
    try:
        for entry in folder.glob("*-cache"):
            with contextlib.suppress(FileNotFoundError):
                about = entry.stat()
                found.append((max(about.st_atime, about.st_mtime), about.st_size, entry))
        total = sum(size for _, size, _ in found)
        if total <= budget.COMPILATION_CACHE_BYTES:
            return
        for _, size, entry in sorted(found, key=lambda each: each[0]):
            entry.unlink(missing_ok=True)
            total -= size
            if total <= budget.COMPILATION_CACHE_BYTES // 2:  # room for a while
                return
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from error


def _processor() -> str:
    """Return a name for the instructions that this processor has; a program may need all of them.

    JAX files programs by the version of XLA and its options, not by the processor.
    """
    flags = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as about:  # Linux only
        flags = next((line for line in about if line.startswith(("flags", "Features"))), "")
    known = " ".join(sorted(flags.partition(":")[2].split())) or platform.processor()
    return f"{platform.machine()}-{zlib.crc32(known.encode()):08x}"


def _is_cut_short(content: bytes) -> bool:
    """Return whether an entry is empty, or is compressed by zlib and not complete."""
    if content[:1] != b"\x78":
        return not content
    stream = zlib.decompressobj()
    try:
        stream.decompress(content)
    except zlib.error:
        return True
    return not stream.eof


def _caches() -> pathlib.Path:
    """Return the folder of the user's caches.

    The standard says that a relative XDG_CACHE_HOME is to be ignored.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):
        return pathlib.Path(given)
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise UserError("this user has no home folder; set XDG_CACHE_HOME")
    return pathlib.Path(home) / ".cache"


def private_folder(base: pathlib.Path, *names: str) -> pathlib.Path:
    """Make the folder BASE/NAME/…, or check the one that is there, and close it to other users.

    Args:
      base: a folder that may be shared, such as /tmp, and may be a link.
      names: the names of the folders in it, outermost first; only this user may use them.

    Returns:
      The innermost folder.

    Raises:
      UserError: the folder cannot be made; or one of the folders is a link, belongs to another
        user, can be replaced by others, or could be written to by them.
    """
    folder = base
    try:
        base.mkdir(parents=True, exist_ok=True)
        mode = base.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise UserError(f"{base}: everybody may replace what is in it; take that right away")
        for name in names:
            folder = folder / name
            folder.mkdir(mode=0o700, exist_ok=True)
            mode = _mode_of_ours(folder)
            # An outer folder is closed before the folders inside it are checked.
            if name == names[-1] and mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise UserError(f"{folder}: others may write to it, and may have; remove it")
            folder.chmod(0o700)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder}: {reason}") from error
    return folder


def _mode_of_ours(folder: pathlib.Path) -> int:
    """Return the mode of a folder, which must be a folder of this user and no link."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UserError(f"{folder}: this is a link or a file, not a folder; remove it")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise UserError(f"{folder}: it belongs to another user")
    return found.st_mode
