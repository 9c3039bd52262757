import dataclasses
import os
import pathlib
import re

import jax
import numpy as np
import pytest

from jgmm._core.errors import UserError
from jgmm.workbench.config.models import from_table
from jgmm.workbench.runs import memory
from jgmm.workbench.runs.memory import Estimate, Problem, check_memory, estimate

SMALL = Problem(1000, 4, 3, ("full",), 16, 1000, 9, 8)
GB = 10**9


def test_an_estimate_holds_what_must_be_held():
    many = estimate(dataclasses.replace(SMALL, n_samples=10**8))
    assert many.host > 8 * 4 * 10**8  # the samples that are read
    assert many.device > 8 * 4 * 10**8 + 8 * 3 * 10**8  # the samples, the responsibilities
    long = estimate(dataclasses.replace(SMALL, n_restarts=200, max_steps=10**7))
    # Each of 32 restarts side by side keeps its log-likelihoods, before and after a step.
    assert long.device > 2 * 32 * 10**7 * 8
    wide = estimate(dataclasses.replace(SMALL, n_features=2000, n_restarts=100))
    assert wide.device > 100 * 3 * 2000**2 * 8
    assert estimate(SMALL).device < 0.1 * GB


@pytest.mark.parametrize(
    "more",
    [
        {"n_samples": 10**7},
        {"n_features": 500},
        {"n_components": 500},
        {"n_restarts": 10**6},
        {"max_steps": 10**6},
        {"n_fits": 10**5},
    ],
)
def test_more_of_anything_needs_more(more):
    assert estimate(dataclasses.replace(SMALL, **more)).device > 2 * estimate(SMALL).device


@pytest.mark.parametrize("change", [{"itemsize": 4}, {"covariance": ("diag",)}])
def test_what_is_proposed_needs_less(change):
    large = dataclasses.replace(SMALL, n_features=1000)
    assert estimate(dataclasses.replace(large, **change)).device < 0.6 * estimate(large).device


def test_the_most_demanding_model_counts():
    both = dataclasses.replace(SMALL, n_features=300, covariance=("spherical", "full"))
    alone = dataclasses.replace(both, covariance=("full",))
    assert estimate(both) == estimate(alone)
    shared = dataclasses.replace(alone, covariance=("tied",), n_components=30)
    assert estimate(shared).device < estimate(dataclasses.replace(alone, n_components=30)).device


@pytest.fixture
def _one_gigabyte(monkeypatch):
    monkeypatch.setenv(memory.VARIABLE, "1")


@pytest.mark.usefixtures("_one_gigabyte")
@pytest.mark.parametrize(
    ("large", "proposals"),
    [
        ({"n_samples": 10**8}, []),
        ({"n_restarts": 1000, "max_steps": 4 * 10**6}, ["fit.n_restarts", "fit.max_steps"]),
        (
            {"n_features": 200, "n_restarts": 100, "n_components": 16},
            ["fit.n_restarts", "fit.n_components", 'fit.covariance = "diag"'],
        ),
        ({"n_features": 500, "n_restarts": 20}, ['precision = "float32"', "fit.n_restarts"]),
    ],
)
def test_too_much_is_refused_with_changes_each_of_which_is_enough(large, proposals):
    problem = dataclasses.replace(SMALL, **large)
    with pytest.raises(UserError) as caught:
        check_memory(problem, "fit")
    message = str(caught.value)
    assert re.match(r"about [\d.]+ GB of memory would be needed, and 1 GB are free\. ", message)
    assert "fewer samples or columns" in message
    for proposal in proposals:
        assert proposal in message
    for name, value in re.findall(r"fit\.(n_\w+|max_steps) = (\d+)", message):
        check_memory(dataclasses.replace(problem, **{name: int(value)}), "fit")
        with pytest.raises(UserError):  # twice as many would still be too many
            check_memory(dataclasses.replace(problem, **{name: 2 * int(value) + 2}), "fit")


@pytest.mark.usefixtures("_one_gigabyte")
def test_a_large_estimate_is_told_and_a_small_one_is_not(monkeypatch):
    told = check_memory(dataclasses.replace(SMALL, n_samples=400_000), "fit")
    assert re.fullmatch(r"about 0\.\d+ GB of memory will be needed", told)
    monkeypatch.setenv(memory.VARIABLE, "100")
    assert check_memory(SMALL, "fit") == ""


@pytest.mark.parametrize("text", ["", "much", "0", "-1", "nan", "inf"])
def test_memory_that_is_no_amount_is_refused(monkeypatch, text):
    monkeypatch.setenv(memory.VARIABLE, text)
    with pytest.raises(UserError, match=r"JGMM_MEMORY_GB=.*must be a number"):
        memory.available()


def test_the_device_has_its_own_limit(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: Estimate(100 * GB, GB))
    assert check_memory(SMALL, "fit") == ""
    with pytest.raises(UserError):
        check_memory(dataclasses.replace(SMALL, max_steps=10**7), "fit")
    monkeypatch.setattr(memory, "available", lambda: Estimate(GB, 100 * GB))
    with pytest.raises(UserError):
        check_memory(dataclasses.replace(SMALL, n_samples=10**8), "fit")
    monkeypatch.setattr(memory, "available", lambda: None)
    assert check_memory(dataclasses.replace(SMALL, n_samples=10**12), "fit") == ""


