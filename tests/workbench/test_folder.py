import errno
import os
import re
import stat

import pytest

from jgmm.workbench import folder
from jgmm.workbench.files import UserError
from jgmm.workbench.folder import run_folder


def test_a_run_folder_appears_only_when_it_is_complete(tmp_path):
    with run_folder(tmp_path / "new" / "runs", "a") as made:
        (made.path / "file").write_text("x")
        assert made.path.name.startswith(".")
    assert made.final is not None
    assert re.fullmatch(r"a-\d{8}-\d{6}", made.final.name)
    assert (made.final / "file").read_text() == "x"
    assert list(made.final.parent.iterdir()) == [made.final]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(made.final.stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_a_failure_leaves_nothing_behind(tmp_path, error):
    def fail():
        with run_folder(tmp_path / "runs", "a") as made:
            (made.path / "file").write_text("x")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_two_runs_in_the_same_second_get_two_folders(tmp_path, monkeypatch):
    class Stopped(folder.datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2020, 1, 2, 3, 4, 5)

    monkeypatch.setattr(folder.datetime, "datetime", Stopped)
    (tmp_path / "a-20200102-030405-3").write_text("a file in the way")
    names = []
    for _ in range(3):
        with run_folder(tmp_path, "a") as made:
            pass
        names.append(made.final.name)
    assert names == ["a-20200102-030405", "a-20200102-030405-2", "a-20200102-030405-4"]


def test_a_place_that_cannot_hold_runs_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()

    def start(output):
        with run_folder(output, "a"):
            pytest.fail("the work began")

    with pytest.raises(UserError, match="File exists; a file of that name is in the way"):
        start(tmp_path / "file")
    with pytest.raises(UserError, match="Not a directory"):
        start(tmp_path / "file" / "runs")


def test_a_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    def refuse(**_) -> str:  # a real one would stop everybody but root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(folder.tempfile, "mkdtemp", refuse)
    expected = "Permission denied; choose a folder you may write to"
    with pytest.raises(UserError, match=expected), run_folder(tmp_path / "runs", "a"):
        pytest.fail("the work began")


def test_an_error_of_the_study_keeps_its_type(tmp_path):
    with pytest.raises(PermissionError), run_folder(tmp_path, "a"):
        raise PermissionError(errno.EACCES, "the study's own")
