"""Estimate the memory of fits before they begin, and refuse those that need more than is free.

The message says which changes would help; without it the process would be killed half way. The
estimate adds up the arrays that the library holds at the same time. On 16 problems of 0.25 to
2.7 GB, in each of which another term of the estimate dominates, it was 0.97 to 1.64 times the peak
that was measured.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

from jgmm._core.errors import UserError

VARIABLE = "JGMM_MEMORY_GB"
"""Environment variable that says how much memory may be used, in 10⁹ bytes."""

NOTABLE = 0.25
"""Fraction of the free memory above which an estimate is printed."""

_BASE = 300_000_000  # compiled programs, pictures, and libraries that are imported later
_COPIES_ON_HOST = 4  # of the samples in double precision, while they are read, checked and drawn
_COPIES_ON_DEVICE = 2
_ROWS_WRITTEN = 100_000  # more rows are not written; each is a Python object before it is written


@dataclass(frozen=True)
class Problem:
    """The size of a table of fits, on which its memory depends.

    Attributes:
      n_samples: the number of samples, N.
      n_features: the number of features, D.
      n_components: the largest number of components, K.
      covariance: every covariance model of the table.
      n_restarts: the number of restarts of each fit, R.
      max_steps: the number of steps after which a restart stops.
      n_fits: the number of fits in the table.
      itemsize: bytes of a number, 4 or 8.
    """

    n_samples: int
    n_features: int
    n_components: int
    covariance: tuple[str, ...]
    n_restarts: int
    max_steps: int
    n_fits: int
    itemsize: int


@dataclass(frozen=True)
class Estimate:
    """Bytes on the host, and on the device that computes; on a CPU both share one memory."""

    host: int
    device: int


def estimate(problem: Problem) -> Estimate:
    """Estimate the peak memory of fitting, choosing and showing, in bytes.

    The estimate adds up: copies of the samples; N × K responsibilities of the chosen fit; all
    starts of a batch, and the arrays that their initialization needs; the restarts that run side by
    side, with their statistics and histories; and the result of every fit.

    >>> estimate(Problem(1000, 2, 3, ("full",), 16, 1000, 9, 8)).host > 300_000_000
    True
    """
    from jgmm._core import budget
    from jgmm.covariance.models import model
    from jgmm.em import exponential_family
    from jgmm.fitting import restarts

    n, d, k, b = problem.n_samples, problem.n_features, problem.n_components, problem.itemsize
    entries = [model(name) for name in problem.covariance]
    factors = [d ** (entry.storage.ndim - 1) * (1 if entry.shared else k) for entry in entries]
    features = max(exponential_family.n_features(entry, d) for entry in entries)
    mixture = (k * (1 + d) + max(factors)) * b
    history = (problem.max_steps + 1) * b
    batch = min(problem.n_restarts, budget.MAX_STARTS_AT_ONCE)
    work = max(exponential_family.cost_per_step(entry, d, k, n) for entry in entries)
    width = restarts.batch_width(batch, work)
    row = (features + 2 * batch * k) * b
    device = [
        _COPIES_ON_DEVICE * n * d * b,
        4 * n * k * b,  # responsibilities, their logarithms, and intermediate results
        4 * min(batch * n, budget.KMEANS_DISTANCES) * b,  # distances to the centers drawn so far
        5 * batch * mixture,  # centers, statistics packed and unpacked, starts
        10 * width * mixture,
        2 * width * history,  # before and after a step
        2 * 64 * row,  # a block of the fewest rows; blocks of more rows have a few megabytes
        problem.n_fits * (mixture + history),
        32 * problem.n_restarts,
    ]
    host = [
        _BASE,
        8 * _COPIES_ON_HOST * n * d,
        8 * n * k,
        (600 + 240 * k) * n if n <= _ROWS_WRITTEN else 0,
        4000 * problem.n_restarts,  # each restart is a row of a table
    ]
    return Estimate(sum(host), sum(device))


def check_memory(problem: Problem, table: str) -> str:
    """Compare the estimated memory of fits with the memory that is free.

    Args:
      problem: the size of the fits.
      table: the table of the config that holds their settings, for suggestions.

    Returns:
      A sentence with the estimate if it is large, otherwise an empty text.

    Raises:
      UserError: there is not enough memory; the text says which changes would help.
    """
    free = available()
    if free is None:
        return ""
    needed = estimate(problem)
    if _fits(needed, free):
        large = needed.host + needed.device > NOTABLE * (free.host + free.device)
        return f"about {_total(needed)} of memory will be needed" if large else ""
    raise UserError(
        f"about {_total(needed)} of memory would be needed, and {_total(free)} are free. "
        f"{_ways_out(problem, table, free)} If you know better, say how much may be used: "
        f"{VARIABLE}=…"
    )


def _total(amount: Estimate) -> str:
    return f"{(amount.host + amount.device) / 1e9:.3g} GB"


def _fits(needed: Estimate, free: Estimate) -> bool:
    if free.device:
        return needed.host <= free.host and needed.device <= free.device
    return needed.host + needed.device <= free.host


def _ways_out(problem: Problem, table: str, free: Estimate) -> str:
    """List changes of which each alone is enough, as they are written in a config."""

    def halved(name: str, lowest: int) -> str | None:
        value = getattr(problem, name) // 2
        while value >= lowest:
            if _fits(estimate(dataclasses.replace(problem, **{name: value})), free):
                return f"{table}.{name} = {value}"
            value //= 2
        return None

    ways = [halved("n_restarts", 1), halved("max_steps", 50), halved("n_components", 1)]
    changes: list[tuple[str, dict[str, object]]] = [
        ('precision = "float32"', {"itemsize": 4}),
        (f'{table}.covariance = "diag"', {"covariance": ("diag",)}),
    ]
    for text, change in changes:
        other = dataclasses.replace(problem, **change)  # type: ignore[arg-type]
        if other != problem and _fits(estimate(other), free):
            ways.append(text)
    found = [way for way in ways if way is not None]
    if not found:
        return "Fit fewer samples or columns."
    return f"This would do: {'; or '.join(found)}; or fewer samples or columns."


def require(n_bytes: int, where: str) -> None:
    """Refuse to read a file that does not fit into the free memory.

    Args:
      n_bytes: the memory that reading it needs.
      where: the name of the file, for the message.

    Raises:
      UserError: there is not enough memory.
    """
    free = _host()
    if free is not None and n_bytes > free:
        raise UserError(
            f"{where}: about {n_bytes / 1e9:.3g} GB of memory would be needed to read it, and "
            f"{free / 1e9:.3g} GB are free. Choose fewer `columns`, or convert it to .npy; if you "
            f"know better, say how much may be used: {VARIABLE}=…"
        )


@contextlib.contextmanager
def out_of_memory_as_user_error() -> Iterator[None]:
    """Turn an out-of-memory error, for which the estimate was too low, into a ``UserError``."""
    import jax

    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).partition("\n")[0] or "no more was to be had"
        raise UserError(
            f'there was not enough memory ({reason}); try precision = "float32", fewer restarts, '
            "fewer components, a simpler covariance model, or fewer samples or columns"
        ) from error


def available() -> Estimate | None:
    """Return the free bytes on the host and on the device, or None if they are unknown.

    The device has 0 where it is the host.
    """
    free = _host()
    return None if free is None else Estimate(free, _accelerator())


def _host() -> int | None:
    """Return the free bytes on the host, by the environment variable or by the system's limits."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        return _given(given)
    limits = [limit for find in (_machine, _group, _process) if (limit := find()) is not None]
    return min(limits, default=None)


