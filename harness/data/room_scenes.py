"""Mixtures heard in rooms: speech and noise come from two places of a room, and the clean speech is what reaches the reference
microphone directly or by early reflections (within 50 ms), which ears take for one sound.

The SNR is that of what is heard; the rooms of training, validation and test are others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from harness.data.bank import buffer, sounding
from harness.data.progress import Progress, unseen
from harness.data.rooms import LEAD, NOISE, RUN_UP, TALKERS, Rooms, after_silence, going_on, open_rooms
from harness.data.scenes import (
    PEAK,
    QUIETEST,
    SPLITS,
    Item,
    MixtureRule,
    OneSided,
    Scenes,
    fill_noise,
    gains,
    open_scenes,
    snr_and_level,
    turns,
    within_scale,
    without_a_part,
)


@dataclass(frozen=True)
class InRoom(OneSided):
    """An item of a room; `holds` is "both" of most."""

    room: int


@dataclass(frozen=True)
class RoomScenes(Scenes):
    """The same in rooms."""

    rooms: Rooms

    def batch(self, seed: int, step: int, items: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Training fields of one update on the device: noisy (at the reference) and clean, (items, samples), and where the rule
        asks for them all channels, (items, channels, samples). Same seed and step, same batch."""
        rng = np.random.default_rng([seed, step])
        both = buffer(device, 2, items, RUN_UP + self.rule.samples + LEAD)
        self.speech.fill(self.speech.draw("train", rng, items, both.shape[-1]), both[0])
        fill_noise(self.rule, self.kinds, rng, both[1])
        snr, level = snr_and_level(self.rule, rng, items, device)
        rooms = rng.choice(self.rooms.of("train"), items)
        dry, noise = sounding(both, device)
        noisy, speech, clean = self._mixed(dry, noise, rooms, snr, level)
        if self.rule.noise_only or self.rule.speech_only:
            noisy, clean = without_a_part(self.rule, rng, noisy, speech, clean)
        return self._fields(noisy, clean)

    def items(self, test_set: str, count: int) -> list[Item]:
        """As without rooms, each in one of those of its split, which take turns."""
        rooms = turns(f"{test_set}/rooms", self.rooms.of(SPLITS[test_set][1]))
        return [
            InRoom(**{"holds": "both"} | asdict(item), room=room)
            for item, room in zip(super().items(test_set, count), rooms, strict=False)
        ]

    def example(self, item: Item) -> dict[str, torch.Tensor]:
        """Fields of one item, unbatched; always mixed on the CPU, so that every device judges the same samples."""
        assert isinstance(item, InRoom)
        dry = torch.from_numpy(self.speech.clip(item.clip))[None]
        noise = torch.zeros_like(dry)
        if item.holds != "speech":
            noise = self.kinds[item.noise].render(np.array([item.plan]), dry.shape[-1], torch.device("cpu"))
        where, level = np.array([item.room]), torch.tensor([item.level])
        if item.holds == "noise":
            heard = self.rooms.hear(going_on(noise), where, NOISE, self.rule.channels or 1)
            power = heard[:, 0].square().mean().clamp(min=QUIETEST)
            noisy, clean = within_scale(heard * (10 ** (level / 10) / power).sqrt()), torch.zeros_like(dry)
        else:
            snr = torch.tensor(
                [0.0 if math.isnan(item.snr) else item.snr]
            )  # of speech alone there is no noise to scale
            noisy, _, clean = self._mixed(after_silence(dry), going_on(noise), where, snr, level)
        return {name: field[0] for name, field in self._fields(noisy, clean).items()}

    def mixture(self, item: Item) -> tuple[torch.Tensor, torch.Tensor]:
        """Noisy at the reference, and clean, of one item, (samples,) each."""
        fields = self.example(item)
        return fields["noisy"], fields["clean"]

    def _mixed(
        self, dry: torch.Tensor, noise: torch.Tensor, rooms: np.ndarray, snr: torch.Tensor, level: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What is heard, and the speech in it, (items, channels, samples), and the clean speech, (items, samples), of sources as
        `Rooms.hear` takes them; scaled together so that none clips."""
        channels = self.rule.channels or 1
        speech, clean = self.rooms.hear_talker(dry, rooms, TALKERS[0], channels)
        heard = self.rooms.hear(noise, rooms, NOISE, channels)
        noise_gain, gain = gains(speech[:, 0], heard[:, 0], snr, level)
        noisy = speech + noise_gain[:, None, None] * heard
        peaks = torch.stack([part.abs().flatten(1).amax(1) for part in (noisy, speech, clean)]).amax(0)
        gain = torch.minimum(gain, PEAK / peaks.clamp(min=1e-9))[:, None]
        return noisy * gain[:, None], speech * gain[:, None], clean * gain

    def _fields(self, noisy: torch.Tensor, clean: torch.Tensor) -> dict[str, torch.Tensor]:
        every = {"channels": noisy} if self.rule.channels else {}
        return {"noisy": noisy[:, 0].contiguous(), "clean": clean, **every}


def open_room_scenes(
    corpus: str,
    rule: MixtureRule,
    data_dir: Path | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
) -> RoomScenes:
    """Open every corpus that the rule needs, and its rooms."""
    assert rule.rooms is not None
    dry, rooms = open_scenes(corpus, rule, data_dir, say, progress), open_rooms(rule.rooms, say, progress)
    digest = f"{dry.digest}{rooms.digest[:8]}"
    return RoomScenes(dry.rule, dry.speech, dry.kinds, digest, rooms)
