"""The command line."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from harness import addresses
from harness.commands import entries, measurements, recordings, results, sounds, studies
from harness.errors import UserError, full_disk, lost_store

app = typer.Typer(
    help="Which loss should train my speech model? Trains, tunes, confirms and ranks losses on the same real recordings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (studies, entries, results, measurements, sounds):
    app.add_typer(part.app)
app.add_typer(recordings.app, name="data")


def main() -> None:
    """Entry point: bad input, or a store that is away, is one line and exit code 2, an interruption 130, a fault of ours a
    traceback and 1."""
    # Silenced before torch is imported: its profiler and its allocator print on every measurement.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    addresses.hide_arguments()
    try:
        sys.exit(app(standalone_mode=False))
    except UserError as error:
        print(f"error: {' '.join(addresses.scrubbed(str(error)).split())}", file=sys.stderr)
        sys.exit(2)
    except typer.Exit as finished:
        sys.exit(finished.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if (told := full_disk(error) or lost_store(error)) is not None:
            print(f"error: {addresses.scrubbed(told)}", file=sys.stderr)
            sys.exit(2)
        # The parser's own errors (an unknown option, a number out of range) tell themselves by this method.
        if not hasattr(error, "format_message"):
            print(addresses.scrubbed(traceback.format_exc()), end="", file=sys.stderr)
            sys.exit(1)
        print(
            f"error: {' '.join(addresses.scrubbed(error.format_message()).split())} See: harness --help",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
