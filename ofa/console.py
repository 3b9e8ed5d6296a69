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

_FULL = ("no space is left on the disk", "free some, and run the same again")
_REFUSED = ("the system does not allow it", "look at its permissions, or name another place")
#: What the system may refuse at any place -> what to say. What was finished stays: files get their
#: names when they are whole.
_OF_THE_SYSTEM = {
    errno.ENOSPC: _FULL, errno.EDQUOT: _FULL,
    errno.EACCES: _REFUSED, errno.EPERM: _REFUSED, errno.EROFS: _REFUSED,
    errno.ENAMETOOLONG: ("the name is too long", "give a shorter one"),
}  # fmt: skip


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
        if error.errno not in _OF_THE_SYSTEM:
            raise
        what, fix = _OF_THE_SYSTEM[error.errno]
        code = _fail(UserError(what, str(error.filename or "")[:200], fix))
    raise SystemExit(code or 0)


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
