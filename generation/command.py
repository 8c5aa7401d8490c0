"""What every console command shares: one clear line for bad input, exit code 2."""

import errno
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import typer

from generation.errors import UserError, redacted
from generation.surroundings import expanded, settle_in
from generation.terminal import printable

EXIT_FOUND_WANTING = 1  # the command did its work, and what it looked at is not as it should be
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # as shells count a process that SIGINT ended
WRONG_PATH = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
)
HELP = {"help_option_names": ["-h", "--help"]}


def run_command(function: Callable[..., Any]) -> NoReturn:
    """Run `function` as a console command; its docstring is the help, shown as written."""
    app = _new_app()
    app.command(context_settings=HELP)(function)
    _run(app)


def run_commands(functions: Sequence[Callable[..., Any]], description: str) -> NoReturn:
    """Run one console command whose first argument names one of `functions`."""
    app = _new_app()
    app.callback(help=description)(lambda: None)
    for function in functions:
        app.command(context_settings=HELP)(function)
    app.info.context_settings = HELP
    _run(app)


def _new_app() -> typer.Typer:
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _run(app: typer.Typer) -> NoReturn:
    try:
        settle_in()
        code = app(args=expanded(sys.argv[1:]), standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # what the parser makes of a KeyboardInterrupt
            print("interrupted: rerun the same command to go on", file=sys.stderr)
        sys.exit(code)
    except UserError as error:
        fail(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fail(f"{error.strerror}: what is finished is kept; free some space and rerun")
        if error.errno in WRONG_PATH and error.filename:
            fail(f"{error.filename}: {error.strerror}")
        raise
    except Exception as error:
        if not hasattr(error, "format_message"):  # what the parser raises for a wrong argument
            raise
        fail(f"{error.format_message()} (see --help)")


def fail(message: str) -> NoReturn:
    """Print one line on standard error and leave with exit code 2."""
    say(f"error: {message}")
    raise SystemExit(EXIT_BAD_INPUT)


def say(text: str) -> None:
    """Print one line on standard error, without secrets and escape sequences."""
    print(printable(redacted(" ".join(text.split()))), file=sys.stderr, flush=True)
