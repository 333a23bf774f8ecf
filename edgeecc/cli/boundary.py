"""The one place where errors become a line and an exit status."""

from __future__ import annotations

import errno
import sys
from typing import Any, NoReturn

import click

from edgeecc.errors import (
    ConfigError,
    EdgeeccError,
    FailedElsewhereError,
    ParallelError,
    one_line,
)
from edgeecc.launch import processes, rank

EXIT_ERROR = 1
EXIT_BUDGET_MISSED = 3
EXIT_INTERRUPTED = 130

#: Commands whose work the processes of a job share.
_JOINING = ("prune",)

#: Packages of the host tier: a board does without them, and says which command cannot.
_HOST_PACKAGES = ("torch", "torch_pruning", "onnxscript", "sklearn", "PIL")

#: Operating system errors that are the user's to mend, with what to do.
_OS_HINTS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EACCES: "choose a folder that you may write",
    errno.EROFS: "choose a folder that can be written",
    errno.ENOENT: "check the path",
}


class EdgeeccGroup(click.Group):
    """A click group that turns every `EdgeeccError` into one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:  # click's signature
        """Run the command behind the error boundary."""
        try:
            return super().invoke(ctx)
        except EdgeeccError as error:
            _fail(error, ctx)
        except KeyboardInterrupt:
            forced = " without --force" if (ctx.obj or {}).get("forced") else ""
            click.echo(
                f"interrupted; what was saved is kept, give the same command{forced} to go on",
                err=True,
            )
            ctx.exit(EXIT_INTERRUPTED)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _HOST_PACKAGES:
                raise
            message = (
                f"this command needs {package}, which is not here; pip install 'edgeecc[host]'"
            )
            raise click.ClickException(message) from error
        except OSError as error:
            if error.errno not in _OS_HINTS:
                raise
            where = f" {error.filename}" if error.filename else ""
            message = f"{error.strerror}{where}; {_OS_HINTS[error.errno]}"
            raise click.ClickException(one_line(message)) from error


def refuse_job(ctx: click.Context) -> None:
    """End a command that works in one process where torchrun started several.

    The first process says so. The others leave without an error: torchrun ends all when one fails, and would end the
    first before it has spoken.

    Raises: ConfigError in the first process.
    """
    if processes() == 1 or ctx.invoked_subcommand in _JOINING:
        return
    if rank():
        ctx.exit(0)
    raise ConfigError(
        f"{ctx.invoked_subcommand} works in one process, and torchrun started {processes()}; give the command without "
        f"torchrun, which is for {' and '.join(_JOINING)}"
    )


def _fail(error: EdgeeccError, ctx: click.Context) -> NoReturn:
    """End the command with one line, once in a job of several processes."""
    message = one_line(str(error))
    if isinstance(error, FailedElsewhereError):
        ctx.exit(EXIT_ERROR)
    if isinstance(error, ParallelError) and rank():  # the first process has nothing to say
        click.echo(f"Error: {message}", file=sys.__stderr__)
        ctx.exit(EXIT_ERROR)
    raise click.ClickException(message) from error
