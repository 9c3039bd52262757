"""A place for compiled programs that nobody but their owner can write to.

A program that is found there is run without a look at it, so whoever can put one there can run
whatever they like as the person who uses it.
"""

import os
import pathlib
import stat
import sys
import zlib

from jgmm._core.errors import UserError


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, if there is a private place for them.

    Without one every run compiles anew, which is slower and nothing else; standard error says so.
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
    """Remove entries that were cut short by a kill or a full disk since this was last done.

    JAX would read them in vain, and complain, in every run to come: it never writes one again.
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
    """Whether an entry is empty, or compressed by zlib but not to its end."""
    if content[:1] != b"\x78":
        return not content
    stream = zlib.decompressobj()
    try:
        stream.decompress(content)
    except zlib.error:
        return True
    return not stream.eof


def _caches() -> pathlib.Path:
    """Where a user's caches are; a relative XDG_CACHE_HOME is to be ignored, says its standard."""
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
      names: of the folders in it, outermost first; these are ours alone.

    Raises:
      UserError: it cannot be made; or one of the folders is a link, belongs to somebody else, can
        be replaced by others, or could be written to by them.
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
            # Outer folders are closed before the look at what is inside them.
            if name == names[-1] and mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise UserError(f"{folder}: others may write to it, and may have; remove it")
            folder.chmod(0o700)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder}: {reason}") from error
    return folder


def _mode_of_ours(folder: pathlib.Path) -> int:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UserError(f"{folder}: this is a link or a file, not a folder; remove it")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise UserError(f"{folder}: it belongs to another user")
    return found.st_mode
