"""What the three command lines share: where text goes, and how they end."""

from __future__ import annotations

import errno
import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from ofa.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run", "stderr", "stdout", "version_option"]

#: What typer raises for a wrong word on the command line; it exports subclasses only.
_UsageError: Any = typer.BadParameter.mro()[1]


def stdout() -> Console:
    """The console of data. In a pipe lines are as long as they need to be."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=1000)


def stderr() -> Console:
    """The console of progress and messages."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def version_option(program: str) -> Any:
    """The option ``--version`` of a command line: says which, and exits."""

    def tell(wanted: bool) -> None:
        if wanted:
            from importlib.metadata import version

            sys.stdout.write(f"{program} {version('ofa-specializer')}\n")
            raise typer.Exit

    return typer.Option("--version", is_eager=True, callback=tell, help="And exit.")


def run(app: typer.Typer) -> NoReturn:
    """Run a command line: exit code 0 done, 1 a bug, 2 the user can mend it, 130 interrupted."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        code = _fail(error)
    except _UsageError as error:
        code = _fail(_reworded(error))
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        code = _fail(_full(error))
    raise SystemExit(code or 0)


def _full(error: OSError) -> UserError:
    """What was finished stays: files get their names when they are whole."""
    where = str(error.filename or "")
    return UserError("no space is left on the disk", where, "free some, and run the same again")


def _fail(error: UserError) -> int:
    sys.stderr.write(f"error: {error}\n")
    if "--json" in sys.argv:
        parts = {"what": error.what, "where": error.where, "fix": error.fix}
        sys.stdout.write(json.dumps({"error": parts}) + "\n")
    return 2


def _reworded(usage: Any) -> UserError:
    """Typer's complaint in the form of ours: one line, and its hint (or the help) as the fix."""
    what, _, hint = " ".join(usage.format_message().split()).partition(". ")
    what = what.rstrip(".")
    help_ = f"`{usage.ctx.command_path} -h` shows what there is" if usage.ctx else ""
    return UserError(
        what[:1].lower() + what[1:], fix=hint[:1].lower() + hint[1:] if hint else help_
    )