def _given(text: str) -> int:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        raise UserError(f"{VARIABLE}={text}: must be a number of 10⁹ bytes, such as 16")
    return int(amount * 1e9)


def _accelerator() -> int:
    import jax

    stats = jax.devices()[0].memory_stats() or {}  # a CPU has none
    return int(stats.get("bytes_limit", 0)) - int(stats.get("bytes_in_use", 0))


def _machine() -> int | None:
    for line in _lines(pathlib.Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _group() -> int | None:
    """Return the free bytes of this process's control group, as of a container or batch job."""
    free = []
    for line in _lines(pathlib.Path("/proc/self/cgroup")):
        _, kinds, path = line.split(":", 2)
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        root = pathlib.Path("/sys/fs/cgroup")
        if "memory" in kinds.split(","):
            root /= "memory"
        elif not kinds:
            names = ("memory.max", "memory.current")
        else:
            continue
        for place in (root / path.lstrip("/"), root):  # outside of a container, or inside
            limit, used = (_number(place / name) for name in names)
            if limit is not None and used is not None:
                free.append(max(limit - used, 0))
    return min(free, default=None)


def _process() -> int | None:
    """Return the free bytes under this process's limit on its address space."""
    try:
        import resource
    except ImportError:  # pragma: no cover - Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _lines(pathlib.Path("/proc/self/statm"))
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return max(limit - int(pages[0].split()[0]) * resource.getpagesize(), 0)


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # this system has no such file
        return []


def _number(path: pathlib.Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None  # "max" means no limit
