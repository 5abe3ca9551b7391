"""Errors that a user can mend: one line that names what is wrong and the mend, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. Its message is one line; the command line prints it and exits with code 2."""


def unknown(what: str, name: str, valid: Iterable[str], see: str) -> UserError:
    """The error for a name that is not one of `valid`: the nearest valid name, and where to see all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = (
        f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}."
    )
    return UserError(f"unknown {what} {str(name)!r}: {hint} See all with: {see}")
