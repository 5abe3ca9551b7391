import numpy as np
import pytest
import torch

from harness import tasks
from tests.real import word_scenes

DIGITS = tasks.get("digits")
SYMBOLS = 11


def output(*best: int) -> dict[str, np.ndarray]:
    """Frames of which each is sure of one symbol."""
    return {"log_probs": np.log(np.eye(SYMBOLS, dtype=np.float32)[list(best)] + 1e-6)}


def example(*tokens: int) -> dict[str, torch.Tensor]:
    padded = torch.tensor([*tokens, *[0] * (6 - len(tokens))])
    return {"tokens": padded, "token_lengths": torch.tensor(len(tokens))}


def accuracy(frames: tuple[int, ...], tokens: tuple[int, ...]) -> float:
    return DIGITS.measure(output(*frames), example(*tokens))["token_accuracy"]


@pytest.mark.parametrize(
    ("frames", "tokens", "expected"),
    [
        ((0, 3, 3, 0, 0, 5, 0), (3, 5), 1.0),  # repeats and blanks are dropped
        ((3, 5), (3, 5), 1.0),
        ((7, 0, 7), (7, 7), 1.0),  # a blank parts two of a kind
        ((7, 7), (7, 7), 0.5),
        ((10, 1, 10), (10, 1, 10), 1.0),  # ten symbols, none of which is written as two
        ((0, 0, 0), (4,), 0.0),  # nothing heard
        ((1, 2, 3), (4, 5, 6), 0.0),
        ((1, 2, 4), (1, 2, 3, 4), 0.75),  # one is missing
        ((1, 2, 9, 3, 4), (1, 2, 3, 4), 0.75),  # one too many
        ((1, 2, 9, 4), (1, 2, 3, 4), 0.75),  # one is another
        ((2, 3, 4, 5), (1, 2, 3, 4), 0.5),  # shifted: one missing, one too many
        ((1, 2, 3, 4, 5), (1,), 0.0),  # four too many for one token, and no less than 0
    ],
)
def test_token_accuracy_is_one_less_the_share_of_edits(frames, tokens, expected):
    assert accuracy(frames, tokens) == pytest.approx(expected)


def test_padding_is_not_said():
    item = example(3, 5)
    item["tokens"][2:] = 8
    assert DIGITS.measure(output(3, 5), item)["token_accuracy"] == 1


def test_log_probs_that_are_not_finite_are_floored():
    broken = output(3, 5)
    broken["log_probs"][1, 4] = np.nan
    scored = DIGITS.score([broken, output(3, 5)], [example(3, 5)] * 2, [DIGITS.judged] * 2, None)
    assert scored == [({"token_accuracy": 0.0}, ["token_accuracy"]), ({"token_accuracy": 1.0}, [])]


def test_the_constant_control_says_one_digit():
    made = DIGITS.constant(word_scenes("digits"))
    assert made["log_probs"].shape == (1, SYMBOLS)
    assert DIGITS.measure(made, example(1))["token_accuracy"] == 1
    assert DIGITS.measure(made, example(2, 1, 3, 4))["token_accuracy"] == 0.25


def test_blank_is_a_symbol_beside_the_digits():
    assert DIGITS.sizes(word_scenes("digits")) == {"symbols": SYMBOLS}


def test_the_best_model_is_the_one_that_hears_most_tokens():
    assert DIGITS.selection("quality", {"token_accuracy": 0.7}, {}) == 0.7
    assert DIGITS.selection("token_accuracy", {"token_accuracy": 0.7}, {}) == 0.7
