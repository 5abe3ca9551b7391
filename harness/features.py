"""The network of `deep_feature`, trained once on keywords and voices, for every process that asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from harness import losses
from harness.data.progress import Progress, unseen
from harness.data.scenes import NoisyRule
from harness.data.voice_scenes import open_voice_scenes
from harness.data.word_scenes import WordRule, open_word_scenes
from harness.locks import held
from harness.models.features import CHANNELS, Phi, Recipe, load, save

JUDGED = 240  # validation items of each task
CPU = torch.device("cpu")  # whatever the study trains on: the network is then the same


def ensure(
    expressions: Iterable[str],
    data_dir: Path | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
) -> None:
    """Train the network where a loss of these asks for it and it is not there yet."""
    if any("trained" in losses.parse(expression).named for expression in expressions):
        made(Recipe(), data_dir, say, progress)


def made(
    recipe: Recipe, data_dir: Path | None = None, say: Callable[[str], None] = print, progress: Progress = unseen
) -> dict[str, Any]:
    """The checkpoint of a recipe, trained where there is none; of several processes that ask at once one trains."""
    file = recipe.checkpoint
    with held(file.parent, lambda: say("deep_feature: another process is training its network; waiting")):
        if not file.is_file():
            say("deep_feature: training its network on keywords and voices, once; a few minutes")
            phi, accuracy = train(recipe, data_dir, say, progress)
            save(file, phi, accuracy, recipe)
    return load(file)


def train(
    recipe: Recipe, data_dir: Path | None = None, say: Callable[[str], None] = print, progress: Progress = unseen
) -> tuple[Phi, dict[str, float]]:
    """The network of a recipe, and how often it is right on the validation items of each task."""
    about = {"noise": recipe.noise, "snr": recipe.snr, "seconds": recipe.seconds}
    scenes: dict[str, Any] = {
        "keywords": open_word_scenes("keywords", recipe.words, WordRule(**about), data_dir, say, progress),
        "voices": open_voice_scenes(recipe.speech, NoisyRule(**about), data_dir, say, progress),
    }
    phi = Phi(recipe.seed)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(recipe.seed)
        heads = nn.ModuleDict({name: nn.Linear(CHANNELS[-1], len(each.classes)) for name, each in scenes.items()})
    learned = [*phi.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(learned, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, recipe.updates, pct_start=0.1)
    for step in range(recipe.updates):
        name = list(scenes)[step % len(scenes)]
        fields = scenes[name].batch(recipe.seed, step, recipe.batch, CPU)
        optimiser.zero_grad()
        functional.cross_entropy(heads[name](phi(fields["noisy"])), fields["label"]).backward()
        optimiser.step()
        schedule.step()
        progress("deep_feature: training its network", step + 1, recipe.updates)
    return phi.eval(), {name: _accuracy(phi, heads[name], each) for name, each in scenes.items()}


@torch.inference_mode()
def _accuracy(phi: Phi, head: nn.Module, scenes: Any) -> float:
    examples = [scenes.example(item) for item in scenes.items("validation", JUDGED)]
    noisy, label = (torch.stack([example[name] for example in examples]) for name in ("noisy", "label"))
    return float((head(phi(noisy)).argmax(-1) == label).float().mean())
