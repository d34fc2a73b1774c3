"""How a command ends: every mistake in its arguments or files becomes a few lines on stderr and an exit status,
whatever exception it raised."""
from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from graphc.errors import GraphError, InternalError

DIGITS = 18                         # of a number on the command line: it fits into 64 bits
# besides 2, which is argparse's; the last two as a shell says it of SIGINT and SIGPIPE
DONE, WRONG, INTERRUPTED, UNREAD = 0, 1, 130, 141


def answered(command: Callable[[], int | None]) -> int:
    """The exit status of the command. No error leaves it but argparse's SystemExit; one that graphc did not foresee
    shows its traceback."""
    _prepare_streams()
    try:
        status = command() or DONE
        if sys.stdout is not None:
            # what cannot be written is an error of this command, not of the interpreter's end
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        _forget_output()
        return UNREAD
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except (GraphError, InternalError) as error:
        _say(str(error))
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename is not None and error.strerror else str(error))
        _forget_output()
    except MemoryError as error:
        _say(f"not enough memory: {error}" if str(error) else "not enough memory")
    except Exception as error:
        _say(f"a bug in graphc: {type(error).__name__}: {error}\n{traceback.format_exc()}")
    return WRONG


def users_traceback(error: BaseException, file: str) -> str:
    """The error as Python shows it, from the first line of the user's file on: what called that is graphc and says
    nothing."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != file:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()


def _prepare_streams() -> None:
    """Texts are read as UTF-8, so they are written so where no terminal asks for something else; what cannot be
    written is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


def _say(text: str) -> None:
    try:
        print(f"graphc: {text}", file=sys.stderr)
    except OSError:                                 # nobody is there to read it
        pass


def _forget_output() -> None:
    """What is still buffered goes nowhere, so that the interpreter does not fail to write it when it ends."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, ValueError):            # no stdout, or one without a file, or a closed one
        return
    try:
        sys.stdout.flush()
    except ValueError:
        return
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def whole_number(text: str, what: str) -> int:
    """GraphError for another text. `what`: the option that it is of."""
    if not text.isascii() or not text.isdigit() or len(text) > DIGITS:
        raise GraphError(f"{what} takes a whole number, got {text!r}")
    return int(text)
