"""The real recordings, opened once for the whole test run."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.data import corpora, fetch
from harness.data.bank import Bank, open_bank
from harness.data.room_scenes import RoomScenes, open_room_scenes
from harness.data.rooms import Rooms, open_rooms
from harness.data.scenes import MixtureRule, Scenes, open_scenes
from harness.data.talker_scenes import TalkerRule, TalkerScenes, open_talker_scenes
from harness.data.voice_scenes import VoiceScenes, open_voice_scenes
from harness.data.word_scenes import TASKS, WordScenes, open_word_scenes

CPU = torch.device("cpu")


@lru_cache(maxsize=1)
def scenes() -> Scenes:
    """Prompts with all noises, by the default rule."""
    return open_scenes("prompts", MixtureRule(), say=lambda text: None)


@lru_cache(maxsize=1)
def short_scenes() -> Scenes:
    """The same with training windows of half a second, for quick trainings."""
    return open_scenes("prompts", MixtureRule(seconds=0.5), say=lambda text: None)


@lru_cache(maxsize=1)
def shoebox() -> Rooms:
    return open_rooms("shoebox", say=lambda text: None)


@lru_cache(maxsize=8)
def room_scenes(**rule: Any) -> RoomScenes:
    """Prompts with all noises in rooms, by the default rule, or with some of it changed."""
    return open_room_scenes("prompts", MixtureRule(rooms="shoebox", **rule), say=lambda text: None)


@lru_cache(maxsize=8)
def talker_scenes(**rule: Any) -> TalkerScenes:
    """Prompts of two people at once, by the default rule, or with some of it changed."""
    return open_talker_scenes("prompts", TalkerRule(**rule), say=lambda text: None)


@lru_cache(maxsize=8)
def word_scenes(task: str, **rule: Any) -> WordScenes:
    """Spoken words by a task's own rule, or with some of it changed."""
    return open_word_scenes(task, "spoken_words", TASKS[task].rule(**rule), say=lambda text: None)


@lru_cache(maxsize=1)
def voice_scenes() -> VoiceScenes:
    return open_voice_scenes("prompts", say=lambda text: None)


@lru_cache(maxsize=1)
def music() -> Bank:
    return open_bank(corpora.card("music"), say=lambda text: None)


@lru_cache(maxsize=1)
def prompts_folder() -> Path:
    """Where the five voices' G.722 files lie."""
    return fetch.recordings(corpora.card("prompts"), say=lambda text: None)


def mixtures(test_set: str, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Noisy and clean of the first items of a set, (samples,) each."""
    pairs = [scenes().mixture(item) for item in scenes().items(test_set, count)]
    return [(noisy.numpy(), clean.numpy()) for noisy, clean in pairs]


def active_powers(speech: np.ndarray, *others: np.ndarray) -> list[float]:
    """Mean power of signals over the active frames of the first: written here again, to check `mix` by."""
    frames = len(speech) // 512
    power = [(np.float64(x[: 512 * frames]).reshape(frames, 512) ** 2).mean(1) for x in (speech, *others)]
    active = 10 * np.log10(power[0] + 1e-300) >= 10 * np.log10(power[0].max() + 1e-300) - 40
    return [p[active].mean() for p in power]
