import errno
import os
import pathlib
import stat

import pytest

from jgmm._core import files
from jgmm._core.errors import UserError
from jgmm._core.files import as_user_error, read_file, write_bytes, write_text


def test_a_file_is_read_whole_up_to_the_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(UserError, match="file: more than 4 bytes"):
        read_file(path, 4)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_may_never_end_is_not_begun(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", pathlib.Path("/dev/zero")):
        with pytest.raises(UserError, match="a pipe or a device, not a file"):
            read_file(path, 10)


def test_what_cannot_be_read_says_why(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none", 10)
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path, 10)
    with pytest.raises(UserError, match="no file can have this name"):
        read_file(pathlib.Path("a\0b"), 10)


@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_every_refusal_of_the_system_is_explained(code):
    with pytest.raises(UserError) as caught, as_user_error("place"):
        raise OSError(code, os.strerror(code))
    message = str(caught.value)
    assert message.startswith(f"place: {os.strerror(code)}; ")
    assert len(message.splitlines()) == 1


def test_a_file_is_written_with_the_usual_rights(tmp_path):
    write_bytes(tmp_path / "file", b"old")
    write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~files.umask()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


STEPS = ["tempfile.mkstemp", "os.fdopen", "os.fsync", "os.chmod", "os.replace"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    tmp_path, monkeypatch, step, failure
):
    write_bytes(tmp_path / "file", b"old")

    def fail(*_, **__):
        raise failure

    module, name = step.split(".")
    monkeypatch.setattr(getattr(files, module), name, fail)
    expected = UserError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_bytes(tmp_path / "file", b"new")
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_names_of_any_length_can_be_written(tmp_path):
    name = "a" * 255  # as long as a file system allows: the temporary one is shorter
    write_bytes(tmp_path / name, b"x")
    assert (tmp_path / name).read_bytes() == b"x"
    with pytest.raises(UserError, match="choose shorter names"):
        write_bytes(tmp_path / ("a" * 256), b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_what_is_no_character_is_written_as_an_escape(tmp_path):
    write_text(tmp_path / "file", "caf\udce9 é")  # a name in Latin-1, as Python reads it
    assert (tmp_path / "file").read_text("utf-8") == "caf\\udce9 é"


def test_a_disk_that_cannot_flush_folders_is_used_anyway(tmp_path, monkeypatch):
    real = os.fsync

    def flush(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not here")
        real(handle)

    monkeypatch.setattr(os, "fsync", flush)
    write_bytes(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"
