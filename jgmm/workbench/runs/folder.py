"""The folder of one run: hidden while it is written, named once it is whole, never half of it.

A run that ends early removes its folder. One that is killed cannot, so the next run in the same
place does it: a run locks its folder, and the lock ends with the process.
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
from jgmm.workbench.system.files import as_user_error, sync_folder, umask

if sys.platform != "win32":
    import fcntl


@dataclass
class RunFolder:
    """A run's folder.

    Attributes:
      path: where it is while it is written.
      started: when it was made.
      removed: folders that killed runs had left in the same place, now gone.
      final: where it is once it is complete.
    """

    path: pathlib.Path
    started: datetime.datetime
    removed: list[pathlib.Path] = field(default_factory=list)
    final: pathlib.Path | None = None


@contextlib.contextmanager
def run_folder(output: str | pathlib.Path, name: str) -> Iterator[RunFolder]:
    """Make the folder of one run, visible under its name only when it is complete.

    Inside the `with` block the folder is a hidden sibling; at its end it becomes
    `OUTPUT/NAME-YYYYmmdd-HHMMSS`, with a counter added where that exists, and
    `RunFolder.final` says which. Whatever ends the block early, Ctrl-C included, removes it, and
    the folders that were made to hold it.

    Raises:
      UserError: the folder cannot be made or written, found before the block starts; or the
        disk fills up; or the folder cannot be removed.
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
                folder = RunFolder(partial, started, _sweep(output) if is_locked else [])
            yield folder
            with as_user_error(output):
                partial.chmod(0o777 & ~umask())  # mkdtemp's is private
                folder.final = _publish(partial, output / stem)
                sync_folder(output)
    finally:
        if folder is None or folder.final is None:
            _remove(partial, made)


def _make(output: pathlib.Path, stem: str) -> tuple[list[pathlib.Path], pathlib.Path]:
    """Make a folder in the output folder, and that where it is missing; say what was made."""
    lost: OSError | None = None
    for _ in range(3):
        missing = _missing(output)
        try:
            output.mkdir(parents=True, exist_ok=True)
            return missing, pathlib.Path(
                tempfile.mkdtemp(prefix=f".{stem}-", suffix=".new", dir=output)
            )
        except FileNotFoundError as error:  # another run may have removed what it had made
            lost = error
        except BaseException:
            _remove_empty(missing)
            raise
    assert lost is not None  # or we would have returned
    raise lost


def _missing(path: pathlib.Path) -> list[pathlib.Path]:
    """The folders that would have to be made, innermost first."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    return missing


def _remove(partial: pathlib.Path, made: list[pathlib.Path]) -> None:
    try:
        shutil.rmtree(partial)
    except FileNotFoundError:
        pass  # as it should be
    except OSError as error:
        raise UserError(f"{partial}: cannot be removed: {error.strerror}; remove it") from error
    _remove_empty(made)


def _remove_empty(folders: list[pathlib.Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # never made, or in use by another run by now
            folder.rmdir()


def _suffix() -> str:
    """What a folder under construction ends in. It names the machine, since locks may not reach
    another one that has the same disk."""
    machine = re.sub(r"[^\w-]", "-", platform.node())[:40]
    return f".{machine}.partial"


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[bool]:
    """Hold a folder's lock, and say whether we have it: not all file systems have locks."""
    if sys.platform == "win32":  # what a killed run left stays there
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


def _sweep(output: pathlib.Path) -> list[pathlib.Path]:
    """Remove the folders of this machine and user whose runs are no more."""
    removed = []
    for path in sorted(output.glob(f".*{_suffix()}")):
        with contextlib.suppress(OSError), _locked(path) as is_dead:  # or gone, or not ours
            if is_dead and path.lstat().st_uid == os.geteuid():
                shutil.rmtree(path)
                removed.append(path)
    return removed


def _publish(partial: pathlib.Path, wanted: pathlib.Path) -> pathlib.Path:
    target, counter = wanted, 1
    while True:
        try:
            if os.path.lexists(target):  # a rename would replace an empty folder
                raise FileExistsError(errno.EEXIST, "exists", str(target))
            partial.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            counter += 1
            target = wanted.with_name(f"{wanted.name}-{counter}")
        else:
            return target
