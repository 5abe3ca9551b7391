import itertools
import math

import pytest
import torch

from harness.losses import build, ctc
from harness.losses.sequence import impossible

UNIFORM = torch.full((1, 4, 3), math.log(1 / 3), dtype=torch.float64)


def lengths(*values):
    return torch.tensor(values)


@pytest.mark.parametrize(("tokens", "expected"), [([1, 2], 1.686399), ([1, 1], 2.785011), ([], 4.394449)])
def test_uniform_probabilities_count_the_alignments(tokens, expected):
    padded = torch.tensor([tokens + [0] * (2 - len(tokens))])
    value = ctc(UNIFORM, padded, lengths(4), lengths(len(tokens)), per_token=False)
    assert value.item() == pytest.approx(expected, abs=1e-6)
    assert value.item() / max(1, len(tokens)) == ctc(UNIFORM, padded, lengths(4), lengths(len(tokens))).item()


def spelled(path, blank):
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != blank]


@pytest.mark.parametrize("blank", [0, -1])
@pytest.mark.parametrize("tokens", [[1, 2], [1, 1], [2], [], [2, 1, 2]])
def test_the_value_is_the_sum_over_every_alignment(tokens, blank):
    log_probs = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)
    paths = [p for p in itertools.product(range(4), repeat=5) if spelled(p, blank % 4) == tokens]
    total = sum(math.exp(sum(log_probs[0, t, symbol] for t, symbol in enumerate(path))) for path in paths)
    padded = torch.tensor([tokens + [1] * (3 - len(tokens))])
    value = ctc(log_probs, padded, lengths(5), lengths(len(tokens)), blank=blank, per_token=False)
    assert value.item() == pytest.approx(-math.log(total), rel=1e-9)


def test_an_impossible_string_costs_nothing_and_pulls_nowhere():
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = ctc(logits.log_softmax(-1), torch.tensor([[1, 1, 2], [1, 3, 2]]), lengths(3, 3), lengths(3, 3))
    value.sum().backward()
    assert value[0] == 0
    assert value[1] > 0
    assert logits.grad[0].abs().max() == 0
    assert logits.grad[1].abs().max() > 0


def strings(count=60, frames=8):
    """Random strings of up to 6 tokens out of two, in up to 8 frames: many of them impossible."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 3, (count, 6), generator=generator)
    log_probs = torch.randn(count, frames, 3, generator=generator).log_softmax(-1)
    sizes = [torch.randint(1, most + 1, (count,), generator=generator) for most in (frames, 6)]
    return {"log_probs": log_probs, "tokens": tokens, "frame_lengths": sizes[0], "token_lengths": sizes[1]}


def test_impossible_strings_are_those_that_pytorch_finds_infinite():
    given = strings()
    infinite = torch.nn.functional.ctc_loss(
        given["log_probs"].transpose(0, 1),
        *(given[n] for n in ("tokens", "frame_lengths", "token_lengths")),
        reduction="none",
    ).isinf()
    found = impossible(given["tokens"], given["frame_lengths"], given["token_lengths"])
    assert torch.equal(found, infinite)
    assert 10 < found.sum() < 50


def test_training_counts_impossible_strings_and_judging_does_not():
    loss, given = build("ctc"), strings()
    assert loss.void_share == 0
    expected = impossible(given["tokens"], given["frame_lengths"], given["token_lengths"]).double().mean()
    loss(given)
    easy = given | {"token_lengths": torch.zeros_like(given["token_lengths"])}
    loss(easy)
    assert loss.void_share == pytest.approx(float(expected) / 2)
    loss.eval()(given)
    assert loss.void_share == pytest.approx(float(expected) / 2)
    assert not loss.state_dict()
    assert build("mse").void_share is None
