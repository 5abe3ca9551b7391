"""Workers and the process that shows what they do."""

from __future__ import annotations

import os
import struct
from multiprocessing import Pipe
from types import SimpleNamespace

from harness import workers
from harness.study import Event


def test_a_worker_that_is_cut_off_in_mid_word_silences_no_other() -> None:
    (broken, cut_off), (whole, speaking) = Pipe(duplex=False), Pipe(duplex=False)
    os.write(cut_off.fileno(), struct.pack("!i", 100) + b"the first of a hundred bytes")
    cut_off.close()
    speaking.send(Event(1, "mse tune"))
    speaking.send("worker 2: a failure")
    speaking.close()
    shown: list[Event] = []
    view = SimpleNamespace(show=shown.append, failures=[])
    readers = [broken, whole]
    workers._drain(readers, view)  # type: ignore[arg-type]
    assert [event.title for event in shown] == ["mse tune"]
    assert view.failures == ["worker 2: a failure"]
    assert readers == []
