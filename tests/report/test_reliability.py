import numpy as np
import pandas as pd
import pytest

from harness.report.reliability import split_half


def tables(means, seeds, seed_sd, rng):
    names = [f"l{i}" for i in range(len(means))]
    scores = np.asarray(means)[:, None] + seed_sd * rng.standard_normal((len(means), seeds))
    return {name: pd.DataFrame(np.tile(own[:, None], 8)) for name, own in zip(names, scores, strict=True)}


def all_separated(count):
    return np.triu(np.ones((count, count), dtype=bool), 1)


def test_steady_losses_agree_fully():
    losses = tables([3.0, 2.0, 1.0], 5, 0.01, np.random.default_rng(0))
    assert split_half(losses, all_separated(3), list(losses)) == (1, 3)


def test_losses_that_only_differ_by_their_seeds_do_not_agree():
    losses = tables(np.zeros(12), 6, 1.0, np.random.default_rng(0))
    assert split_half(losses, all_separated(12), list(losses))[0] < 0.5


def test_pairs_that_the_study_does_not_separate_are_not_counted():
    rng = np.random.default_rng(0)
    losses = tables([3.0, 0.0, 0.0, 0.0], 4, 0.5, rng)
    beats = np.zeros((4, 4), dtype=bool)
    beats[0, 1:] = True
    assert split_half(losses, beats, list(losses)) == (1, 3)


@pytest.mark.parametrize(("seeds", "known"), [(3, False), (4, True), (12, True)])
def test_it_is_unknown_with_fewer_than_four_seeds(seeds, known):
    losses = tables([3.0, 1.0], seeds, 0.01, np.random.default_rng(0))
    assert np.isnan(split_half(losses, all_separated(2), list(losses))[0]) != known


def test_it_is_unknown_when_nothing_is_separated():
    losses = tables([3.0, 1.0], 5, 0.01, np.random.default_rng(0))
    assert np.isnan(split_half(losses, np.zeros((2, 2), dtype=bool), list(losses))[0])


def test_halves_that_contradict_each_other_score_minus_one():
    values = {"a": [1.0, 1.0, 0.0, 0.0], "b": [0.0, 0.0, 1.0, 1.0]}
    losses = {name: pd.DataFrame(np.array(v)[:, None]) for name, v in values.items()}
    # Of the three splits, one contradicts itself (-1) and two see no order at all (0).
    assert split_half(losses, all_separated(2), ["a", "b"])[0] == pytest.approx(-1 / 3)


def test_a_loss_with_few_seeds_hides_nothing_of_the_others():
    losses = tables(np.zeros(12), 6, 1.0, np.random.default_rng(0))
    known = split_half(losses, all_separated(12), list(losses))
    assert known[1] == 66
    stopped = {name: table[:3] if name == "l11" else table for name, table in losses.items()}
    rest = {name: losses[name] for name in list(losses)[:11]}
    assert split_half(stopped, all_separated(12), list(losses)) == split_half(rest, all_separated(11), list(rest))
    assert split_half(stopped, all_separated(12), list(losses))[1] == 55


def test_each_pair_is_judged_by_the_seeds_that_both_have():
    rng = np.random.default_rng(0)
    losses = tables([2.0, 1.0, 0.0], 8, 0.01, rng)
    losses["l2"] = -losses["l2"].loc[[1, 3, 4, 6, 7]]  # stopped after seeds of its own
    losses["l1"].loc[[0, 2, 5]] = [[9.0] * 8, [-9.0] * 8, [9.0] * 8]  # of which it says nothing
    tau, judged = split_half(losses, all_separated(3), list(losses))
    assert judged == 3
    beats = all_separated(3)
    beats[0, 1] = False
    assert split_half(losses, beats, list(losses)) == (1, 2)
    assert 1 / 3 <= tau < 1
