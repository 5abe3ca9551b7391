"""Rooms: impulse responses of boxes by the image source method, computed once and kept beside the decoded recordings.

In each room two microphones hear three sources: two talkers and, further off, a noise. Time is that of the direct sound: a
source is heard by the first microphone, the *reference*, without a delay and, but for the room, as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from harness import paths
from harness.data import corpora, seal
from harness.data.audio import SAMPLE_RATE
from harness.data.bank import placed
from harness.data.corpora import Card
from harness.data.progress import Progress, unseen
from harness.errors import UserError

ROOM_VERSION = 1  # raise it when what follows makes other responses
SMALLEST, LARGEST = (3.5, 3.0, 2.4), (8.0, 6.0, 3.5)  # metres
SPACING = 0.08  # metres between the microphones
TALKERS = (0, 1)  # places of the sources, and how far from the reference they are, in metres
NOISE = 2
DISTANCES = ((0.8, 2.5), (0.8, 2.5), (1.0, 3.0))
FROM_WALLS = 0.4  # metres
APART = np.deg2rad(30)  # between the directions of any two sources
FAINTEST_DB = 40.0  # images that walls have taken more from are left out
LEAD = 48  # taps before the direct sound: the second microphone may hear it earlier, and sinc pulses begin before they peak
TAPS = 8192  # 0.5 s
EARLY = round(0.05 * SAMPLE_RATE)  # samples of reflections that belong to the speech (ISO 3382's early sound)
RUN_UP = (
    TAPS - LEAD
)  # samples that must be known of a source before what is heard of it, so that nothing begins in silence


@dataclass(frozen=True)
class Rooms:
    """responses: (rooms, sources, microphones, TAPS) float32, memory-mapped, the direct sound at the reference being 1 at tap LEAD.
    table: one row a room (split, width, depth, height, absorption, t60 in s as measured at the reference)."""

    card: Card
    responses: np.ndarray
    table: pd.DataFrame
    digest: str

    def of(self, split: str) -> np.ndarray:
        """The rooms of a split."""
        return np.flatnonzero(self.table.split == split)

    def hear(self, dry: torch.Tensor, rooms: np.ndarray, source: int, microphones: int) -> torch.Tensor:
        """What microphones hear of a source, (batch, microphones, samples). dry: (batch, RUN_UP + samples + LEAD); rooms:
        (batch,)."""
        return filtered(dry, self._response(dry, rooms, source, microphones))

    def hear_talker(
        self, dry: torch.Tensor, rooms: np.ndarray, source: int, microphones: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and the direct sound with the early reflections at the reference, (batch, samples)."""
        response = self._response(dry, rooms, source, microphones)
        early = response[:, :1].clone()
        early[..., LEAD + EARLY + 1 :] = 0
        heard = filtered(dry, torch.cat([response, early], 1))
        return heard[:, :-1], heard[:, -1]

    def _response(self, dry: torch.Tensor, rooms: np.ndarray, source: int, microphones: int) -> torch.Tensor:
        return torch.from_numpy(self.responses[rooms, source, :microphones]).to(dry.device, non_blocking=True)


