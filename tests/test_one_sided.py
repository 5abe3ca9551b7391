"""Items of noise alone and of speech alone, through a model, under every loss that denoises: no step is lost to them."""

from __future__ import annotations

import math

import pytest
import torch

from harness import catalogue, losses, models, train
from harness.data.scenes import MixtureRule, open_scenes
from tests.real import CPU

QUICK = ("mse", "si_sdr", "snr", "sa_sdr", "wsdr", "log_mel")
UPDATES = 6


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in catalogue.trainable("denoise")],
)
def test_a_loss_trains_on_items_without_speech_and_without_noise(name: str) -> None:
    scenes = open_scenes("prompts", MixtureRule(seconds=0.5, noise_only=0.4, speech_only=0.4), say=lambda text: None)
    held = [scenes.batch(0, step, 6, CPU) for step in range(UPDATES)]
    silent = [~batch["clean"].any(1) for batch in held]
    quiet = [(batch["noisy"] == batch["clean"]).all(1) for batch in held]
    assert sum(int(of.sum()) for of in silent) >= UPDATES
    assert sum(int(of.sum()) for of in quiet) >= UPDATES
    torch.manual_seed(0)
    net = models.build("gru_mask")
    before = [parameter.clone() for parameter in net.parameters()]
    curves = train.fit(
        net,
        losses.Objective(losses.parse("deep_feature(network='random')" if name == "deep_feature" else name)),
        lambda step: held[step],
        train.Recipe(UPDATES, 3e-3, 0.01, 0.05, 10.0),
        CPU,
        inputs=("noisy",),
    )
    assert len(curves.rows) == UPDATES  # a value or a gradient that is not finite would have ended it
    assert all(math.isfinite(value) for row in curves.rows for value in row)
    assert any(row[curves.columns.index("gradient_norm") + 2] > 0 for row in curves.rows)
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
