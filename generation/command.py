"""What every console command shares: one clear line for bad input, exit code 2."""

import errno
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from generation.errors import UserError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # as shells count a process that SIGINT ended


def run_command(function: Callable[..., Any]) -> NoReturn:
    """Run `function` as a console command; its docstring is the help, shown as written."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(function)
    try:
        sys.exit(app(standalone_mode=False))
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("interrupted: rerun the same command to go on", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fail(f"{error.strerror}: what is finished is kept; free some space and rerun")
    except Exception as error:
        if not hasattr(error, "format_message"):  # what the parser raises for a wrong argument
            raise
        fail(f"{error.format_message()} (see --help)")


def fail(message: str) -> NoReturn:
    """Print one line on standard error and leave with exit code 2."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    raise SystemExit(EXIT_BAD_INPUT)
