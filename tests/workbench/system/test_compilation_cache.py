import os
import pathlib
import stat
import zlib

import jax
import pytest

from jgmm._core.errors import UserError
from jgmm.workbench.system import compilation_cache


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def refused(base):
    with pytest.raises(UserError) as caught:
        compilation_cache.private_folder(base, "a", "b")
    return str(caught.value)


def test_a_new_folder_is_ours_alone(tmp_path):
    folder = compilation_cache.private_folder(tmp_path / "base", "a", "b")
    assert folder == tmp_path / "base" / "a" / "b"
    assert mode(folder) == mode(folder.parent) == 0o700
    assert compilation_cache.private_folder(tmp_path / "base", "a", "b") == folder


def test_a_folder_that_others_can_read_is_closed(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a").chmod(0o777)  # what is inside is checked once this is closed
    (tmp_path / "a" / "b").chmod(0o755)
    assert (
        mode(compilation_cache.private_folder(tmp_path, "a", "b")) == mode(tmp_path / "a") == 0o700
    )


@pytest.mark.parametrize("rights", [0o770, 0o707, 0o777, 0o1777])
def test_what_others_could_have_written_is_refused_until_it_is_removed(tmp_path, rights):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b").chmod(rights)
    for _ in range(2):
        assert "others may write to it, and may have; remove it" in refused(tmp_path)
    (tmp_path / "a" / "b").rmdir()
    compilation_cache.private_folder(tmp_path, "a", "b")


@pytest.mark.parametrize("place", ["a", "a/b"])
def test_links_and_files_are_refused(tmp_path, place):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).symlink_to(elsewhere)
    assert "this is a link" in refused(tmp_path)
    elsewhere.rmdir()  # now the link leads nowhere
    assert "File exists" in refused(tmp_path)
    (tmp_path / place).unlink()
    (tmp_path / place).touch()
    assert "File exists" in refused(tmp_path)
    assert not elsewhere.exists()


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    compilation_cache.private_folder(tmp_path, "a", "b")
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    assert "belongs to another user" in refused(tmp_path)


def test_a_shared_place_must_keep_people_apart(tmp_path):
    tmp_path.chmod(0o777)
    assert "everybody may replace what is in it" in refused(tmp_path)
    assert list(tmp_path.iterdir()) == []
    tmp_path.chmod(0o1777)  # as /tmp is
    (tmp_path / "link").symlink_to(tmp_path)
    assert compilation_cache.private_folder(tmp_path / "link", "a", "b").is_dir()


def test_a_place_that_cannot_be_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    assert "Not a directory" in refused(tmp_path / "file" / "base")
    assert "null byte" in refused(pathlib.Path("a\0b"))


@pytest.fixture
def _untouched_jax():
    names = ["compilation_cache_dir", "persistent_cache_min_compile_time_secs"]
    names = [f"jax_{name}" for name in [*names, "persistent_cache_min_entry_size_bytes"]]
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("_untouched_jax")
def test_the_cache_is_where_the_user_says(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compilation_cache.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jgmm" / "xla")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    compilation_cache.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / ".cache" / "jgmm" / "xla")
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("_untouched_jax")
def test_a_user_without_a_home_has_no_cache_and_is_told(monkeypatch, capsys):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it does for such users
    before = jax.config.jax_compilation_cache_dir
    compilation_cache.use_compilation_cache()
    assert "no compilation cache: this user has no home folder" in capsys.readouterr().err
    assert jax.config.jax_compilation_cache_dir == before


def test_entries_cut_short_are_removed_and_others_stay(tmp_path):
    whole = zlib.compress(b"a program" * 1000)
    contents = {"whole": whole, "half": whole[: len(whole) // 2], "none": b"", "other": b"\x28zstd"}
    contents["flipped"] = whole[:20] + bytes([whole[20] ^ 1]) + whole[21:]
    for name, content in contents.items():
        (tmp_path / f"{name}-cache").write_bytes(content)
    (tmp_path / "half").write_bytes(contents["half"])  # no entry
    compilation_cache.remove_damaged(tmp_path)
    left = {"whole-cache", "other-cache", "half", "checked"}
    assert {entry.name for entry in tmp_path.iterdir()} == left
    (tmp_path / "old-cache").write_bytes(b"")
    os.utime(tmp_path / "old-cache", (0, 0))  # as if checked before
    (tmp_path / "new-cache").write_bytes(b"")
    compilation_cache.remove_damaged(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {*left, "old-cache"}


def test_a_folder_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        compilation_cache.remove_damaged(tmp_path / "gone")
