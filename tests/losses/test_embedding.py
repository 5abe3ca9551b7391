import math

import pytest
import torch

from harness.losses import aam_softmax, build, center, cross_entropy, supcon
from tests.losses.items import is_close

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


def golden_aam(**settings):
    loss = aam_softmax(classes=3, dim=2, **settings).double()
    loss.load_state_dict({"weight": torch.tensor([[0.8, 0.6], [0, 1], [-1, 0]])})
    return loss


@pytest.mark.parametrize(
    ("margin", "expected"), [(0.0, [0.018271, 1.171383]), (0.2, [0.035600, 1.681958]), (0.5, [0.119360, 2.791637])]
)
def test_aam_softmax_has_the_golden_values(margin, expected):
    embedding = torch.tensor([[1, 0], [0.6, 0.8]], dtype=torch.float64)
    is_close(golden_aam(margin=margin, scale=5.0)(embedding, torch.tensor([0, 1])), expected)


def test_without_a_margin_it_is_the_cross_entropy_of_scaled_cosines():
    embedding = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = torch.arange(12) % 3
    loss = golden_aam(margin=0.0)
    cosine = torch.cosine_similarity(embedding[:, None], loss.weight[None], dim=-1)
    torch.testing.assert_close(loss(embedding, label), cross_entropy(30 * cosine, label))
    torch.testing.assert_close(loss(7 * embedding, label), loss(embedding, label))


def test_the_price_rises_with_the_angle_all_the_way_round():
    angle = torch.linspace(0, math.pi, 200, dtype=torch.float64)
    embedding = torch.stack([angle.cos(), angle.sin()], -1)
    loss = aam_softmax(classes=1, dim=2, margin=0.5, scale=10.0).double()
    loss.load_state_dict({"weight": torch.tensor([[1.0, 0.0]])})
    two = aam_softmax(classes=2, dim=2, margin=0.5, scale=10.0).double()
    two.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [0.0, 0.0]])})  # a zero vector: cosine 0 with all
    value = two(embedding, torch.zeros(200, dtype=torch.long))
    assert (value.diff() > 0).all()
    assert loss(embedding, torch.zeros(200, dtype=torch.long)).tolist() == [0] * 200


def test_class_vectors_are_learned_and_saved():
    loss = build("aam_softmax", sizes={"classes": 4, "dim": 3})
    assert [name.rpartition(".")[2] for name, _ in loss.named_parameters()] == ["weight"]
    loss({"embedding": torch.randn(5, 3), "label": torch.arange(5) % 4}).sum().backward()
    assert next(loss.parameters()).grad.abs().sum() > 0