def test_an_accelerator_says_what_it_has(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 80 * GB, "bytes_in_use": 30 * GB}

    monkeypatch.setenv(memory.VARIABLE, "3")
    assert memory.available() == Estimate(3 * GB, 0)  # as on this CPU
    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    assert memory.available() == Estimate(3 * GB, 50 * GB)


# --- what is free ------------------------------------------------------------------------------


@pytest.fixture
def system(monkeypatch):
    """Files of the system, by path; those that are not given do not exist."""
    files = {}

    def lines(path):
        return files.get(str(path), "").splitlines()

    monkeypatch.delenv(memory.VARIABLE, raising=False)
    monkeypatch.setattr(memory, "_lines", lines)
    return files


def test_the_least_of_all_limits_counts(system):
    assert memory.available() is None
    system["/proc/meminfo"] = "MemTotal: 9 kB\nMemAvailable:  4000000 kB\n"
    assert memory.available() == Estimate(4_096_000_000, 0)
    system["/proc/self/cgroup"] = "0::/job/1\n"
    system["/sys/fs/cgroup/job/1/memory.max"] = "max\n"
    system["/sys/fs/cgroup/job/1/memory.current"] = "500\n"
    assert memory.available() == Estimate(4_096_000_000, 0)
    system["/sys/fs/cgroup/job/1/memory.max"] = "2000\n"
    assert memory.available() == Estimate(1500, 0)
    system["/sys/fs/cgroup/memory.max"] = "1000\n"  # as seen from inside a container
    system["/sys/fs/cgroup/memory.current"] = "1200\n"
    assert memory.available() == Estimate(0, 0)


def test_older_control_groups_count(system):
    system["/proc/self/cgroup"] = "3:cpu:/a\n2:blkio,memory:/a\n"
    system["/sys/fs/cgroup/memory/a/memory.limit_in_bytes"] = "3000\n"
    system["/sys/fs/cgroup/memory/a/memory.usage_in_bytes"] = "1000\n"
    assert memory.available() == Estimate(2000, 0)


def test_a_limit_on_addresses_counts(system, monkeypatch):
    resource = pytest.importorskip("resource", reason="this system knows no limits")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**9, 10**9))
    system["/proc/self/statm"] = "1000 20 30\n"
    assert memory.available() == Estimate(10**9 - 1000 * resource.getpagesize(), 0)


@pytest.mark.skipif(not os.path.exists("/proc/meminfo"), reason="this system has no /proc")
def test_this_machine_has_some(monkeypatch):
    monkeypatch.delenv(memory.VARIABLE, raising=False)
    free = memory.available()
    assert free is not None
    total = int(re.search(r"MemTotal: *(\d+)", pathlib.Path("/proc/meminfo").read_text())[1])
    assert 0 < free.host < total * 1024


# --- where it is asked -------------------------------------------------------------------------


def test_a_file_too_large_to_read_is_refused_before(tmp_path, monkeypatch):
    from jgmm.workbench.readers import datasets

    np.save(tmp_path / "x.npy", np.ones((1000, 5)))
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n" * 4000)
    monkeypatch.setenv(memory.VARIABLE, "0.00003")
    for name in ("x.npy", "x.csv"):
        with pytest.raises(UserError, match=rf"{name}: about .* GB of memory would be needed"):
            datasets.load(tmp_path / name, mapped=False)
    assert datasets.load(tmp_path / "x.npy").x.shape == (1000, 5)  # left on the disk


@pytest.mark.parametrize("study", ["mixture", "classify"])
def test_a_study_that_does_not_fit_ends_before_it_begins(tmp_path, monkeypatch, study):
    from jgmm.workbench.runs.runner import run_config

    monkeypatch.setenv(memory.VARIABLE, "0.2")
    data = {"source": "iris", "label": "species"}
    table = {"study": study, "output": str(tmp_path / "runs"), "data": data}
    with pytest.raises(UserError, match="GB of memory would be needed"):
        run_config(from_table(table), progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore")],
)
def test_memory_that_runs_out_unforeseen_is_told_in_one_sentence(tmp_path, monkeypatch, error):
    from jgmm.workbench.runs.runner import run_config
    from jgmm.workbench.studies import mixture as mixture_study

    def fail(run):
        raise error

    monkeypatch.setattr(mixture_study, "run", fail)
    config = from_table({"output": str(tmp_path / "runs")})
    with pytest.raises(UserError, match=r"not enough memory \(.*\); try precision") as caught:
        run_config(config, progress=False)
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_defect_is_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    from jgmm.workbench.runs.runner import run_config
    from jgmm.workbench.studies import mixture as mixture_study

    def fail(run):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(mixture_study, "run", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        run_config(from_table({"output": str(tmp_path / "runs")}), progress=False)
