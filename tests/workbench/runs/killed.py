"""Fits in processes of their own, for a test that kills them: one a line of standard input.

    python killed.py DATA.npy CHECKPOINTS CACHE

Each line is the file a fit writes its parameters to. The answer is its process, and, when that has
ended, how. Imports take seconds, so they are done once, before any process is made.
"""

import os
import pathlib
import sys
import warnings

import jax
import numpy as np

import jgmm
from jgmm.streaming.fit import fit as fit_stream
from jgmm.workbench.readers.streams import FileSource
from jgmm.workbench.runs.checkpoints import Checkpoint

ROWS, MAX_STEPS = 200, 12


def fit(data: str, folder: str, cache: str, target: str) -> None:
    """Fit with a checkpoint after every block, and write the parameters at the end."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    start = jgmm.make_mixture(
        np.ones(2, np.float32) / 2,
        np.asarray([[0, 0], [1, 1]], np.float32),
        np.asarray([np.eye(2)] * 2, np.float32),
        "full",
    )
    checkpointer = Checkpoint(folder, {"data": data}, minutes=0.0)
    result = fit_stream(
        jax.random.key(0),
        FileSource(data),
        2,
        init=start,
        max_steps=MAX_STEPS,
        tol=0.0,
        rtol=0.0,
        block_rows=ROWS,
        checkpointer=checkpointer,
    )
    leaves = jax.tree.leaves((result.mixture, result.log_likelihood, result.history))
    content = b"".join(np.asarray(leaf).tobytes() for leaf in leaves)
    pathlib.Path(target).write_bytes(content + str(checkpointer.resumed is not None).encode())


def main() -> None:
    """Serve."""
    warnings.filterwarnings("ignore", message=".*fork.*")  # no thread of JAX's runs yet
    child = 0
    for line in sys.stdin:
        if child:  # until here it could be killed without harm, though it had ended
            os.waitpid(child, 0)
        child = os.fork()
        if not child:
            fit(*sys.argv[1:], line.strip())
            os._exit(0)
        print(child, flush=True)
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert ended is not None  # without WNOHANG it waits
        killed = ended.si_code != os.CLD_EXITED
        print(-ended.si_status if killed else ended.si_status, flush=True)


if __name__ == "__main__":
    main()
