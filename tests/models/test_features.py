from dataclasses import replace

import pytest
import torch

from harness.errors import UserError
from harness.models import features
from harness.models.features import CHANNELS, NETWORKS, FrozenPhi, Phi, Recipe, feature_network, load, save


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "phi.pt"
    save(file, Phi(0), {"voices": 0.9}, Recipe())
    return file


def test_layers_have_the_published_shapes():
    layers = [(tuple(x.shape), frames) for x, frames in NETWORKS["random"].make()(torch.zeros(2, 16_000))]
    frames = [8000, 4000, 2000, 1000, 500, 250, 125, 63, 32, 16, 8, 4, 2, 2]
    assert layers == [((2, channels, count), None) for channels, count in zip(CHANNELS, frames, strict=True)]


@pytest.mark.parametrize("samples", [1, 2, 999, 1000, 1001])
def test_an_item_has_the_same_features_alone_and_padded(samples):
    network, wave = FrozenPhi(Phi(0)).double(), torch.randn(2, 1500, dtype=torch.float64)
    padded = list(network(wave, torch.tensor([samples, 1500])))
    alone = list(network(wave[:1, :samples]))
    for (x, frames), (y, _) in zip(padded, alone, strict=True):
        assert frames[0] == y.shape[-1]
        torch.testing.assert_close(x[:1, :, : frames[0]], y)
        assert (x[0, :, frames[0] :] == 0).all()


def test_the_random_network_is_always_the_same_and_draws_from_nobodys_generator():
    before = torch.get_rng_state()
    one, other = (NETWORKS["random"].make().state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_saved_is_loaded_whole(file):
    content = load(file)
    assert content["accuracy"] == {"voices": 0.9}
    phi = Phi(0)
    phi.load_state_dict(content["weights"])
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_damaged_or_missing_file_is_one_line_that_names_the_command(file):
    content = torch.load(file, weights_only=True)
    content["weights"]["convolutions.0.weight"][0] += 1
    torch.save(content, file)
    with pytest.raises(UserError, match=r"damaged; delete the file and make it.*harness features"):
        load(file)
    file.write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="damaged"):
        load(file)
    file.unlink()
    with pytest.raises(UserError, match=r"no trained network.*harness features"):
        load(file)


def test_the_key_is_that_of_the_recipe_and_of_the_recordings(monkeypatch):
    key = Recipe().key()
    assert key == Recipe().key()
    assert len({key, replace(Recipe(), seed=1).key(), replace(Recipe(), speech="music").key()}) == 3
    assert Recipe().checkpoint.name == f"{key}.pt"


def test_two_files_cannot_give_networks_of_one_name():
    with pytest.raises(UserError, match="two feature networks are called 'random'"):

        @feature_network()
        def random():
            return Phi(0)

    assert NETWORKS["random"].make is features.random
