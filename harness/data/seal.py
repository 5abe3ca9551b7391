"""What the files of a bank were when it was made, so that a damaged one is found before anything is trained on it.

Sizes and times of change are looked at whenever a bank is opened, contents only where those have changed: reading all of it takes
as long as some trials do. What a disk loses without a change of time is not found.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import UserError

FILE = "files.json"


def close(folder: Path) -> None:
    """Write down what the files of a finished bank are."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != FILE]
    _write(folder, {path.name: [*_stat(path), _content(path)] for path in files})


def check(folder: Path) -> None:
    """UserError that names the damaged file of a bank and the mend. A bank that was made before there were seals gets one; a seal
    that cannot be read is damage, and is not replaced by one of files that may be damaged too."""
    known = _known(folder / FILE)
    if known is None:
        with suppress(OSError):  # a disk that can only be read
            close(folder)
        return
    touched = {}
    for name, (size, changed, content) in known.items():
        path = folder / name
        if not path.is_file():
            raise _damaged(path, "is gone")
        if _stat(path) == [size, changed]:
            continue
        if path.stat().st_size != size or _content(path) != content:
            raise _damaged(path, "is not what it was when it was made")
        touched[name] = [*_stat(path), content]
    if touched:  # copied, or moved: read once, not every time
        with suppress(OSError):
            _write(folder, {**known, **touched})


def _known(path: Path) -> dict[str, tuple[int, int, str]] | None:
    """What a seal says of each file: size, time of change, hash of the contents. None where there is no seal."""
    try:
        known = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        raise _damaged(path, "cannot be read") from None
    if not isinstance(known, dict) or not known or not all(map(_whole, known.values())):
        raise _damaged(path, "is not what it was when it was made")
    return {name: (size, changed, content) for name, (size, changed, content) in known.items()}


def _whole(about: Any) -> bool:
    return isinstance(about, list) and [type(part) for part in about] == [int, int, str]


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}; delete the folder {path.parent}, and the same command makes it again")


def _stat(path: Path) -> list[int]:
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


def _content(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(folder: Path, files: dict[str, Any]) -> None:
    draft = folder / f".{FILE}-{os.getpid()}"
    draft.write_text(json.dumps(files, indent=1))
    draft.replace(folder / FILE)
