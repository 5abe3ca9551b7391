import time

import pytest
import torch

from harness import losses, peers
from harness.peers import Peer

from .losses.signals import CLEAN, NOISY

ESTIMATE, TARGET = NOISY[:, :16000].float(), CLEAN[:, :16000].float()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(peers, "ROUNDS", 3)


def slow_mse(estimate, clean):
    time.sleep(0.02)
    return (estimate - clean).square().mean(-1)


def test_a_peer_stands_beside_ours_with_its_value_and_its_time():
    ours, other = peers.compare(ESTIMATE, TARGET, [Peer("mse", "elsewhere", lambda: slow_mse, {})])
    assert (ours.loss, ours.implementation, other.implementation) == ("mse", "ours", "elsewhere")
    assert ours.value == pytest.approx(other.value, rel=1e-6)
    assert other.ms >= 20 > ours.ms > 0
    assert (ours.ratio, other.ratio) == (1, pytest.approx(other.ms / ours.ms))


def test_what_is_not_installed_or_fails_is_left_out_with_a_line():
    def absent():
        raise ModuleNotFoundError("No module named 'elsewhere'")

    def broken():
        return lambda estimate, clean: estimate.no_such_method()

    said: list[str] = []
    listed = [Peer("mse", "elsewhere", absent, {}), Peer("l1", "rusty", broken, {}), Peer("no_such", "x", absent, {})]
    assert peers.compare(ESTIMATE, TARGET, listed, said.append) == []
    assert said[0] == "mse: elsewhere is left out: No module named 'elsewhere'"
    assert said[1].startswith("l1: rusty fails: AttributeError: ")
    assert len(said) == 2  # of a loss that we do not have there is nothing to say


def test_peers_of_one_loss_under_the_same_settings_share_a_row_of_ours():
    listed = [Peer("mse", name, lambda: slow_mse, {}) for name in ("b", "a")]
    assert [row.implementation for row in peers.compare(ESTIMATE, TARGET, listed)] == ["ours", "a", "b"]


@pytest.mark.parametrize(
    "peer", [peer for peer in peers.PEERS if peer.loss in losses.all_losses()], ids=lambda peer: f"{peer.loss}, {peer.package}"
)  # fmt: skip
def test_every_peer_that_is_installed_agrees_with_ours(peer):
    rows = peers.compare(ESTIMATE, TARGET, [peer], lambda line: pytest.skip(line))
    # torch_stoi resamples by another filter.
    tolerance = {"abs": 0.03} if peer.package == "torch_stoi" else {"rel": 1e-3}
    assert rows[0].value == pytest.approx(rows[1].value, **tolerance)
    assert torch.tensor([row.ms for row in rows]).gt(0).all()
