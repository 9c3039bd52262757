"""The folder of one run: hidden while it is written, and given its name once it is complete.

A run that ends early removes its folder. A run that is killed cannot, so the next run in the same
place removes it: each run locks its folder, and the lock ends with its process.
"""

import contextlib
import datetime
import errno
import os
import pathlib
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from jgmm._core.errors import UserError
from jgmm._core.files import as_user_error, sync_folder, umask

if sys.platform != "win32":
    import fcntl


@dataclass
class RunFolder:
    """The folder of one run.

    Attributes:
      path: its path while it is written.
      started: the time at which it was made.
      removed: folders that killed runs had left in the same place, and that were removed.
      final: its path once it is complete; None before.
    """

    path: pathlib.Path
    started: datetime.datetime
    removed: list[pathlib.Path] = field(default_factory=list)
    final: pathlib.Path | None = None


@contextlib.contextmanager
def run_folder(output: str | pathlib.Path, name: str) -> Iterator[RunFolder]:
    """Make the folder of one run, visible under its name only when it is complete.

    Within the ``with`` block the folder is hidden. At the end of the block it is renamed to
    ``OUTPUT/NAME-YYYYmmdd-HHMMSS``, with a counter added where that exists, and
    ``RunFolder.final`` is set to this path. If the block ends with an exception, Ctrl-C included,
    the folder is removed, and so are the folders that were made to hold it.

    Args:
      output: the folder that the run folder is put in; it is made if it is absent.
      name: the name of the run.

    Raises:
      UserError: the folder cannot be made or written, which is found before the block starts; or
        the disk fills up; or the folder cannot be removed.
    """
    output = pathlib.Path(output)
    started = datetime.datetime.now().astimezone()
    stem = f"{name}-{started:%Y%m%d-%H%M%S}"
    with as_user_error(output):
        made, partial = _make(output, stem)
    folder = None
    try:
        with _locked(partial) as is_locked:
            with as_user_error(output):
                partial = partial.replace(partial.with_suffix(_suffix()))
                removed = _remove_abandoned(output) if is_locked else []
                folder = RunFolder(partial, started, removed)
            yield folder
            with as_user_error(output):
                partial.chmod(0o777 & ~umask())  # mkdtemp's is private
                folder.final = _publish(partial, output / stem)
                sync_folder(output)
    finally:
        if folder is None or folder.final is None:
            _remove(partial, made)


def _make(output: pathlib.Path, stem: str) -> tuple[list[pathlib.Path], pathlib.Path]:
    """Make a hidden folder in the output folder, which is made if it is missing.

    Returns:
      The folders that were made to hold it, innermost first, and the hidden folder.
    """
    error_found: OSError | None = None
    for _ in range(3):
        missing = _missing(output)
        try:
            output.mkdir(parents=True, exist_ok=True)
            return missing, pathlib.Path(
                tempfile.mkdtemp(prefix=f".{stem}-", suffix=".new", dir=output)
            )
        except FileNotFoundError as error:  # another run has just removed the output folder
            error_found = error
        except BaseException:
            _remove_empty(missing)
            raise
    assert error_found is not None  # otherwise the loop has returned
    raise error_found


def _missing(path: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders of a path that do not exist, innermost first."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    return missing


def _remove(partial: pathlib.Path, made: list[pathlib.Path]) -> None:
    """Remove the hidden folder, and the folders that were made to hold it if they are empty."""
    try:
        shutil.rmtree(partial)
    except FileNotFoundError:
        pass  # it is gone, as it should be
    except OSError as error:
        raise UserError(f"{partial}: cannot be removed: {error.strerror}; remove it") from error
    _remove_empty(made)


def _remove_empty(folders: list[pathlib.Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # it was never made, or another run uses it now
            folder.rmdir()


def _suffix() -> str:
    """Return the suffix of a hidden folder.

    It contains the name of the machine, since other machines that share the disk may not see the
    lock.
    """
    machine = re.sub(r"[^\w-]", "-", platform.node())[:40]
    return f".{machine}.partial"


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[bool]:
    """Lock a folder within the block, and yield whether this worked: some file systems cannot."""
    if sys.platform == "win32":  # no locks: folders of killed runs are not removed there
        yield False
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_locked = True
        except OSError:
            is_locked = False
        yield is_locked
    finally:
        os.close(handle)


def _remove_abandoned(output: pathlib.Path) -> list[pathlib.Path]:
    """Remove hidden folders of this machine and user whose processes have ended."""
    removed = []
    for path in sorted(output.glob(f".*{_suffix()}")):
        # An error means that the folder is gone, or belongs to another user.
        with contextlib.suppress(OSError), _locked(path) as is_abandoned:
            if is_abandoned and path.lstat().st_uid == os.geteuid():
                shutil.rmtree(path)
                removed.append(path)
    return removed


def _publish(partial: pathlib.Path, wanted: pathlib.Path) -> pathlib.Path:
    """Rename the hidden folder, with a counter added where the name is taken."""
    target, counter = wanted, 1
    while True:
        try:
            if os.path.lexists(target):  # renaming would replace an empty folder
                raise FileExistsError(errno.EEXIST, "exists", str(target))
            partial.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            counter += 1
            target = wanted.with_name(f"{wanted.name}-{counter}")
        else:
            return target
