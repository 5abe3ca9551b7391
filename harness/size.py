"""What the size of a corpus costs: corpora of so many hours are made, decoded and trained on in fresh processes.

Memory is what a process has for itself (anonymous pages). The pages of a bank are the file's: all processes share them, and the
system takes them back when it needs them, so that they say nothing of what a process needs.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from rich.table import Table

from harness import losses, models, paths, spec, train, workers
from harness.data import corpora
from harness.data.audio import SAMPLE_RATE
from harness.data.bank import Bank, open_bank
from harness.data.progress import Progress, unseen
from harness.devices import device_name
from harness.errors import UserError, in_one_line
from harness.process import limit_threads
from harness.scale import own_home

CORPUS = "librispeech"
NOISE = ("ssn", "babble")  # made from the corpus itself: nothing needs to be fetched
PARTS = {"train-clean-100": 0.9, "dev-clean": 0.05, "test-clean": 0.05}  # shares of the hours, about LibriSpeech's own
SECONDS = (2.0, 15.0)
UTTERANCES = 120  # of a speaker, which are about twenty minutes
UPDATES = 60
INTERVAL = 0.02  # seconds between two looks at the memory
TOLD = 0.5  # seconds between two words of a process on how far it is

Say = Callable[[str], None]


def parsed(text: str) -> list[float]:
    """Hours from `1 5 20`, in rising order."""
    try:
        hours = sorted({float(part) for part in text.replace(",", " ").split()})
    except ValueError:
        hours = []
    if not hours or not all(0.5 <= each <= 1000 for each in hours):
        raise UserError(f"--hours {text!r}: must be hours of speech from 0.5 to 1000, as in --hours '1 5 20'")
    return hours


def synthesise(folder: Path, hours: float, speech: Bank, progress: Progress = unseen) -> int:
    """Write FLAC files as LibriSpeech has them, cut from the training speech of a bank at random places; returns how many.
    No two are alike, but in a large corpus the same second is heard in many."""
    import soundfile

    rng, files, speaker = np.random.default_rng(0), 0, 0
    for part, share in PARTS.items():
        left, utterance = share * hours * 3600, 0
        while left > 0:
            speaker += utterance % UTTERANCES == 0
            chapter = folder / part / str(speaker) / "1"
            chapter.mkdir(parents=True, exist_ok=True)
            samples = round(rng.uniform(*SECONDS) * SAMPLE_RATE)
            (start,) = speech.draw("train", rng, 1, samples)
            audio = speech.samples[start : start + samples] * rng.uniform(0.5, 1.0)
            # The least compression is read as fast as any and written in half the time.
            file = chapter / f"{speaker}-1-{utterance:04d}.flac"
            soundfile.write(file, audio.astype(np.int16), SAMPLE_RATE, compression_level=0.0)
            left, utterance, files = left - samples / SAMPLE_RATE, utterance + 1, files + 1
            progress(f"making {hours:g} h of recordings", files, round(hours * 3600 / statistics.mean(SECONDS)))
    return files


def anonymous() -> float:
    """Bytes of memory that this process has for itself. Where the system does not tell, its unique pages, of which a bank may be a
    part."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * float(line.split()[1])
    return float(psutil.Process().memory_full_info().uss)


@dataclass
class Peak:
    """The most that was seen so far."""

    bytes: float = 0.0

    def look(self) -> None:
        self.bytes = max(self.bytes, anonymous())


@contextmanager
def watching() -> Iterator[Peak]:
    """The peak of this process's own memory from here to the end of the block."""
    peak, over = Peak(), threading.Event()

    def keep() -> None:
        while not over.wait(INTERVAL):
            peak.look()

    thread = threading.Thread(target=keep, daemon=True)
    peak.look()
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        peak.look()


def decoding(loaded: spec.Study, options: workers.Options, began: float, tell: Progress) -> dict[str, float]:
    """Seconds and memory of opening the corpus for the first time. The noises are made afterwards: they are as long for any
    corpus."""
    start = time.perf_counter()
    with watching() as peak:
        bank = open_bank(corpora.card(loaded.corpus), options.data_dir, lambda line: None, tell)
        seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in bank.folder.iterdir())
    workers.open_study(loaded, options, 1, lambda line: None, tell)
    return {"decode_s": seconds, "bank_bytes": size, "decode_bytes": peak.bytes}


