"""Which items of a batch are compared with which, and what a loss makes of a batch without any."""

import pytest
import torch

from harness import losses
from harness.tasks import fields

LABEL = torch.tensor([0, 1, 0, 2, 1, 0, 2, 2])


def batch(label=LABEL, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(len(label), dim, generator=generator, requires_grad=True)
    logits = torch.randn(len(label), 3, generator=generator, requires_grad=True)
    return {"embedding": embedding, "logits": logits, "label": label}


def completed(given, *names):
    made = fields.complete(given, names)
    return [made[name] for name in names]


def value_and_gradient(name, given):
    loss = losses.build(name)
    value = loss(fields.complete(given, loss.info.fields))
    value.sum().backward()
    return value, given["embedding"].grad


@pytest.mark.parametrize("seed", range(5))
def test_every_second_item_meets_its_own_class_and_the_others_their_semi_hard_negative(seed):
    given = batch(seed=seed)
    partner, other, same = completed(given, "partner", "other", "same")
    # Counted around the end: item 5 has no third of class 0 behind it, and would meet item 0.
    assert partner[::2].tolist() == [2, 5, 1, 7]
    assert same.tolist() == [1, -1, 1, -1, 1, -1, 1, -1]
    assert torch.equal(other, given["embedding"][partner])
    assert torch.equal(other[1::2], completed(given, "negative")[0][1::2])


@pytest.mark.parametrize(
    ("label", "partner"),
    [([0, 1, 2, 0], [3, None, None, None]), ([4, 4, 4], [1, 2, 0]), ([0, 1], [1, 0]), ([7], [0])],
)
def test_where_the_wanted_kind_is_missing_it_meets_the_other_and_itself_only_if_alone(label, partner):
    found = completed(batch(torch.tensor(label)), "partner")[0].tolist()
    for place, (met, expected) in enumerate(zip(found, partner, strict=True)):
        assert met == expected or (expected is None and label[met] != label[place])


def test_distance_is_euclidean_and_has_a_slope_of_0_at_0():
    given = batch()
    distance, other = completed(given, "distance", "other")
    torch.testing.assert_close(distance, (given["embedding"] - other).norm(dim=-1))
    alone = batch(torch.tensor([0]))
    completed(alone, "distance")[0].sum().backward()
    assert not alone["embedding"].grad.any()


def test_a_positive_is_the_next_of_the_class():
    given = batch()
    positive, anchor = completed(given, "positive", "anchor")
    assert torch.equal(positive, given["embedding"][torch.tensor([2, 4, 5, 6, 1, 0, 7, 3])])
    assert anchor is given["embedding"]


@pytest.mark.parametrize("seed", range(5))
def test_a_negative_is_the_nearest_beyond_the_positive_or_else_the_furthest(seed):
    given = batch(seed=seed)
    embedding = given["embedding"].detach()
    positive, negative = completed(given, "positive", "negative")
    for item in range(len(LABEL)):
        others = [k for k in range(len(LABEL)) if LABEL[k] != LABEL[item]]
        apart = {k: (embedding[k] - embedding[item]).norm().item() for k in others}
        limit = (positive[item] - embedding[item]).norm().item()
        beyond = [k for k in others if apart[k] > limit]
        expected = min(beyond, key=apart.get) if beyond else max(others, key=apart.get)
        assert torch.equal(negative[item], embedding[expected])


@pytest.mark.parametrize("settings", [{}, {"margin": 10.0}, {"swap": True}, {"p": 1}])
def test_an_anchor_without_positive_or_negative_is_worth_0_and_pulls_nowhere(settings):
    given = batch(torch.tensor([0, 1, 1, 2]))
    loss = losses.build("triplet_margin", settings)
    value = loss(fields.complete(given, loss.info.fields))
    assert value[[0, 3]].tolist() == [0, 0]
    value[[0, 3]].sum().backward()
    assert not given["embedding"].grad.any()


@pytest.mark.parametrize("name", ["triplet_margin", "cosine_embedding", "contrastive", "hinge_embedding", "supcon"])
def test_an_item_alone_is_worth_0_and_pulls_nowhere(name):
    value, gradient = value_and_gradient(name, batch(torch.tensor([3])))
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("label", [[1, 1, 1], [0, 1, 2]])
@pytest.mark.parametrize(
    "name", ["triplet_margin", "cosine_embedding", "contrastive", "hinge_embedding", "margin_ranking"]
)
def test_one_class_only_or_none_twice_is_finite(name, label):
    given = batch(torch.tensor(label))
    loss = losses.build(name)
    value = loss(fields.complete(given, loss.info.fields))
    value.sum().backward()
    assert value.isfinite().all()
    for leaf in ("embedding", "logits"):
        assert given[leaf].grad is None or given[leaf].grad.isfinite().all()
    if name == "triplet_margin":
        assert not value.any()


@pytest.mark.parametrize("name", ["triplet_margin", "cosine_embedding", "contrastive", "hinge_embedding"])
def test_descending_on_what_is_picked_from_shuffled_batches_brings_classes_together(name):
    embedding, label = batch(LABEL.repeat(4))["embedding"].detach().requires_grad_(), LABEL.repeat(4)
    loss, generator = losses.build(name), torch.Generator().manual_seed(1)

    def gap():
        unit = torch.nn.functional.normalize(embedding.detach(), dim=-1)
        cosine, kin = unit @ unit.T, label[:, None] == label
        return (cosine[kin].mean() - cosine[~kin].mean()).item()

    before = gap()
    optimiser = torch.optim.SGD([embedding], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        order = torch.randperm(len(label), generator=generator)
        given = {"embedding": embedding[order], "label": label[order]}
        loss(fields.complete(given, loss.info.fields)).sum().backward()
        optimiser.step()
    assert gap() > before + 0.5


PICKED = (
    "other",
    "same",
    "distance",
    "positive",
    "negative",
    "targets",
    "target_prob",
    "score",
    "other_score",
    "order",
)


def test_picking_looks_at_no_value_and_takes_no_item_by_itself():
    # A tensor of the meta device has a shape and no values: where a GPU would have to be waited for, it fails.
    given = {name: tensor.detach().to("meta") for name, tensor in batch().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in fields.complete(given, PICKED).items()}
    assert shapes["negative"] == shapes["other"] == (8, 5)
    assert shapes["targets"] == (8, 3)
    assert shapes["other_score"] == shapes["distance"] == shapes["same"] == (8,)


def test_the_same_batch_is_picked_the_same_way():
    first, second = (fields.complete(batch(), PICKED) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in PICKED)
