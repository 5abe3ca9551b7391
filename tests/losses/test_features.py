import pytest
import torch
from torch import nn

from harness.errors import UserError
from harness.losses import Objective, build, deep_feature, get, parse
from harness.models.features import CHANNELS, NETWORKS, Phi, feature_network
from tests.losses.signals import CLEAN, ESTIMATE, NOISY

E, S = ESTIMATE.float(), CLEAN.float()


class Two(nn.Module):
    """A user's own: two layers, one parameter, and a batch norm whose statistics would move in training mode."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([2.0]))
        self.norm = nn.BatchNorm1d(1)

    def forward(self, signal, lengths=None):
        x = self.norm(self.gain * signal[:, None])
        yield x, lengths
        yield 3 * x, lengths


@pytest.fixture
def two():
    def two():
        return Two()

    yield feature_network(version=7)(two)
    NETWORKS.pop("two")


def test_it_is_the_sum_over_layers_of_the_mean_absolute_difference_by_the_plain_network():
    phi = Phi(0).eval()
    expected, x, y = torch.zeros(1), E[:, None], S[:, None]
    with torch.no_grad():
        for convolution, norm in list(zip(phi.convolutions, phi.norms, strict=True))[:6]:
            x, y = (nn.functional.leaky_relu(norm(convolution(z)), 0.2) for z in (x, y))
            expected += (x - y).abs().mean((1, 2))
    torch.testing.assert_close(deep_feature(network="random").eval()(E, S), expected, rtol=1e-4, atol=1e-6)


def test_every_layer_more_adds_its_distance():
    values = [
        float(deep_feature(layers=layers, network="random").eval()(E, S)) for layers in range(1, len(CHANNELS) + 1)
    ]
    assert values == sorted(set(values))


def test_after_rebalancing_every_term_is_about_one_on_other_signals():
    loss = deep_feature(network="random").train()
    for start in range(0, 24_000, 4_000):
        loss(E[:, start : start + 8_000], S[:, start : start + 8_000])
    for estimate in (E, NOISY.float()):
        terms = (loss.terms(estimate, S) / loss.scale)[0]
        assert ((terms > 0.3) & (terms < 3)).all(), terms


def test_layers_are_weighed_by_the_first_training_batches_alone():
    loss = deep_feature(network="random")
    loss.eval()(E, S)
    assert (loss.scale == 1).all()
    loss.train()
    loss(S, S)  # where nothing differs there is nothing to weigh
    assert (loss.scale == 1).all()
    for _ in range(8):
        loss(E, S)
    torch.testing.assert_close(loss.scale, loss.terms(E, S)[0].detach())
    weighed = loss.scale.clone()
    loss(10 * E, S)
    assert torch.equal(loss.scale, weighed)
    plain = deep_feature(network="random", rebalance=False).train()
    plain(E, S)
    assert (plain.scale == 1).all()


def test_a_perfect_estimate_costs_nothing_and_is_not_pushed_anywhere():
    estimate = S.clone().requires_grad_()
    value = deep_feature(network="random")(estimate, S)
    value.sum().backward()
    assert value.item() == 0
    assert (estimate.grad == 0).all()


@pytest.mark.parametrize("network", ["random", "two"])
def test_the_network_learns_nothing_and_stays_in_evaluation_mode(network, two):
    loss = deep_feature(layers=2, network=network).train()
    before = {name: tensor.clone() for name, tensor in loss.network.state_dict().items()}
    estimate = E.clone().requires_grad_()
    loss(estimate, S).sum().backward()
    assert estimate.grad.abs().sum() > 0
    assert not any(module.training for module in loss.network.modules())
    assert all(parameter.grad is None for parameter in loss.network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in loss.network.state_dict().items())
    assert Objective(parse(f"deep_feature(layers=2, network={network!r}) + mse")).parameter_groups(0.1) == []


def test_the_clean_side_is_not_differentiated():
    clean = S.clone().requires_grad_()
    loss = deep_feature(network="random")
    loss(E.clone().requires_grad_(), clean).sum().backward()
    assert clean.grad is None


def test_a_network_of_ones_own_is_asked_for_by_its_name(two):
    loss = build("deep_feature", {"network": "two", "layers": 2, "rebalance": False})
    expected = (2 + 6) * (E - S).abs().mean(-1)
    torch.testing.assert_close(loss.eval()({"estimate": E, "clean": S}), expected, rtol=1e-4, atol=1e-6)
    assert parse("deep_feature(network='two')").named == {"two": "version 7"}
    with pytest.raises(UserError, match="network has 2"):
        deep_feature(network="two")(E, S)


def test_an_unknown_network_is_an_error_that_names_those_there_are():
    with pytest.raises(UserError, match=r"one of .*'random'"):
        parse("deep_feature(network='nothing')")
    assert get("deep_feature").settings["network"].default == "trained"
