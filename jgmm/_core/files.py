"""Read files whole or refuse them, and write files atomically: whole or not at all."""

import contextlib
import errno
import os
import pathlib
import stat
import tempfile
from collections.abc import Iterator

from jgmm._core.errors import UserError


def read_file(path: pathlib.Path, limit: int) -> bytes:
    """Read a whole file of at most ``limit`` bytes.

    A pipe or a device is refused, as it may never end; so is a file that is too long.

    Args:
      path: the file.
      limit: the most bytes it may have.

    Raises:
      OSError: the file does not exist, is a folder, or may not be read.
      UserError: it is a pipe or a device, is longer than ``limit``, or no file can have its name.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:
        raise UserError(f"{str(path)!r}: no file can have this name ({error})") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path} is a pipe or a device, not a file; save its content in a file")
    content = bytearray()
    with path.open("rb") as file:
        while len(content) <= limit and (block := file.read(1 << 20)):
            content += block
    if len(content) > limit:
        raise UserError(f"{path}: more than {limit} bytes, which is too long for what it should be")
    return bytes(content)


_SPACE = "free some space, or choose another place"
_RIGHTS = "choose a folder you may write to"
_ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "a limit on the size of files was reached (see `ulimit -f`); raise it",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.ENOENT: "the folder was removed while in use, or cannot be made",
    errno.EEXIST: "a file of that name is in the way; choose another",
    errno.ENOTDIR: "part of the path is a file; choose another",
    errno.ENAMETOOLONG: "choose shorter names",
    errno.EIO: "the disk or its connection fails; choose another place",
}


@contextlib.contextmanager
def as_user_error(path: str | pathlib.Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into a ``UserError`` that names the place."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "choose another place")
        raise UserError(f"{path}: {error.strerror or error}; {advice}") from error
    except ValueError as error:  # a zero byte in a path
        raise UserError(f"{str(path)!r}: no file can have this name ({error})") from error


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Write a file atomically: whatever happens, it is whole afterwards, or as it was before.

    The content is written to a temporary file in the same folder and flushed to the disk. Then
    this file is renamed in one step.

    Raises:
      UserError: the place cannot be written, or is full.
    """
    with as_user_error(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~umask())  # mkstemp's is private
            os.replace(temporary, path)
        except BaseException:
            pathlib.Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_text(path: pathlib.Path, text: str) -> None:
    """Write text in UTF-8 atomically, as ``write_bytes`` does.

    Half surrogates, as in file names of other encodings, are written as escapes: \\udcff.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def sync_folder(path: pathlib.Path) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):  # elsewhere a folder cannot be opened to be flushed
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(handle)


def umask() -> int:
    """Return the process's umask: the rights that new files do not get."""
    mask = os.umask(0)  # it can be read only by setting it
    os.umask(mask)
    return mask
