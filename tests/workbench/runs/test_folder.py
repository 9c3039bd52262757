import errno
import os
import re
import stat

import pytest

from jgmm._core.errors import UserError
from jgmm.workbench.runs import folder
from jgmm.workbench.runs.folder import run_folder


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
    (tmp_path / "a-20200102-030405-5").symlink_to("nowhere")
    (tmp_path / "a-20200102-030405-6").mkdir()  # which a rename would replace
    names = []
    for _ in range(4):
        with run_folder(tmp_path, "a") as made:
            pass
        names.append(made.final.name)
    counters = ["", "-2", "-4", "-7"]
    assert names == [f"a-20200102-030405{counter}" for counter in counters]


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


def test_folders_made_on_the_way_go_with_a_failed_run(tmp_path):
    (tmp_path / "given").mkdir()
    with pytest.raises(ValueError, match="x"), run_folder(tmp_path / "given/new/runs", "a"):
        raise ValueError("x")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["given"]
    with (
        pytest.raises(UserError, match="File name too long"),
        run_folder(tmp_path / "given/new" / ("x" * 256), "a"),
    ):
        pytest.fail("the work began")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["given"]


@pytest.mark.parametrize("output", ["a\0b", "x" * 300, "/proc/none"])
def test_places_that_cannot_be_are_refused(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught, run_folder(output, "a"):
        pytest.fail("the work began")
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_another_run_takes_away_is_made_again(tmp_path, monkeypatch):
    """A run that fails removes the folder it made, perhaps just before this one writes to it."""
    real, calls = folder.tempfile.mkdtemp, []

    def late(**options):
        calls.append(options)
        if len(calls) == 1:
            os.rmdir(options["dir"])
        return real(**options)

    monkeypatch.setattr(folder.tempfile, "mkdtemp", late)
    with run_folder(tmp_path / "runs", "a") as made:
        pass
    assert made.final.is_dir()
    assert len(calls) == 2


def test_a_folder_that_cannot_be_removed_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(folder.shutil, "rmtree", refuse)
    place = run_folder(tmp_path, "a")
    with pytest.raises(UserError, match="cannot be removed: Device or resource busy"), place:
        raise ValueError
    assert len(list(tmp_path.iterdir())) == 1


# What killed runs have left


def left_over(place, name=None):
    path = place / (name or f".old-20200102-030405-abc{folder._suffix()}")
    (path / "tables").mkdir(parents=True)
    (path / "tables" / "part.csv").touch()
    return path


def test_what_a_killed_run_left_is_removed_and_named(tmp_path):
    dead = left_over(tmp_path)
    with run_folder(tmp_path, "a") as made:
        assert made.removed == [dead]
        assert not dead.exists()
    with run_folder(tmp_path, "a") as made:
        assert made.removed == []


def test_runs_that_go_on_are_left_alone(tmp_path):
    with run_folder(tmp_path, "a") as first, run_folder(tmp_path, "a") as second:
        assert first.removed == second.removed == []
        assert first.path.is_dir()
    assert len(list(tmp_path.iterdir())) == 2


def test_only_what_is_surely_dead_and_ours_is_removed(tmp_path, monkeypatch):
    """Not another machine's, whose locks we may not see; no link; nobody else's; no file."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (tmp_path / f".link{folder._suffix()}").symlink_to(kept)
    (tmp_path / f".file{folder._suffix()}").touch()
    left_over(tmp_path, ".old-20200102-030405-abc.another-machine.partial")
    left_over(tmp_path, ".unrelated")
    with run_folder(tmp_path, "a") as made:
        assert made.removed == []
    left_over(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
        with run_folder(tmp_path, "a") as made:
            assert made.removed == []
    assert (kept / "file").exists()
    assert len(list(tmp_path.glob(".*"))) == 5


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder.fcntl, "flock", refuse)
    dead = left_over(tmp_path)
    with run_folder(tmp_path, "a") as made:
        assert made.removed == []
    assert dead.is_dir()
    assert made.final.is_dir()
