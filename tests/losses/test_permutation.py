import itertools

import pytest
import torch

from harness import catalogue, losses
from harness.errors import UserError

TALKERS = 3


def fields(batch: int = 5, talkers: int = TALKERS, samples: int = 4000) -> dict[str, torch.Tensor]:
    """Sources of several levels, and estimates of them in an order that differs from item to item, in noise."""
    generator = torch.Generator().manual_seed(0)
    sources = (
        torch.randn(batch, talkers, samples, generator=generator) * torch.tensor([0.1, 0.05, 0.02])[:talkers, None]
    )
    orders = list(itertools.permutations(range(talkers)))
    estimates = torch.stack([item[list(orders[k % len(orders)])] for k, item in enumerate(sources)])
    estimates = 0.8 * estimates + 0.02 * torch.randn(estimates.shape, generator=generator)
    return {"estimates": estimates, "sources": sources, "noisy": sources.sum(1)}


def each_order(name: str, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss of every item under every order, (batch, orders), in plain loops."""
    plain, talkers = losses.build(name), given["sources"].shape[1]
    table = []
    for order in itertools.permutations(range(talkers)):
        permuted = given["estimates"][:, list(order)]
        if "estimates" in plain.info.fields:
            table.append(plain({**given, "estimates": permuted}))
            continue
        own = [
            plain({**given, "estimate": permuted[:, talker], "clean": given["sources"][:, talker]})
            for talker in range(talkers)
        ]
        table.append(torch.stack(own).mean(0))
    return torch.stack(table, 1)


@pytest.mark.parametrize("name", ["mse", "snr", "si_sdr", "sa_sdr", "wsdr", "l1", "stoi"])
@pytest.mark.parametrize("talkers", [2, 3])
def test_a_loss_is_that_of_the_best_order_of_each_item_by_itself(name, talkers):
    given = fields(talkers=talkers, samples=8000)
    table = each_order(name, given)
    best = losses.build(name, sizes={"talkers": talkers})(given)
    torch.testing.assert_close(best, table.min(1).values, rtol=1e-5, atol=1e-7)
    assert len(set(table.argmin(1).tolist())) > 1  # items that want another order than their neighbours
    assert (table.amax(1) > best).all()


def test_lengths_hide_padding_under_every_order():
    given = fields(talkers=2)
    lengths = torch.tensor([4000, 1000, 2000, 3000, 4000])
    spoiled = {name: tensor.clone() for name, tensor in given.items()}
    for item, length in enumerate(lengths):
        spoiled["estimates"][item, :, length:] = 7.0
    for name in ("si_sdr", "sa_sdr"):
        loss = losses.build(name, sizes={"talkers": 2})
        torch.testing.assert_close(loss({**spoiled, "lengths": lengths}), loss({**given, "lengths": lengths}))


def test_the_order_of_the_sources_says_nothing_and_a_perfect_estimate_costs_the_least():
    given = fields(talkers=2)
    swapped = {**given, "sources": given["sources"].flip(1)}
    perfect = {**given, "estimates": given["sources"].flip(1)}
    for name in ("mse", "si_sdr", "sa_sdr"):
        loss = losses.build(name, sizes={"talkers": 2})
        torch.testing.assert_close(loss(given), loss(swapped))
        torch.testing.assert_close(loss(perfect), torch.full((5,), loss.minimum), rtol=1e-3, atol=1e-6)


def test_only_the_chosen_order_is_trained():
    given = fields(talkers=2)
    estimates = given["estimates"].clone().requires_grad_()
    losses.build("snr", sizes={"talkers": 2})({**given, "estimates": estimates}).sum().backward()
    chosen = each_order("snr", given).argmin(1)
    ordered = given["estimates"].clone().requires_grad_()
    plain = losses.build("snr")
    for item, order in enumerate(chosen.tolist()):
        for talker in range(2):
            estimate = ordered[item : item + 1, talker ^ order]
            (plain({"estimate": estimate, "clean": given["sources"][item : item + 1, talker]}) / 2).sum().backward()
    torch.testing.assert_close(estimates.grad, ordered.grad)


def test_a_silent_talker_is_harmless_to_sa_sdr_and_weighs_as_much_as_the_other_in_the_mean_of_snr():
    given = fields(talkers=2)
    given["sources"][:, 1] = 0
    given["estimates"] = torch.stack([given["sources"][:, 0] * 0.7, torch.full((5, 4000), 1e-3)], 1)
    share = {}
    for name in ("sa_sdr", "snr"):
        estimates = given["estimates"].clone().requires_grad_()
        value = losses.build(name, sizes={"talkers": 2})({**given, "estimates": estimates})
        assert value.isfinite().all()
        value.sum().backward()
        assert estimates.grad.isfinite().all()
        speaking, silent = estimates.grad.norm(dim=-1)[0]
        share[name] = float(silent / speaking)
    assert share["snr"] > 10 * share["sa_sdr"]


@pytest.mark.parametrize("name", catalogue.trainable("separate"))
def test_every_loss_that_separates_is_finite_with_its_gradient_where_talkers_or_outputs_are_silent(name):
    given = fields(batch=4, talkers=2, samples=8000)
    given["sources"][1, 0] = 0
    given["sources"][2] = 0
    given["estimates"][3] = 0
    given["noisy"] = given["sources"].sum(1)
    estimates = given["estimates"].clone().requires_grad_()
    settings = {"network": "random"} if name == "deep_feature" else {}
    value = losses.build(name, settings, {"talkers": 2})({**given, "estimates": estimates})
    assert value.shape == (4,)
    assert value.isfinite().all()
    value.sum().backward()
    assert estimates.grad.isfinite().all()


def test_a_penalty_knows_no_order_and_a_missing_field_is_named():
    penalty = losses.build("l2_penalty", sizes={"talkers": 2})
    weights = {"parameters": [torch.ones(3, 2)]}
    assert torch.equal(penalty(weights), losses.build("l2_penalty")(weights))
    with pytest.raises(UserError, match="needs the field sources; given: estimates"):
        losses.build("mse", sizes={"talkers": 2})({"estimates": torch.zeros(1, 2, 8)})
