"""Runs on their way to MLflow: sent as they go while the store answers, kept in `runs/outbox/` while it does not.

A finished result is never lost to a store that is down or full: it waits, whole, in a folder of its own, counts as settled
on this machine, and is sent by the next trial or command that finds the store answering.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from harness import paths
from harness.addresses import scrubbed
from harness.errors import UserError
from harness.tracking import SETTLED, Tracker, is_lost
from harness.usage import Stamped

CONTENT = "content.json"
PATIENCE = 30  # seconds for which a store that was away is not asked again
T = TypeVar("T")
Point = tuple[str, float, int]  # name, value, step


@dataclass(frozen=True)
class Parent:
    """The parent run of a protocol and loss: what it is called, its identity and its tags."""

    name: str
    identity: str
    tags: Mapping[str, str]


class Record:
    """A run while it is made. `lost`: why the store could not take it, "" while it can."""

    def __init__(
        self,
        tracker: Tracker,
        experiment: str,
        title: str,
        parent: Parent | None,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
    ) -> None:
        self.lost = ""
        self._tracker = tracker
        self._content: dict[str, Any] = {
            "experiment": experiment,
            "title": title,
            "parent": asdict(parent) if parent is not None else None,
            "tags": dict(tags),
            "params": {name: str(value) for name, value in params.items()},
            "points": [],
            "run": None,
        }
        self._try(lambda: _begin(tracker, self._content))

    def log(self, points: Iterable[Point]) -> None:
        self.log_at((*point, int(time.time() * 1000)) for point in points)

    def log_at(self, points: Iterable[Stamped]) -> None:
        """Log points that say when they were."""
        batch = [(name, float(value), int(step), at) for name, value, step, at in points]
        self._content["points"] += batch
        self._try(lambda: self._tracker.log(self._content["run"], batch))

    def close(self, state: str, artifacts: Path | None = None, reason: str = "") -> None:
        """Finish the run in the store; a settled one that the store does not take goes to the outbox."""
        self._content |= {"state": state, "reason": reason}
        self._try(lambda: self._tracker.finish(self._content["run"], state, artifacts, reason=reason))
        if self.lost and state in SETTLED:
            _keep(self._tracker, self._content["tags"]["identity"], self._content, artifacts)

    def _try(self, ask: Callable[[], object]) -> None:
        """Once the store has failed a run, the rest of it waits for the end."""
        if not self.lost:
            self.lost = attempt(self._tracker, ask)


def attempt(tracker: Tracker, ask: Callable[[], object]) -> str:
    """Ask the store for something; why it could not be had, "" where it could.

    A store that was away is left alone for a while: a study must not wait for time-outs at every trial.
    """
    if time.monotonic() < tracker.away_until:
        return tracker.away
    try:
        ask()
    except Exception as error:
        if not is_lost(error):
            raise
        tracker.away = " ".join(scrubbed(str(error), tracker.uri).split())[:200]
        tracker.away_until = time.monotonic() + PATIENCE
        return tracker.away
    return ""


def answer(tracker: Tracker, ask: Callable[[], T]) -> T | None:
    """What the store answers; None where it is away, as where it knows nothing."""
    answers: list[T] = []
    attempt(tracker, lambda: answers.append(ask()))
    return answers[0] if answers else None


def mark(
    tracker: Tracker, experiment: str, parent: Parent, files: Mapping[str, Any] | None = None, **tags: str
) -> None:
    """Tag a parent run, now or when the store answers again. files: JSON data to keep as its artifacts, by name."""
    content: dict[str, Any] = {
        "experiment": experiment,
        "parent": asdict(parent),
        "marks": tags,
        "files": dict(files or {}),
    }
    if attempt(tracker, lambda: _mark(tracker, content)):
        earlier = find(tracker, parent.identity) or {}  # of another decision, not sent yet
        content |= {name: {**earlier.get(name, {}), **content[name]} for name in ("marks", "files")}
        _keep(tracker, parent.identity, content, None)


def _mark(tracker: Tracker, content: Mapping[str, Any]) -> None:
    run = tracker.parent(content["experiment"], **content["parent"])
    for name, data in content.get("files", {}).items():
        tracker.attach(run, name, data)
    tracker.tag(run, **content["marks"])


def find(tracker: Tracker, identity: str) -> dict[str, Any] | None:
    """The finished run of that identity that still waits: its state, reason and points among others."""
    path = _entry(tracker, identity) / CONTENT
    with suppress(FileNotFoundError):
        return json.loads(path.read_text())
    return None


def waiting(tracker: Tracker) -> int:
    """How many entries wait for this store."""
    folder = _folder(tracker)
    return sum((entry / CONTENT).is_file() for entry in folder.iterdir()) if folder.is_dir() else 0


def send(tracker: Tracker) -> int:
    """Send what waits, where the store answers; returns how many entries are left. One process sends at a time."""
    if not waiting(tracker):
        return 0
    with _alone(_folder(tracker)) as alone:
        for entry in sorted(_folder(tracker).iterdir()) if alone else []:
            if not (entry / CONTENT).is_file():
                continue
            if attempt(tracker, partial(_deliver, tracker, entry)):
                break
            shutil.rmtree(entry)
    return waiting(tracker)


def _deliver(tracker: Tracker, entry: Path) -> None:
    content = json.loads((entry / CONTENT).read_text())
    if "marks" in content:
        _mark(tracker, content)
        return
    if tracker.find(content["tags"]["identity"], claimed=content["run"] is None) is not None:
        return  # its last words did arrive
    if content["run"] is None:
        _begin(tracker, content)
        _write(entry, content)  # sent again after a kill, it goes on in the same run
    tracker.log(content["run"], content["points"])  # points that did arrive are the same points, and stay single
    artifacts = entry / "artifacts"
    tracker.finish(
        content["run"], content["state"], artifacts if artifacts.is_dir() else None, reason=content["reason"]
    )


def _begin(tracker: Tracker, content: dict[str, Any]) -> None:
    parent = tracker.parent(content["experiment"], **content["parent"]) if content["parent"] is not None else None
    content["run"] = tracker.start(content["experiment"], content["title"], parent, content["tags"], content["params"])


def _keep(tracker: Tracker, name: str, content: Mapping[str, Any], artifacts: Path | None) -> None:
    entry = _entry(tracker, name)
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=entry.parent) as scratch:
        draft = Path(scratch) / name
        draft.mkdir()
        if artifacts is not None:
            shutil.copytree(artifacts, draft / "artifacts")
        _write(draft, content)
        with suppress(FileNotFoundError):
            shutil.rmtree(entry)  # the same mark, decided again
        draft.rename(entry)


def _write(entry: Path, content: Mapping[str, Any]) -> None:
    draft = entry / f".{CONTENT}"
    draft.write_text(json.dumps(content))
    draft.replace(entry / CONTENT)


def _entry(tracker: Tracker, name: str) -> Path:
    """The folder of an entry, which is replaced as a whole: no name may lead to another one."""
    if not name or name.startswith(".") or not {"/", "\\", "\0"}.isdisjoint(name):
        raise UserError(f"identity {name[:200]!r}: is no name of a run")
    return _folder(tracker) / name


def _folder(tracker: Tracker) -> Path:
    """Each store has its own, whatever its password: what was meant for one never lands in another."""
    return paths.runs() / "outbox" / hashlib.sha256(tracker.shown.encode()).hexdigest()[:12]


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether this process is the one that sends; the kernel takes the lock back from a process that dies."""
    with (folder / ".sending").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