def filtered(dry: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
    """A source by several responses, (batch, responses, samples). dry: (batch, RUN_UP + samples + LEAD); responses: (batch,
    responses, TAPS)."""
    from scipy.fft import next_fast_len

    samples, size = dry.shape[-1] - TAPS, next_fast_len(dry.shape[-1], real=True)
    # What the transform's circle wraps around falls into the run-up.
    heard = torch.fft.irfft(torch.fft.rfft(dry, n=size)[:, None] * torch.fft.rfft(responses, n=size), n=size)
    return heard[..., TAPS : TAPS + samples]


def after_silence(dry: torch.Tensor) -> torch.Tensor:
    """A source that begins and ends with its samples, (batch, samples), as `hear` takes it."""
    return torch.nn.functional.pad(dry, (RUN_UP, LEAD))


def going_on(dry: torch.Tensor) -> torch.Tensor:
    """A source that was heard before, and goes on: its samples, (batch, samples), over and over."""
    place = torch.arange(-RUN_UP, dry.shape[-1] + LEAD, device=dry.device)
    return dry[:, place % dry.shape[-1]]


def open_rooms(name: str, say: Callable[[str], None] = print, progress: Progress = unseen) -> Rooms:
    """Open the rooms of a card, computing their responses where that has not been done yet. UserError where it is none."""
    card = corpora.card(name)
    if card.kind != "rooms":
        raise UserError(f"rooms {name!r}: is {card.kind}; rooms are: {', '.join(corpora.names('rooms'))}")
    # Of what they are made from, not of the samples, which processors round differently.
    digest = hashlib.sha256(f"{card.digest()} {ROOM_VERSION}".encode()).hexdigest()[:16]
    folder = paths.AUDIO / "bank" / f"{card.name}-{digest}"
    if not (folder / "bank.json").is_file():
        splits = [split for split, count in card.rooms.items() for _ in range(count)]
        say(f"{card.name}: computing {len(splits)} rooms")
        with placed(folder) as scratch:
            responses, rows = [], []
            for number, split in enumerate(splits):
                row, response = _room(card, number)
                rows.append({"split": split} | row)
                responses.append(response)
                progress(f"{card.name}: computing", number + 1, len(splits))
            np.save(scratch / "responses.npy", np.stack(responses))
            pd.DataFrame(rows).to_csv(scratch / "rooms.csv", index=False)
            (scratch / "bank.json").write_text(json.dumps({"digest": digest}))
    seal.check(folder)
    return Rooms(card, np.load(folder / "responses.npy", mmap_mode="r"), pd.read_csv(folder / "rooms.csv"), digest)


def _room(card: Card, number: int) -> tuple[dict[str, float], np.ndarray]:
    """What a room is like, and its responses, (sources, microphones, TAPS)."""
    import pyroomacoustics

    rng = np.random.default_rng([_seed(card.name), number])
    size, absorption = rng.uniform(SMALLEST, LARGEST), float(rng.uniform(*card.absorption))
    order = int(np.ceil(FAINTEST_DB / -(10 * np.log10(1 - absorption))))
    microphones, sources, distances = _positions(rng, size)
    room = pyroomacoustics.ShoeBox(
        size, fs=SAMPLE_RATE, materials=pyroomacoustics.Material(absorption), max_order=order
    )
    room.add_microphone_array(microphones.T)
    for source in sources:
        room.add_source(source)
    room.compute_rir()
    late = pyroomacoustics.constants.get("frac_delay_length") // 2  # its pulses are so much later than the sound
    made = np.zeros((len(sources), len(microphones), TAPS), np.float32)
    for place, distance in enumerate(distances):
        first = round(distance / room.c * SAMPLE_RATE) + late - LEAD
        for microphone in range(len(microphones)):
            whole = np.pad(room.rir[microphone][place], (max(-first, 0), TAPS))[max(first, 0) :][:TAPS]
            made[place, microphone] = whole * distance  # spherical spreading, taken back
    t60 = pyroomacoustics.experimental.measure_rt60(made[0, 0], SAMPLE_RATE, decay_db=20)
    width, depth, height = (round(float(metres), 2) for metres in size)
    about = {"width": width, "depth": depth, "height": height, "absorption": round(absorption, 3)}
    return about | {"t60": round(float(t60), 3)}, made


def _positions(rng: np.random.Generator, size: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Microphones, (2, 3), and sources, (3, 3), in metres, and how far each is from the reference: a whole number of samples, so
    that its direct sound needs no interpolation."""
    step = 343.0 / SAMPLE_RATE
    while True:
        reference = rng.uniform([FROM_WALLS, FROM_WALLS, 1.0], [*(size[:2] - FROM_WALLS), 1.6])
        turned = rng.uniform(0, 2 * np.pi)
        microphones = np.stack([reference, reference + SPACING * np.array([np.cos(turned), np.sin(turned), 0])])
        distances = [step * round(rng.uniform(*span) / step) for span in DISTANCES]
        azimuth, up = rng.uniform(0, 2 * np.pi, len(DISTANCES)), rng.uniform(-0.2, 0.2, len(DISTANCES))
        direction = np.stack([np.cos(azimuth) * np.cos(up), np.sin(azimuth) * np.cos(up), np.sin(up)], 1)
        sources = reference + np.array(distances)[:, None] * direction
        apart = np.abs((azimuth[:, None] - azimuth + np.pi) % (2 * np.pi) - np.pi)[np.triu_indices(len(azimuth), 1)]
        inside = ((sources > FROM_WALLS) & (sources < size - FROM_WALLS)).all()
        if inside and (apart >= APART).all():
            return microphones, sources, distances


def _seed(name: str) -> int:
    return int(hashlib.sha1(name.encode()).hexdigest()[:8], 16)
