"""The compilation cache: private, kept small, and of what the user has set nothing changed."""

import os
import pathlib
import stat
import subprocess
import sys
import warnings
import zlib

import jax
import pytest

import jgmm
from jgmm._core import budget, compilation_cache
from jgmm._core.errors import UserError


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


SETTINGS = [
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
]


@pytest.fixture
def _fresh_jax(monkeypatch, tmp_path):
    """JAX without a setting of the user's, and a place for caches; all as before afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    for name, value in zip(SETTINGS, (None, 1.0, 0), strict=True):
        jax.config.update(name, value)
    with warnings.catch_warnings():
        yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("_fresh_jax")
def test_the_cache_is_where_the_user_says(tmp_path, monkeypatch):
    folder = compilation_cache.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert folder.parent == tmp_path / "jgmm" / "xla"
    assert mode(folder) == mode(folder.parent) == 0o700
    assert [getattr(jax.config, name) for name in SETTINGS[1:]] == [0, -1]
    jax.config.update(SETTINGS[0], None)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert jgmm.use_compilation_cache() == tmp_path / ".cache" / "jgmm" / "xla" / folder.name


@pytest.mark.usefixtures("_fresh_jax")
def test_what_the_user_has_set_stays(tmp_path):
    chosen = tmp_path / "chosen"
    jax.config.update(SETTINGS[0], str(chosen))
    assert compilation_cache.use_compilation_cache() == chosen
    assert [getattr(jax.config, name) for name in SETTINGS] == [str(chosen), 1.0, 0]
    assert list(tmp_path.iterdir()) == []
    jax.config.update(SETTINGS[0], None)
    jax.config.update(SETTINGS[1], 0.25)
    compilation_cache.use_compilation_cache()
    assert [getattr(jax.config, name) for name in SETTINGS[1:]] == [0.25, -1]


@pytest.mark.usefixtures("_fresh_jax")
def test_a_cache_that_is_turned_off_is_not_promised():
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        with pytest.raises(UserError, match="turned off"):
            compilation_cache.use_compilation_cache()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.usefixtures("_fresh_jax")
def test_a_user_without_a_home_has_no_cache_and_is_told(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it does for such users
    with pytest.raises(UserError, match="this user has no home folder"):
        compilation_cache.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None


SESSION = """
import pathlib, sys, time
import jax, jgmm
folder = jgmm.use_compilation_cache()
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
mixture = jgmm.make_mixture([0.5, 0.5], [[0.0], [3.0]], [1.0, 2.0], "spherical")
print(jgmm.log_prob(mixture, [[0.5], [1.5]]).tolist())
print(sum(name.endswith("cache_hits") for name in hits))
print(sum(name.endswith("cache_misses") for name in hits))
for entry in folder.glob("*-cache"):
    content = entry.read_bytes()
    if "cut" in sys.argv:
        entry.write_bytes(content[: len(content) // 2])
"""


def test_the_next_session_compiles_nothing_even_after_a_kill_in_the_middle(tmp_path):
    """Entries cut short, as by a kill, neither warn, though warnings are errors, nor mislead."""

    def session(*arguments):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", SESSION, *arguments],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        values, hits, misses = done.stdout.splitlines()
        return values, int(hits), int(misses)

    first, second, third = session(), session("cut"), session()
    assert first[0] == second[0] == third[0]
    assert first[1] == 0 < first[2]
    assert (second[1], second[2]) == (first[2], 0)
    assert (third[1], third[2]) == (0, first[2])


def test_entries_cut_while_a_session_runs_do_not_end_it(tmp_path):
    """Another process may be writing the entry; JAX warns, and compiles."""
    cut = """
from jgmm._core import compilation_cache
compilation_cache.remove_damaged = lambda folder: None
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    for arguments in (["cut"], []):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", cut + SESSION, *arguments],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert "Error reading persistent compilation cache entry" in done.stderr


def test_what_was_not_read_for_long_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "COMPILATION_CACHE_BYTES", 1000)
    for age in range(12):
        entry = tmp_path / f"{age}-cache"
        entry.write_bytes(bytes(100))
        os.utime(entry, (1e9 - age, 1e9 - age))
    (tmp_path / "other").write_bytes(bytes(5000))
    compilation_cache.remove_unused(tmp_path)
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {"other", *(f"{age}-cache" for age in range(5))}
    compilation_cache.remove_unused(tmp_path)  # it fits
    assert {entry.name for entry in tmp_path.iterdir()} == left


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
