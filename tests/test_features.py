"""The network of `deep_feature` is trained once, and by whoever is first."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from harness import features, keys, losses
from harness.models.features import NETWORKS, Network, Phi, Recipe
from tests.conftest import here

SHORT = replace(Recipe(), updates=6, batch=4)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def calls(home, monkeypatch):
    """What was trained, by a stand-in for training."""
    made: list[Recipe] = []

    def train(recipe, *_):
        made.append(recipe)
        return Phi(0), {"voices": 1.0}

    monkeypatch.setattr(features, "train", train)
    return made


def test_training_moves_every_layer_draws_from_its_own_seed_and_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr(features, "JUDGED", 8)
    shown: list[tuple[str, int, int]] = []
    before = torch.get_rng_state()
    phi, accuracy = features.train(
        SHORT, say=lambda line: None, progress=lambda what, done, of, unit="": shown.append((what, done, of))
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert shown[-1] == ("deep_feature: training its network", 6, 6)
    assert not phi.training
    assert set(accuracy) == {"keywords", "voices"}
    for trained, fresh in zip(phi.state_dict().values(), Phi(SHORT.seed).state_dict().values(), strict=True):
        assert not torch.equal(trained, fresh)


@pytest.mark.slow
def test_the_recipe_tells_voices_and_words_apart_far_better_than_chance():
    _, accuracy = features.train(Recipe(), say=lambda line: None)
    assert accuracy["voices"] > 0.5  # of four
    assert accuracy["keywords"] > 0.1  # of twenty


def test_only_a_loss_that_names_it_has_it_trained_and_only_once(calls, monkeypatch):
    monkeypatch.setitem(NETWORKS, "trained", Network(lambda: Phi(0), lambda: Recipe().key()))
    features.ensure(["mse", "deep_feature(network='random') + l1"])
    assert calls == []
    for _ in range(2):
        features.ensure(["mse", "l1 + 0.1*deep_feature"])
    assert calls == [Recipe()]
    assert Recipe().checkpoint.is_file()


def test_of_several_at_once_one_trains(calls):
    threads = [threading.Thread(target=features.made, args=(SHORT, None, lambda line: None)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [SHORT]


def test_another_network_is_another_loss_and_losses_without_one_keep_their_identity(monkeypatch):
    found = []
    for key in ("a", "b"):
        monkeypatch.setitem(NETWORKS, "trained", Network(lambda: Phi(0), lambda key=key: key))
        found.append(keys.loss_key(losses.parse("deep_feature"), "fixed"))
    assert found[0] != found[1]
    assert set(keys.loss_key(losses.parse("mse"), "fixed")) == {"terms", "versions", "weighting"}


def test_the_command_makes_nothing_twice(home):
    file = Recipe().checkpoint
    file.parent.mkdir(parents=True)
    features.save(file, Phi(0), {"keywords": 0.5, "voices": 0.9}, Recipe())
    done = here("features", home=home)
    assert done.returncode == 0, done.stderr
    assert "50 % of keywords, 90 % of voices" in " ".join(done.stdout.split())
