"""What every test runs under: strict JAX, both precisions, the same examples every time."""

import importlib.metadata
import os
import pathlib

os.environ["MPLBACKEND"] = "Agg"
# The suite compiles thousands of small programs and runs each for a moment. Machine code that is
# not optimised saves two fifths of the time; the programs it is made from are the same.
os.environ.setdefault("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    # The older of two ways to make loops of fused operations takes half the time to compile; later
    # versions have one way only, and stop at a flag they do not know.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import hypothesis
import jax
import numpy as np
import pytest

# Without x64 a float64 test would silently be a float32 test; implied promotions, of types or of
# ranks, hide the same kind of mistake in the library.
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Programs are compiled once a worker, not once a module, and not at all in the next run. Workers do
# not share a folder: JAX does not write entries in one piece.
_CACHE = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "xla"
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
jax.config.update("jax_compilation_cache_dir", str(_CACHE / _WORKER))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Compilation makes the first example slow, so no deadline; a failure must come back on every run.
hypothesis.settings.register_profile("jgmm", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("jgmm")

# 500 rounding errors, relative and, for results of order one, absolute: sums in the tests have
# tens to hundreds of terms and pass through matrices with condition numbers up to about ten.
TOLERANCE = {
    np.dtype(t): {"rtol": 500 * float(np.finfo(t).eps), "atol": 500 * float(np.finfo(t).eps)}
    for t in (np.float32, np.float64)
}


# Module scope: hypothesis refuses function-scoped fixtures under @given.
@pytest.fixture(scope="module", params=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(scope="module")
def tolerance(dtype):
    """Arguments for `numpy.testing.assert_allclose` in a test that takes `dtype`."""
    return TOLERANCE[dtype]


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory():
    """Compiled programs are kept for one test module, not for the whole run."""
    yield
    jax.clear_caches()
