"""Launch the processes of a job on this machine, and end all of them if one is lost.

If any process is lost, the job ends in bounded time with a message that says which and how.
"""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from jgmm._core.errors import UserError


class LostMember(UserError):
    """A process of the job was killed, or failed without an error message of its own."""


LOST = 3
"""The exit status of a process that has lost another one."""
GRACE = 20.0
"""Seconds that the other processes have to end by themselves, once one has failed."""
COMMAND = [sys.executable, "-m", "jgmm.workbench.cli.main"]
_POLL_SECONDS = 0.05


def launch(arguments: Sequence[str], n_processes: int) -> int:
    """Run ``jgmm ARGUMENTS`` in several processes, and wait for them.

    Args:
      arguments: the sub-command and its arguments, without those for the number of a process.
      n_processes: the number of processes.

    Returns:
      The exit status: 0 if all processes succeeded, otherwise that of the first one that failed.

    Raises:
      LostMember: a process was lost, or failed without an error message of its own.
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
        for member in members:  # after Ctrl-C those of the same terminal are ending already
            if member.poll() is None:
                member.terminate()
        _settle(members)
        raise


def _member(place: str, i: int, n: int) -> list[str]:
    return ["--coordinator", place, "--processes", str(n), "--process", str(i)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def _watch(members: Sequence["subprocess.Popen[bytes]"]) -> int:
    """Wait until all processes have ended well, or one has failed, and return the exit status."""
    while True:
        codes = [member.poll() for member in members]
        failed = {i: code for i, code in enumerate(codes) if code}
        if failed:
            _settle(members)
            i, code = _culprit(failed)
            if code in (2, 4, 130, 143):  # it has printed an error message
                return code
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            raise LostMember(
                f"process {i} of {len(members)} {how}; the others were ended. Run the same "
                "command again: it carries on from the last checkpoint"
            )
        if None not in codes:
            return 0
        time.sleep(_POLL_SECONDS)


def _culprit(failed: Mapping[int, int]) -> tuple[int, int]:
    """Return which of several failed processes failed first, and its status.

    After one process is lost, the others fail within milliseconds: they end with LOST, or JAX
    aborts them.
    """
    return min(failed.items(), key=lambda member: member[1] in (LOST, -signal.SIGABRT))


def _settle(members: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Wait until all processes have ended; kill those that have not after ``GRACE`` seconds.

    They are killed by SIGKILL, as JAX does not obey SIGTERM.
    """
    deadline = time.monotonic() + GRACE
    for member in members:
        try:
            member.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            member.kill()
            member.wait()
