"""A run that was killed at any moment ends where one that was not does, to the last bit."""

import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import safetensors.numpy

import jgmm
from jgmm._core.errors import DataError, UserError
from jgmm.streaming.fit import fit
from jgmm.workbench.readers.streams import FileSource
from jgmm.workbench.runs import checkpoints
from jgmm.workbench.runs.checkpoints import Checkpoint

KILLS = int(os.environ.get("JGMM_KILLS", "1"))


class Server:
    """See killed.py."""

    def __init__(self, *arguments):
        script = pathlib.Path(__file__).parent / "killed.py"
        environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(jgmm.__file__).parents[1])}
        self.process = subprocess.Popen(
            [sys.executable, script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, target):
        print(target, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def status(self):
        return int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(timeout=60) == 0 or error[0]


def wait_for_some_moment(path, generator):
    """Mostly while checkpoints are written, sometimes long before."""
    if generator.random() < 0.2:
        time.sleep(generator.uniform(0, 1))
        return
    before = path.stat().st_mtime_ns if path.exists() else 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.stat().st_mtime_ns > before:
            break
        time.sleep(0.005)
    time.sleep(generator.uniform(0, 0.3))


def test_killed_at_any_moment_a_fit_ends_where_it_would_have(tmp_path):
    x = np.random.default_rng(0).normal(size=(1900, 2)).astype(np.float32)
    x[:900] += [2, 1]
    np.save(tmp_path / "x.npy", x)
    kept = Checkpoint(tmp_path / "kept", {})
    with Server(*(tmp_path / name for name in ("x.npy", "kept", "cache"))) as server:
        server.start(tmp_path / "reference")
        assert server.status() == 0
        reference = (tmp_path / "reference").read_bytes()
        assert reference.endswith(b"False")
        generator = random.Random(os.environ.get("JGMM_SEED", "0"))
        killed = resumed = 0
        while killed < KILLS:
            kept.remove()
            status = None
            while status != 0:  # until it has ended in spite of what was done to it
                child = server.start(tmp_path / "found")
                if killed < KILLS:
                    wait_for_some_moment(kept.path, generator)
                    os.kill(child, signal.SIGKILL)  # no harm to one that has ended
                status = server.status()
                assert status in (0, -signal.SIGKILL)
                killed += status != 0
            found = (tmp_path / "found").read_bytes()
            resumed += found.endswith(b"True")
            assert found.removesuffix(b"True") == reference.removesuffix(b"False")
        assert resumed


@pytest.fixture(scope="module")
def state():
    """The state of a short fit."""
    kept = []

    class Keep:
        def restore(self, like):
            return None

        def save(self, state, now=False):
            kept.append(state)

    x = np.random.default_rng(0).normal(size=(60, 1))
    start = jgmm.make_mixture([0.5, 0.5], [[-1.0], [1.0]], [[[1.0]]] * 2, "full")
    fit(jax.random.key(0), x, 2, init=start, max_steps=1, block_rows=32, checkpointer=Keep())
    return kept[0]


def test_every_number_comes_back(tmp_path, state):
    checkpointer = Checkpoint(tmp_path / "deep" / "er", {"b": 1, "a": [2]}, minutes=0.0)
    assert checkpointer.restore(state) is None
    checkpointer.save(state)
    assert [path.name for path in checkpointer.folder.iterdir()] == ["0000-of-0001.safetensors"]
    again = Checkpoint(checkpointer.folder, {"a": [2], "b": 1})
    found = again.restore(state)
    assert again.resumed == 0
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    again.remove()
    assert not checkpointer.folder.exists()


def test_it_is_written_when_it_is_time_to(tmp_path, state, monkeypatch):
    written = []
    monkeypatch.setattr(checkpoints, "save", lambda *arguments: written.append(now[0]))
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    checkpointer = Checkpoint(tmp_path, {}, minutes=1.0)
    for now[0] in (0.0, 59.0, 61.0, 100.0, 121.5):
        checkpointer.save(state)
    checkpointer.save(state, True)
    assert written == [61.0, 121.5, 121.5]
    written.clear()
    by_steps = Checkpoint(tmp_path, {}, minutes=1e6, steps=2)
    for step in range(6):
        moved = dataclasses.replace(state.runs, n_steps=np.asarray([step]))
        by_steps.save(dataclasses.replace(state, runs=moved))
    assert len(written) == 2


def test_a_file_that_will_not_do_is_refused_with_the_reason(tmp_path, state):
    checkpointer = Checkpoint(tmp_path, {"K": 2}, minutes=0.0)
    checkpointer.save(state)
    whole = checkpointer.path.read_bytes()

    def refused(content, text, config=None, like=state):
        checkpointer.path.write_bytes(content)
        with pytest.raises(UserError, match=text) as caught:
            Checkpoint(tmp_path, config or {"K": 2}).restore(like)
        assert str(tmp_path) in str(caught.value)

    refused(whole, "of another config", {"K": 3})
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        refused(whole[:length], "not a whole safetensors file.*cut short.*begin anew")
    changed = bytearray(whole)
    changed[-3] ^= 1
    refused(bytes(changed), "damaged")
    refused(safetensors.numpy.save({"a": np.ones(2)}), "not a checkpoint")
    refused(
        safetensors.numpy.save({"a": np.ones(2)}, {"jgmm": json.dumps([1])}), "not a checkpoint"
    )
    half = jax.tree.map(lambda leaf: leaf[None], state)
    refused(whole, "another shape or precision", like=half)


def test_a_checkpoint_of_an_earlier_format_is_refused(tmp_path, state, monkeypatch):
    """Its fields have other names and meanings."""
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 1)
    Checkpoint(tmp_path, {}, minutes=0.0).save(state)
    monkeypatch.undo()
    with pytest.raises(UserError, match="not a checkpoint that this jgmm can read"):
        Checkpoint(tmp_path, {}).restore(state)


def test_a_checkpoint_of_a_file_that_was_replaced_is_refused(tmp_path):
    """The file has the same name, shape and columns, so the config is the same."""
    x = np.random.default_rng(0).normal(size=(60, 1))
    start = jgmm.make_mixture([0.5, 0.5], [[-1.0], [1.0]], [[[1.0]]] * 2, "full")
    path, folder = tmp_path / "x.npy", tmp_path / "kept"
    stop = 3

    def go_on():
        def interrupt(progress):
            if progress.step == stop:
                raise RuntimeError("the machine stops")

        checkpointer = Checkpoint(folder, {"data": str(path)}, minutes=0.0)
        options = {"init": start, "max_steps": 5, "block_rows": 32, "progress": interrupt}
        found = fit(jax.random.key(0), FileSource(path), 2, checkpointer=checkpointer, **options)
        return found, checkpointer.resumed

    np.save(path, x)
    with pytest.raises(RuntimeError, match="the machine stops"):
        go_on()
    np.save(path, x + 1)
    with pytest.raises(DataError, match="the checkpoint belongs to other samples: 60 rows each"):
        go_on()
    np.save(path, x)
    stop = None
    found, resumed = go_on()
    assert resumed == 3
    expected = fit(jax.random.key(0), x, 2, init=start, max_steps=5, block_rows=32)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_was_being_written_is_cleared_away(tmp_path, state):
    (tmp_path / ".abc.partial").write_bytes(b"half")
    Checkpoint(tmp_path, {}, process=(1, 2)).restore(state)
    assert (tmp_path / ".abc.partial").exists()  # another process may be writing it
    Checkpoint(tmp_path, {}, process=(0, 2)).restore(state)
    assert not list(tmp_path.iterdir())