def training(loaded: spec.Study, options: workers.Options, began: float, tell: Progress) -> dict[str, float]:
    """Seconds from the start of the process, at `time.time()` began, to the end of its first update, ms of a later one, and memory:
    what every worker of a study does once the bank is ready."""
    with watching() as peak:
        context = workers.open_study(loaded, options, 1, lambda line: None, tell)
        model = models.build(loaded.model, sizes=context.sizes).to(context.device)
        objective = losses.Objective(losses.parse(loaded.losses[0]), sizes=context.sizes).to(context.device)
        stamps: list[float] = []

        def batch(step: int) -> dict[str, torch.Tensor]:
            if context.device.type == "cuda":
                torch.cuda.synchronize(context.device)
            stamps.append(time.time())
            return context.scenes.batch(0, step, loaded.batch, context.device)

        recipe = train.Recipe(UPDATES, 1e-3, 0.01, 0.05, 10.0)
        train.fit(model, objective, batch, recipe, context.device, inputs=models.get(loaded.model).fields)
    steps = [b - a for a, b in itertools.pairwise(stamps[1:])]
    return {
        "start_s": stamps[1] - began,
        "update_ms": 1e3 * statistics.median(steps),
        "train_bytes": peak.bytes,
    }


Body = Callable[[spec.Study, workers.Options, float, Progress], dict[str, float]]


def apart(
    body: Body, loaded: spec.Study, options: workers.Options, audio: Path, progress: Progress
) -> dict[str, float]:
    """What a body finds in a process of its own, whose recordings lie in a folder of theirs. UserError with what it died of."""
    spawned = get_context("spawn")
    reader, writer = spawned.Pipe(duplex=False)
    process = spawned.Process(target=_child, args=(body, loaded.model_dump(), options, audio, time.time(), writer))
    process.start()
    writer.close()
    try:
        while True:
            said = reader.recv()
            if isinstance(said, dict):
                return said
            if isinstance(said, str):
                raise UserError(said)
            progress(*said)
    except EOFError:
        process.join()
        raise UserError(f"a process that was measured ended with exit code {process.exitcode}") from None
    finally:
        process.terminate()
        process.join()


def _child(body: Body, raw: dict[str, Any], options: workers.Options, audio: Path, began: float, writer: Any) -> None:
    limit_threads(1)
    paths.AUDIO = audio
    last = 0.0

    def tell(what: str, done: int, of: int, unit: str = "") -> None:
        nonlocal last
        if time.monotonic() - last > TOLD or done == of:
            last = time.monotonic()
            writer.send((what, done, of, unit))

    try:
        writer.send(body(spec.Study.model_validate(raw), options, began, tell))
    except Exception as error:
        writer.send(str(error) if isinstance(error, UserError) else in_one_line(error))


def measure(
    loaded: spec.Study, device: str, hours: list[float], say: Say, progress: Progress = unseen
) -> dict[str, Any]:
    """A row for each number of hours, on corpora that are gone afterwards."""
    speech = open_bank(corpora.card("prompts"), None, say, progress)
    rows = []
    for each in hours:
        with own_home() as home:
            corpus, audio = home / "LibriSpeech", home / "audio"
            audio.mkdir()
            files = synthesise(corpus, each, speech, progress)
            options = workers.Options(device, 1, corpus)
            row: dict[str, float] = {"hours": each, "files": files}
            for body in (decoding, training):
                row |= apart(body, loaded, options, audio, progress)
            rows.append(row)
        say(
            f"{each:g} h: {row['decode_s']:.0f} s to decode, {row['start_s']:.1f} s to the first update of a ready bank"
        )
    return {"device": device_name(workers.pick_device(device)), "rows": rows}


def study(model: str | None, loss: list[str] | None) -> spec.Study:
    """The quick study on a corpus of that layout."""
    given = {"model": model, "losses": loss}
    overrides = {"corpus": CORPUS, "scenes": {"noise": list(NOISE)}} | {k: v for k, v in given.items() if v}
    return spec.load("quick", overrides)


def table(found: Mapping[str, Any]) -> Table:
    """What was measured, as the command prints it."""
    made = Table(title=f"{found['device']}, 1 thread")
    for head in (
        "hours",
        "files",
        "decoding\ns",
        "bank\nMB",
        "decoding\nMB",
        "first\nupdate s",
        "ms an\nupdate",
        "training\nMB",
    ):
        made.add_column(head, justify="right")
    for row in found["rows"]:
        made.add_row(
            f"{row['hours']:g}",
            f"{row['files']:,}",
            f"{row['decode_s']:.0f}",
            *(f"{row[name] / 1e6:,.0f}" for name in ("bank_bytes", "decode_bytes")),
            f"{row['start_s']:.1f}",
            f"{row['update_ms']:.0f}",
            f"{row['train_bytes'] / 1e6:,.0f}",
        )
    return made


def sentence(found: Mapping[str, Any]) -> str:
    """What more hours cost in memory, where there are several sizes."""
    first, last = found["rows"][0], found["rows"][-1]
    if first is last:
        return ""
    more = last["hours"] - first["hours"]
    per = [(last[name] - first[name]) / 1e6 / more for name in ("decode_bytes", "train_bytes")]
    return (
        f"memory that a process has for itself, from {first['hours']:g} to {last['hours']:g} h: {per[0]:+.1f} MB an hour of "
        f"recordings in decoding, {per[1]:+.1f} in training; the bank is {last['bank_bytes'] / last['hours'] / 1e6:.0f} MB an hour"
    )
