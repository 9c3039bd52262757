"""The ``jgmm`` command: how sub-commands are added, error messages and exit statuses.

A sub-command is a function with the decorator ``command``.
"""

import functools
import io
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec

from jgmm._core.errors import UserError
from jgmm.workbench.cli.terminal import visible
from jgmm.workbench.system import signals

try:
    import typer
except ImportError as error:  # pragma: no cover - the test environment has every extra
    raise ImportError('the workbench needs more packages: pip install "jgmm[workbench]"') from error

P = ParamSpec("P")

Exit = typer.Exit
"""The exception that ends a sub-command with an exit status, without printing anything more."""

EXIT_CODES = """
Exit status: 0, done; 1, a defect of jgmm, with its traceback; 2, something in the command, the
config or the data has to be corrected; 3, one of several processes was lost; 4, no fit ended in
usable parameters; 130, Ctrl-C; 143, told to end (SIGTERM).
"""

app = typer.Typer(
    name="jgmm",
    help="Gaussian mixtures in JAX: run studies, fit mixtures to files, show and compare results.",
    epilog=" ".join(EXIT_CODES.split()),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # to import rich takes longer than all else that help needs
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Print the version if the option --version is given."""
    if version:
        import jgmm

        print(f"jgmm {jgmm.__version__}")
        raise Exit


def command(*examples: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Add a sub-command; mistakes that the user can correct are printed without a traceback.

    The exit status is 2 for such a mistake, 4 for a fit that failed, 130 for Ctrl-C, 143 for
    SIGTERM; any other exception is a defect of jgmm, and keeps its traceback.

    Args:
      examples: command lines for its help.

    Returns:
      A decorator for the function of the sub-command. Its docstring is the help text.
    """

    def add(function: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):  # it may be unable to encode a name
                    stream.reconfigure(errors="backslashreplace")
            try:
                function(*args, **kwargs)
            except Exit:
                raise
            except (KeyboardInterrupt, signals.Stopped):
                raise Exit(_ended()) from None
            except UserError as error:
                raise Exit(complain(str(error), 2)) from None
            except Exception as error:
                # A library may turn the exception of a request to end into one of its own.
                if signals.stop_requested() is not None:
                    raise Exit(_ended()) from None
                status = _status(error)
                if status is None:
                    raise
                raise Exit(complain(str(error), status)) from None

        paragraphs = (function.__doc__ or "").split("\n\n")
        shown = "\n\n".join(" ".join(each.split()) for each in paragraphs)
        app.command(help=shown, epilog="\n\n".join(["Examples:", *examples]))(guarded)
        return guarded

    return add


def _ended() -> int:
    """Print that the command was ended by a signal, and return the exit status."""
    number = signals.stop_requested() or signal.SIGINT
    what = "interrupted" if number == signal.SIGINT else "told to end"
    return complain(f"{what}; nothing was left behind", 128 + number)  # as shells expect


def complain(text: str, status: int) -> int:
    """Print an error message on standard error, and return the exit status given."""
    for line in text.splitlines() or ["of an unknown kind"]:
        print(f"error: {visible(line)}", file=sys.stderr)
    return status


def _status(error: Exception) -> int | None:
    """Return the exit status of an exception whose text is written for users; None for others."""
    from jgmm._core.errors import DataError, FitError

    return 2 if isinstance(error, DataError) else 4 if isinstance(error, FitError) else None


def print_json(value: Any) -> None:
    """Print the result of a command with the option ``--json``."""
    from jgmm.workbench.runs import storage

    print(storage.json_text(value))
