"""The compilation cache: a private folder in which JAX keeps compiled programs between runs.

A compiled program in the cache is run without any check. Whoever can write to the folder can
therefore run any program as the user, so the folder must be writable by its owner only.
"""

import os
import pathlib
import stat
import sys
import zlib

from jgmm._core.errors import UserError


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, if there is a private folder for them.

    Without one every run compiles again, which is slower but changes nothing else; a message on
    standard error says so.
    """
    import jax

    try:
        folder = private_folder(_caches(), "jgmm", "xla")
        remove_damaged(folder)
    except UserError as error:
        print(f"jgmm: no compilation cache: {error}", file=sys.stderr)
        return
    update = jax.config.update
    update("jax_compilation_cache_dir", str(folder))
    update("jax_persistent_cache_min_compile_time_secs", 0)
    update("jax_persistent_cache_min_entry_size_bytes", -1)


def remove_damaged(folder: pathlib.Path) -> None:
    """Remove entries that a kill or a full disk cut short since the last call.

    JAX never replaces an entry that exists: every later run would fail to read it, and warn.
    """
    mark = folder / "checked"
    try:
        since = mark.stat().st_mtime_ns if mark.exists() else 0
        mark.touch()
        for entry in folder.glob("*-cache"):
            if entry.stat().st_mtime_ns >= since and _is_cut_short(entry.read_bytes()):
                entry.unlink()
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from error


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
