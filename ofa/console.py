"""What the three command lines share: where text goes, and how they end."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import typer

from ofa.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run", "stderr", "stdout"]


def stdout() -> Console:
    """The console of data. In a pipe lines are as long as they need to be."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=1000)


def stderr() -> Console:
    """The console of progress and messages."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def run(app: typer.Typer) -> None:
    """Run a command line: exit code 0 done, 1 a bug, 2 the user can mend it, 130 interrupted."""
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        if "--json" in sys.argv:
            parts = {"what": error.what, "where": error.where, "fix": error.fix}
            sys.stdout.write(json.dumps({"error": parts}) + "\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
