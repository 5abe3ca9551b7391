"""Processes that share a study's trials."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rich.console import Console

from harness import spec, study, tasks
from harness.context import Context
from harness.data.progress import Progress, unseen
from harness.devices import pick_device
from harness.errors import UserError, in_one_line
from harness.process import keep_memory, limit_threads
from harness.study import Event
from harness.view import View


@dataclass(frozen=True)
class Options:
    """How and where a study is run: nothing here changes a result."""

    device: str = "auto"
    workers: int = 0  # 0: as many as suit the device
    data_dir: Path | None = None
    storage: str | None = None
    tracking_uri: str | None = None
    plugins: tuple[Path, ...] = ()
    max_hours: float | None = None


def worker_count(options: Options) -> int:
    """Processes to run: one a GPU; on a CPU one a core, because a small recurrent net gains nothing from a second thread."""
    import torch

    if options.workers:
        return options.workers
    device = pick_device(options.device)
    return (
        torch.cuda.device_count()
        if device.type == "cuda" and device.index is None
        else 1
        if device.type == "cuda"
        else min(cores(), 8)
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_study(
    loaded: spec.Study,
    options: Options,
    threads: int,
    say: Callable[[str], None],
    progress: Progress = unseen,
    rank: int = 0,
) -> Context:
    """Everything that trials need, in this process, with so many threads; recordings are fetched and decoded if need be."""
    import torch

    from harness.metrics import Scorer
    from harness.tracking import Tracker

    keep_memory()
    torch.set_num_threads(threads)
    device = pick_device(options.device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", rank % torch.cuda.device_count())
    tracker = Tracker(options.tracking_uri)
    scenes = tasks.get(loaded.task).open(loaded.corpus, loaded.scenes, options.data_dir, say, progress)
    return Context(loaded, scenes, device, tracker, Scorer(threads), _picture)


def _picture(**arguments: Any) -> bytes:
    from harness.report import plots  # matplotlib takes a second to import

    return plots.spectrogram(**arguments)


def run(context: Context, options: Options, console: Console, joining: bool = False) -> list[str]:
    """Run what is left of a study, in this process where nothing is left or one worker was asked for. Returns failures.
    joining: it was begun elsewhere."""
    plan = study.plan(context)
    workers = min(worker_count(options), max(sum(row.trials - row.settled for row in plan), 1))
    started = datetime.now()
    until = math.inf if options.max_hours is None else time.monotonic() + 3600 * options.max_hours
    view = View(console, plan)
    with view, _interruptible(), _alarm(until) as alarm:
        try:
            store = study.open_storage(options.storage, view.say)  # made before workers race for it
            with study.joined(context, store, joining, view.say):
                if workers == 1:
                    study.work(context, store, view.show, started, until=until)
                else:
                    run_processes(context.study, options, workers, view, started, until)
        except KeyboardInterrupt:
            if not alarm.is_set():
                raise
        except UserError:
            raise
        except Exception as error:  # the stores raise what their drivers raise
            view.failures.append(in_one_line(error))
    return view.failures


@contextmanager
def _alarm(until: float) -> Iterator[threading.Event]:
    """Interrupts this process at a time (`time.monotonic()`), by the way that puts running trials back; the event tells it from a
    user's Ctrl-C."""
    rung = threading.Event()
    if math.isinf(until):
        yield rung
        return

    def ring() -> None:
        rung.set()
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(until - time.monotonic(), ring)
    timer.daemon = True
    timer.start()
    try:
        yield rung
    finally:
        timer.cancel()


def run_processes(
    loaded: spec.Study,
    options: Options,
    workers: int,
    view: View,
    started: datetime,
    until: float,
    threads: int | None = None,
) -> None:
    """Run a study in so many processes of so many threads each (None: an equal share of the cores). Where the system has killed all
    of them, for want of memory say, one goes on alone, and another one after it, as long as they get as far as a trial: a study
    gives up a trial that ends whoever makes it."""
    spawn = get_context("spawn")  # a fork of a process with threads, or with CUDA, is unsafe
    threads = threads or max(1, cores() // workers)
    raw = loaded.model_dump(mode="json")
    processes: list[Any] = []
    readers: list[Any] = []

    def start(rank: int) -> None:
        reader, writer = spawn.Pipe(duplex=False)
        given = (raw, options, rank, threads, started, until, writer)
        process = spawn.Process(target=_worker, args=given, daemon=False)
        process.start()
        writer.close()  # the worker's copy is then the only one, and its end is heard
        processes.append(process)
        readers.append(reader)

    for rank in range(workers):
        start(rank)
    try:
        begun = _drained(processes, readers, view)
        while begun and all(process.exitcode < 0 for process in processes):
            start(0)
            begun = _drained(processes, readers, view)
    except KeyboardInterrupt:
        for process in processes:
            process.terminate()
        view.console.print("stopping: running trials are put back")  # the last thing: who would read it may be gone
        _drained(processes, readers, view)  # a full pipe would keep them from ending
        raise
    killed = [process for process in processes if process.exitcode not in (0, 1)]
    if killed:
        memory = "; the system does so where memory is short: take fewer --workers" if killed[0].exitcode == -9 else ""
        view.failures.append(
            f"{len(killed)} of {len(processes)} workers stopped early (exit code {killed[0].exitcode}{memory}); "
            "run the same command again to go on"
        )


def _drained(processes: list[Any], readers: list[Any], view: View) -> int:
    """Show what workers say until they have ended; how many trials they began."""
    begun = 0
    while any(process.is_alive() for process in processes):
        begun += _drain(readers, view)
    return begun + _drain(readers, view)


def _drain(readers: list[Any], view: View) -> int:
    """Show what workers say; how many trials they began. Each has a pipe of its own: of a common queue, who is killed in mid-word
    keeps the lock."""
    begun = 0
    while readers:
        spoken: list[Any] = wait(readers, timeout=0.2)
        if not spoken:
            return begun
        for reader in spoken:
            try:
                event = reader.recv()
            except (EOFError, OSError):
                readers.remove(reader)
                continue
            if isinstance(event, Event):
                begun += event.begun
                view.show(event)
            else:
                view.failures.append(event)
    time.sleep(0.05)
    return begun


def _worker(
    raw: dict[str, Any], options: Options, rank: int, threads: int, started: datetime, until: float, writer: Any
) -> None:
    """Body of one worker process."""

    def say(event: Event | str) -> None:
        with suppress(OSError):  # the parent is gone
            writer.send(event)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent passes it on, once
    starter = parent_process()  # who may be gone by now, and os.getppid() name whoever inherited this process
    assert starter is not None
    threading.Thread(target=_end_with, args=(starter.pid,), daemon=True).start()
    limit_threads(threads)
    from harness.plugins import load_plugins

    load_plugins(options.plugins)
    try:
        with _interruptible():
            context = open_study(spec.Study.model_validate(raw), options, threads, lambda line: None, rank=rank)
            store = study.open_storage(options.storage, lambda line: say(Event(rank, "", note=line)))
            with context.scorer:  # its processes end with this one
                study.work(context, store, say, started, rank, until)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else in_one_line(error)
        say(f"worker {rank + 1}: {reason}")
        sys.exit(1)


def _end_with(parent: int) -> None:
    """Interrupt this process when its parent is gone: nobody would see it, or stop it."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


class _interruptible:
    """SIGTERM is an interruption like Ctrl-C: trials put themselves back before the process ends."""

    def __enter__(self) -> None:
        def stop(number: int, frame: object) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would break the putting back
            raise KeyboardInterrupt

        self.before = signal.signal(signal.SIGTERM, stop)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self.before)
