"""Errors that a user can mend: one line that names what is wrong and the mend, never a traceback."""

from __future__ import annotations

import difflib
import errno
import traceback
from collections.abc import Iterable
from pathlib import Path

from harness.addresses import scrubbed


class UserError(Exception):
    """Bad input. Its message is one line; the command line prints it and exits with code 2."""


def unknown(what: str, name: str, valid: Iterable[str], see: str) -> UserError:
    """The error for a name that is not one of `valid`: the nearest valid name, and where to see all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = (
        f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}."
    )
    return UserError(f"unknown {what} {str(name)[:200]!r}: {hint} See all with: {see}")


def full_disk(error: BaseException | None) -> str | None:
    """What there was no space for, in one line, where an error, or one that it came from, says that a disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return _no_space(error.filename or "temporary files")
        if type(error).__name__ == "DiskFull" or "database or disk is full" in str(error):
            return _no_space("the database")
        error = error.__cause__ or error.__context__
    return None


def _no_space(what: str) -> str:
    return f"no space left for {what}: free some, then run the same command again"


def lost_store(error: BaseException | None) -> str | None:
    """Which store cannot be asked, why, and the mend, in one line, where an error, or one that it came from, says so."""
    while error is not None:
        # Told by their names: the libraries take seconds to import, and where they are not there, they have not raised this.
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
        if "mlflow.MlflowException" in kinds and _is_lost(error):
            return _away("tracking-uri: the MLflow store", error)
        if kinds & {"sqlalchemy.OperationalError", "sqlalchemy.InterfaceError", "optuna.StorageInternalError"}:
            return _away("storage: the database that hands out trials", error.__cause__ or error)
        error = error.__cause__ or error.__context__
    return None


def _is_lost(error: BaseException) -> bool:
    from harness.tracking import is_lost

    return isinstance(error, Exception) and is_lost(error)


def _away(what: str, error: BaseException) -> str:
    reason = " ".join(scrubbed(str(error)).split())[:200]
    return f"{what} cannot be asked ({reason}); the same command goes on once it answers"


def in_one_line(error: Exception) -> str:
    """What ended a trial, where, and what to change, in one line."""
    text = " ".join(scrubbed(str(error)).split())[:300]
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which would have to be imported to be named
        return f"out of memory: make `batch` or `scenes: seconds` smaller in the study, or take --device cpu ({text})"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text:
        return (
            f"out of memory: make `batch` or `scenes: seconds` smaller in the study, or take fewer --workers ({text})"
        )
    if (full := full_disk(error)) is not None:
        return full
    if (lost := lost_store(error)) is not None:
        return lost
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno}: {frames[-1].line})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"
