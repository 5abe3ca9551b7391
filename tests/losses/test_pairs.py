import pytest
import torch
from torch.nn import functional

from harness.losses import contrastive, cosine_embedding, hinge_embedding, margin_ranking, triplet_margin
from tests.losses.items import is_close

GENERATOR = torch.Generator().manual_seed(0)
A, B, C = (torch.randn(30, 6, generator=GENERATOR, dtype=torch.float64) for _ in range(3))
SAME = torch.where(torch.arange(30) % 3 == 0, 1.0, -1.0)


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_cosine_embedding_has_the_golden_values():
    one, others, same = rows([1, 0], [1, 0], [1, 0]), rows([1, 1], [0, 1], [1, 1]), rows(1, -1, -1)
    is_close(cosine_embedding(one, others, same), [0.292893, 0, 0.707107])
    is_close(cosine_embedding(one, others, same, margin=0.5), [0.292893, 0, 0.207107])


def test_contrastive_has_the_golden_values():
    zero = torch.zeros(4, 2).double()
    other = rows([0.3, 0.4], [0.3, 0.4], [2, 0], [0, 0])
    is_close(contrastive(zero, other, rows(1, -1, -1, -1)), [0.125, 0.125, 0, 0.5])
    is_close(contrastive(zero[:3], other[:3], rows(1, -1, -1), margin=2.0), [0.125, 1.125, 0])


def test_two_embeddings_in_one_place_do_not_pull_at_each_other():
    embedding = torch.zeros(2, 3, requires_grad=True)
    contrastive(embedding, torch.zeros(2, 3), torch.tensor([1.0, -1.0])).sum().backward()
    assert not embedding.grad.any()


def test_triplet_margin_has_the_golden_values():
    zero = torch.zeros(2, 2).double()
    value = triplet_margin(zero, rows([1, 0], [3, 4]), rows([0, 1.5], [1, 0]))
    is_close(value, [0.5, 5])


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_triplet_margin_is_pytorchs_item_by_item(p, swap, margin):
    expected = functional.triplet_margin_loss(A, B, C, margin, p=p, swap=swap, reduction="none")
    value = triplet_margin(A, B, C, margin=margin, p=p, swap=swap)
    torch.testing.assert_close(value, expected, rtol=0, atol=2e-5)  # PyTorch adds 1e-6 to each difference


def test_a_swap_asks_for_more():
    assert (triplet_margin(A, B, C, swap=True) >= triplet_margin(A, B, C)).all()
    assert (triplet_margin(A, B, C, swap=True) > triplet_margin(A, B, C)).any()


def test_hinge_embedding_has_the_golden_values():
    is_close(hinge_embedding(rows(0.3, 0.3, 1.7), rows(1, -1, -1)), [0.3, 0.7, 0])


def test_margin_ranking_has_the_golden_values():
    is_close(margin_ranking(rows(0.5, 0.2), rows(0.2, 0.5), rows(1, 1), margin=0.1), [0, 0.4])


def test_the_wrappers_are_pytorchs_item_by_item():
    a, b, distance = A[:, 0], B[:, 0], (A - B).norm(dim=-1)
    for value, expected in [
        (
            cosine_embedding(A, B, SAME, margin=0.2),
            functional.cosine_embedding_loss(A, B, SAME, margin=0.2, reduction="none"),
        ),
        (
            hinge_embedding(distance, SAME, margin=2.0),
            functional.hinge_embedding_loss(distance, SAME, margin=2.0, reduction="none"),
        ),
        (
            margin_ranking(a, b, SAME, margin=0.3),
            functional.margin_ranking_loss(a, b, SAME, margin=0.3, reduction="none"),
        ),
    ]:
        assert torch.equal(value, expected)


def test_a_zero_embedding_has_cosine_zero():
    zero = torch.zeros(2, 3, requires_grad=True)
    value = cosine_embedding(zero, torch.ones(2, 3), torch.tensor([1.0, -1.0]))
    value.sum().backward()
    assert value.tolist() == [1, 0]
    assert zero.grad.isfinite().all()
