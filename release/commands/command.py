"""What every console command shares: one clear line for bad input, exit code 2."""

import errno
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from release.commands.ending import ending_at_once
from release.commands.own_packages import require_own_packages
from release.commands.surroundings import expanded, settle_in
from release.commands.terminal import printable
from release.commands.toml_recipes import recipe_descriptions, recipe_text
from release.errors import UserError, redacted

EXIT_FOUND_WANTING = 1  # the command did its work, and what it looked at is not as it should be
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # as shells count a process that SIGINT ended
WRONG_PATH = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
)
HELP = {"help_option_names": ["-h", "--help"]}
DISTRIBUTION = "synthetic-imagenet"
LONG_WORD = re.compile(r"(\S{400})\S+")  # what was typed or pasted by mistake
Command = TypeVar("Command", bound=Callable[..., Any])
INTERRUPTED = "interrupted: rerun the same command to go on"


@dataclass(frozen=True)
class Builtin:
    """The TOML files of one of our folders, as options list and show them.

    kind, kinds: what one of them is called, and several.
    """

    folder: Path
    kind: str = "recipe"
    kinds: str = "recipes"


def help_ends(text: str) -> Callable[[Command], Command]:
    """The decorator by which a command's --help ends with `text`, as written: its examples."""

    def ended(function: Command) -> Command:
        function.__doc__ = f"{inspect.getdoc(function)}\n\n{inspect.cleandoc(text)}"
        return function

    return ended


def run_command(function: Callable[..., Any], builtin: Builtin | None = None) -> NoReturn:
    """Run `function` as a console command; its docstring is the help, shown as written.

    builtin: what --list-recipes and --show-recipe print, or --list-KINDS and --show-KIND.
    """
    app = _new_app()
    app.command(context_settings=HELP)(_of_finite_numbers(function))
    _run(app, builtin)


def run_commands(functions: Sequence[Callable[..., Any]], description: str) -> NoReturn:
    """Run one console command whose first argument names one of `functions`."""
    app = _new_app()
    app.callback(help=description)(lambda: None)
    for function in functions:
        app.command(context_settings=HELP)(_of_finite_numbers(function))
    app.info.context_settings = HELP
    _run(app)


def _of_finite_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command, which refuses `inf` and `nan`: not every option has limits that do."""

    @wraps(function)
    def checked(**given: Any) -> Any:
        for name, value in given.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"--{name.replace('_', '-')} {value}: give a finite number")
        return function(**given)

    return checked


def _new_app() -> typer.Typer:
    return typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)


@ending_at_once()
def _run(app: typer.Typer, builtin: Builtin | None = None) -> NoReturn:
    try:
        require_own_packages()
        settle_in()
        code = _parser(app, builtin)(args=expanded(sys.argv[1:]), standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # what the parser makes of a KeyboardInterrupt
            _tell(INTERRUPTED, INTERRUPTED)
        sys.exit(code)
    except UserError as error:
        fail(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fail(f"{error.strerror}: what is finished is kept; free some space and rerun")
        if error.errno in WRONG_PATH:  # Arrow puts the path into the text
            fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        raise
    except Exception as error:
        if not hasattr(error, "format_message"):  # what the parser raises for a wrong argument
            raise
        fail(f"{error.format_message()} (see --help)")


def _parser(app: typer.Typer, builtin: Builtin | None) -> Any:
    """The app's parser, with the options that print something and leave."""
    parser = typer.main.get_command(app)
    if builtin is not None:
        parser.params += _printing(
            f"--list-{builtin.kinds}",
            f"Print the built-in {builtin.kinds}.",
            bool,
            lambda _: _list_builtin(builtin.folder),
        )
        parser.params += _printing(
            f"--show-{builtin.kind}",
            f"Print a built-in {builtin.kind}, to copy and change.",
            str,
            lambda name: print(recipe_text(builtin.folder, name, builtin.kind), end=""),
        )
    parser.params += _printing("--version", "Print the version.", bool, _print_version)
    return parser


def _printing(name: str, told: str, kind: type, show: Callable[[Any], None]) -> list[Any]:
    """The option `name`, by which a command calls show(VALUE) and leaves."""

    def answer(context: typer.Context, value: Any) -> None:
        if value and not context.resilient_parsing:
            show(value)
            raise typer.Exit

    option = typer.Option(name, help=told, is_eager=True, expose_value=False, callback=answer)

    def lender(_: Any = None) -> None:
        """Never called: its option is lent."""

    lender.__annotations__["_"] = Annotated[kind | None, option]
    app = typer.Typer(add_completion=False)
    app.command()(lender)
    return list(typer.main.get_command(app).params)


def _print_version(_: bool) -> None:
    print(f"{Path(sys.argv[0]).name} ({DISTRIBUTION}) {version(DISTRIBUTION)}")


def _list_builtin(folder: Path) -> None:
    found = recipe_descriptions(folder)
    if _as_json():
        print(json.dumps(found, indent=1))
        return
    width = max(map(len, found))
    print("\n".join(f"{name:{width}}  {' '.join(told.split())}" for name, told in found.items()))


def fail(message: str) -> NoReturn:
    """Print one line on standard error and leave with exit code 2.

    Under --json standard output holds a document, as ever: {"error": MESSAGE}.
    """
    _tell(f"error: {message}", message)
    raise SystemExit(EXIT_BAD_INPUT)


def _tell(line: str, message: str) -> None:
    say(line)
    if _as_json():
        print(json.dumps({"error": _one_line(message)}))


def _as_json() -> bool:
    return "--json" in sys.argv[1:]


def say(text: str) -> None:
    """Print one line on standard error, without secrets and escape sequences."""
    print(_one_line(text), file=sys.stderr, flush=True)


def _one_line(text: str) -> str:
    words = LONG_WORD.sub(r"\1…", redacted(" ".join(text.split())))
    return printable(words)
