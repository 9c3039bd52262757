"""Several processes of one job on this machine: started together, and ended together.

Whichever is lost, the job ends in bounded time with a message that says which and how.
"""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from jgmm._core.errors import UserError


class LostMember(UserError):
    """A process of the job has ended before its time."""


LOST = 3  # the exit status of a process that has lost another one
GRACE = 20.0  # seconds that the others have to end in, once one has failed
COMMAND = [sys.executable, "-m", "jgmm.workbench.cli.main"]
_LOOK = 0.05


def launch(arguments: Sequence[str], n_processes: int) -> int:
    """Run `jgmm ARGUMENTS` in several processes, and wait for them.

    Args:
      arguments: of the command, without those that say which process it is.
      n_processes: how many.

    Returns:
      The exit status: 0 if all ended well.

    Raises:
      LostMember: one of them was lost, or failed without saying why.
    """
    place = f"127.0.0.1:{_free_port()}"
    command, *rest = arguments
    start = [*COMMAND, command]
    members = [
        subprocess.Popen(
            [*start, *_member(place, i, n_processes), *rest],
            stdin=subprocess.DEVNULL,
            stdout=None if i == 0 else subprocess.DEVNULL,
        )
        for i in range(n_processes)
    ]
    try:
        return _watch(members)
    except BaseException:
        for member in members:  # they were asked to end, too, if they share our terminal
            if member.poll() is None:
                member.terminate()
        _settle(members)
        raise


def _member(place: str, i: int, n: int) -> list[str]:
    return ["--coordinator", place, "--processes", str(n), "--process", str(i)]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def _watch(members: Sequence["subprocess.Popen[bytes]"]) -> int:
    while True:
        codes = [member.poll() for member in members]
        failed = {i: code for i, code in enumerate(codes) if code}
        if failed:
            _settle(members)
            i, code = _culprit(failed)
            if code in (2, 4, 130, 143):  # it has said why
                return code
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            raise LostMember(
                f"process {i} of {len(members)} {how}; the others were ended. Run the same "
                "command again: it carries on from the last checkpoint"
            )
        if None not in codes:
            return 0
        time.sleep(_LOOK)


def _culprit(failed: Mapping[int, int]) -> tuple[int, int]:
    """Which of those found dead at one look began it, and its status.

    Whoever is lost takes others with it within milliseconds: they end with LOST, or are aborted by
    JAX.
    """
    return min(failed.items(), key=lambda member: member[1] in (LOST, -signal.SIGABRT))


def _settle(members: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Wait for the others to end by themselves, then end them: JAX does not obey SIGTERM."""
    deadline = time.monotonic() + GRACE
    for member in members:
        try:
            member.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            member.kill()
            member.wait()
