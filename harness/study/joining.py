"""Who works on a study: processes whose code or recordings differ are turned away, or half of a table would be of one and half
of the other.

Each command that makes runs enters itself in the store as a running trial of an Optuna study of its own, so that it has signs of
life like any other, and leaves it failed, so that it never counts as a result.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from harness import keys, plugins, source
from harness.context import Context
from harness.errors import UserError
from harness.liveness import is_gone, mine
from harness.study.storage import HEARTBEAT, Store
from harness.tracking import commit


@contextmanager
def joined(context: Context, store: Store, joining: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Be one of those who work on a study.

    UserError where somebody works on it with other code or recordings, or, for who only joins (`joining`), did so last. Who
    begins a study may go on with what has changed since, when nobody else is at work; that is told to `say`.
    """
    book = optuna.create_study(storage=store, study_name=f"machines/{_key(context)}", load_if_exists=True)
    me = _entry(context)
    number = store.create_new_trial(book._study_id, template_trial=me)
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(store, number, ended), daemon=True)
    beats.start()
    try:
        _compare(book, store, number, me, joining, say)
        store.set_trial_user_attr(number, "accepted", True)
        yield
    finally:
        ended.set()
        beats.join()
        with suppress(
            optuna.exceptions.StorageInternalError, optuna.exceptions.UpdateFinishedTrialError, SQLAlchemyError
        ):
            store.set_trial_state_values(number, TrialState.FAIL)


def _key(context: Context) -> str:
    """What makes it one study on all machines: its protocol without what may differ between them by mistake."""
    left_out = ("corpus_digest", "lists", "model_source", "result_version")
    return keys.digest({name: part for name, part in context.protocol.items() if name not in left_out})


def _entry(context: Context) -> FrozenTrial:
    recordings = keys.digest([context.protocol["corpus_digest"], context.protocol["lists"]])
    about: dict[str, Any] = {"owner": mine(), "host": socket.gethostname(), "commit": commit(), "code": source.digest()}
    about |= {"plugins": plugins.sources(), "recordings": recordings}
    return create_trial(state=TrialState.RUNNING, user_attrs=about)


def _beat(store: Store, number: int, ended: threading.Event) -> None:
    store.record_heartbeat(number)
    while not ended.wait(HEARTBEAT):
        store.record_heartbeat(number)


def _compare(
    book: optuna.Study, store: Store, number: int, me: FrozenTrial, joining: bool, say: Callable[[str], None]
) -> None:
    at_work, last = _others(book, store, number)
    silent = set(store.silent(book._study_id))
    doubtful = [t for t in at_work if t._trial_id in silent]
    if doubtful and any(_difference(me, t) for t in (*doubtful, *last)):
        hosts = ", ".join(sorted({t.user_attrs["host"] for t in doubtful}))
        say(f"who works on this study on {hosts} gives no sign of life: waiting for one, {2 * HEARTBEAT} s")
        at_work, last = _others(book, store, number, store.dead(book._study_id))
    for t in at_work:
        if differs := _difference(me, t):
            raise UserError(
                f"cannot join the study: {differs}, which works on it now; bring both machines to the same, or wait until it ends"
            )
    if at_work or not last or not (differs := _difference(me, last[0])):
        return
    if joining:
        raise UserError(
            f"cannot join the study: {differs}, which worked on it last; bring this machine to the same, or go on with what it has "
            "by `harness study`"
        )
    say(f"{differs}, which worked on this study last: it goes on with what is here")


def _others(
    book: optuna.Study, store: Store, number: int, dead: Collection[int] = ()
) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """Who came earlier and is at work, and who was accepted last, if anybody was. Those who have ended are failed: the processes of
    this machine that are gone, and who is known to be `dead`."""
    earlier = [t for t in book.get_trials() if t._trial_id < number]
    at_work = []
    for t in earlier:
        if t.state == TrialState.RUNNING and (t._trial_id in dead or is_gone(t.user_attrs["owner"])):
            with suppress(optuna.exceptions.UpdateFinishedTrialError):
                store.set_trial_state_values(t._trial_id, TrialState.FAIL)
        elif t.state == TrialState.RUNNING:
            at_work.append(t)
    return at_work, [t for t in earlier if "accepted" in t.user_attrs][-1:]


def _difference(me: FrozenTrial, other: FrozenTrial) -> str:
    """In words, "" where there is none. Of files of a user's own only those matter that both have loaded: what else they
    register, nobody else asks for."""
    here, there = me.user_attrs, other.user_attrs
    parts = []
    if here["code"] != there["code"]:
        commits = [about["commit"] or "unknown" for about in (here, there)]
        parts.append(
            f"the code here is {here['code']} (commit {commits[0]}), not {there['code']} (commit {commits[1]})"
        )
    for name in sorted(here["plugins"].keys() & there["plugins"].keys()):
        if here["plugins"][name] != there["plugins"][name]:
            parts.append(f"the plug-in {name} here is {here['plugins'][name]}, not {there['plugins'][name]}")
    if here["recordings"] != there["recordings"]:
        parts.append(f"the recordings here are {here['recordings']}, not {there['recordings']}")
    return f"{' and '.join(parts)} as on {there['host']}" if parts else ""
