import math

import pytest
import torch

from harness.losses import build, center, supcon

EMBEDDING = torch.tensor([[1.0, 0], [2, 0], [1, 2]], dtype=torch.float64)
LABEL = torch.tensor([0, 0, 1])


def golden_center(alpha=0.5):
    loss = center(classes=2, dim=2, alpha=alpha).double()
    loss.centers.copy_(torch.tensor([[0.0, 0], [1, 1]]))
    return loss


def test_center_has_the_published_values_and_moves_its_centres_by_one_plus_n():
    loss = golden_center()
    torch.testing.assert_close(loss(EMBEDDING, LABEL), torch.tensor([0.5, 2, 0.5], dtype=torch.float64))
    torch.testing.assert_close(loss.centers, torch.tensor([[0.5, 0], [1, 1.25]], dtype=torch.float64))


def test_centres_follow_a_loop_over_the_papers_formula():
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    label = torch.randint(4, (20,), generator=generator)
    loss = center(classes=5, dim=3, alpha=0.3).double()
    loss.centers.copy_(torch.randn(5, 3, generator=generator))
    expected = loss.centers.clone()
    for j in range(5):
        members = [embedding[i] for i in range(20) if label[i] == j]
        expected[j] -= 0.3 * sum((loss.centers[j] - x) / (1 + len(members)) for x in members)
    loss(embedding, label)
    torch.testing.assert_close(loss.centers, expected)


def test_centres_rest_during_evaluation():
    loss = golden_center().eval()
    loss(EMBEDDING, LABEL)
    assert loss.centers.tolist() == [[0, 0], [1, 1]]


def test_the_gradient_of_center_points_from_the_centre():
    embedding = EMBEDDING.clone().requires_grad_()
    golden_center()(embedding, LABEL).sum().backward()
    assert embedding.grad.tolist() == [[1, 0], [2, 0], [0, 1]]


def test_centres_are_saved_with_the_model_and_are_not_parameters():
    loss = build("center", sizes={"classes": 2, "dim": 2, "symbols": 9})
    assert not list(loss.parameters())
    assert [key.rpartition(".")[2] for key in loss.state_dict()] == ["centers"]


ANCHORS = torch.tensor([[1, 0], [1, 0.2], [0, 1], [0.2, 1], [-1, 0]], dtype=torch.float64)
ANCHOR_LABEL = torch.tensor([0, 0, 1, 1, 2])


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, [0.677752, 0.764579, 0.791430, 0.839708, 0]),
        (0.1, [0.000447, 0.002968, 0.000502, 0.002976, 0]),
    ],
)
def test_supcon_has_the_golden_values(temperature, expected):
    value = supcon(ANCHORS, ANCHOR_LABEL, temperature=temperature)
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_supcon_agrees_with_its_formula_written_as_loops():
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    label = torch.arange(9) % 3
    unit = embedding / embedding.norm(dim=-1, keepdim=True)
    for i, value in enumerate(supcon(embedding, label, temperature=0.3)):
        others = [k for k in range(9) if k != i]
        total = sum(math.exp(unit[i] @ unit[k] / 0.3) for k in others)
        positives = [k for k in others if label[k] == label[i]]
        expected = -sum(unit[i] @ unit[p] / 0.3 - math.log(total) for p in positives) / len(positives)
        assert value.item() == pytest.approx(expected.item(), rel=1e-9)


def test_supcon_is_at_least_the_logarithm_of_the_positives():
    label = torch.zeros(6, dtype=torch.long)
    value = supcon(torch.ones(6, 3, dtype=torch.float64), label)
    torch.testing.assert_close(value, torch.full((6,), math.log(5), dtype=torch.float64))


def test_a_zero_embedding_has_cosine_zero():
    embedding = torch.tensor([[0.0, 0], [1, 0], [0, 1]], dtype=torch.float64, requires_grad=True)
    value = supcon(embedding, torch.tensor([0, 0, 1]), temperature=1.0)
    assert value[0].item() == pytest.approx(math.log(2))
    value.sum().backward()
    assert embedding.grad.isfinite().all()
