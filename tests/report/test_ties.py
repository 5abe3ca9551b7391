import numpy as np
import pytest

from harness.report.ties import letters, mid_ranks, ranks


def matrix(count, *pairs):
    beats = np.zeros((count, count), dtype=bool)
    for better, worse in pairs:
        beats[better, worse] = True
    return beats


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_two_losses_share_a_letter_exactly_when_they_are_tied(count):
    rng = np.random.default_rng(count)
    for _ in range(5):
        beats = np.triu(rng.random((count, count)) < 0.5, 1)
        shown = letters(-np.arange(count), beats)
        groups = [set(text.replace("'", "")) if count < 8 else None for text in shown]
        if count >= 8:  # more than 52 groups are named a', b', ...
            groups = [{c + "'" * p for c, p in _split(text)} for text in shown]
        for i in range(count):
            for j in range(i + 1, count):
                assert bool(groups[i] & groups[j]) == (not beats[i, j])


def _split(text):
    names = []
    for char in text:
        if char == "'":
            names[-1] = (names[-1][0], names[-1][1] + 1)
        else:
            names.append((char, 0))
    return names


def test_letters_of_the_textbook_chain():
    assert letters([3, 2, 1], matrix(3, (0, 2))) == ["a", "ab", "b"]


def test_the_best_has_the_letter_a_wherever_it_stands():
    assert letters([1, 3, 2], matrix(3, (1, 0), (2, 0))) == ["b", "a", "a"]


def test_letters_stay_few_where_all_maximal_groups_would_be_many():
    rng = np.random.default_rng(0)
    beats = np.triu(rng.random((40, 40)) < 0.3, 1)
    assert len(set("".join(letters(-np.arange(40), beats)))) <= 53


def test_a_loss_tied_with_everyone_above_shares_their_rank():
    assert ranks(matrix(3)).tolist() == [1, 1, 1]
    assert ranks(matrix(3, (0, 2))).tolist() == [1, 1, 2]
    assert ranks(matrix(3, (0, 1), (0, 2), (1, 2))).tolist() == [1, 2, 3]


def test_mid_ranks_neither_reward_nor_punish_unsteady_scores():
    # Loss 3 is so unsteady that it ties with all: it gets the middle, not the top.
    beats = matrix(4, (0, 1), (0, 2), (1, 2))
    assert ranks(beats)[3] == 1
    assert mid_ranks(beats).tolist() == [1.5, 2.5, 3.5, 2.5]
    assert mid_ranks(matrix(3)).tolist() == [2, 2, 2]
