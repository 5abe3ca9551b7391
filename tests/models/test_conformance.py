"""Every registered model by every check, and what only some do. A new model is tested as soon as it is registered."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness import losses, models
from harness.conformance.check import Check
from harness.conformance.of_models import CHECKS, ITEMS, made
from harness.errors import UserError
from harness.models import registry
from harness.tasks.fields import complete
from tests.real import mixtures

MODELS = models.all_models()
SIZES = {  # parameters; a new model states its own
    "gru_mask": (250_000, 270_000),
    "gru_mask_pair": (290_000, 320_000),
    "gru_mask_stereo": (500_000, 540_000),
    "conv_tasnet": (170_000, 190_000),
    "conv_tasnet_pair": (180_000, 200_000),
    "ds_cnn": (25_000, 100_000),
    "ds_cnn_count": (25_000, 100_000),
    "ds_cnn_locate": (25_000, 100_000),
    "crnn": (50_000, 150_000),
}


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> nn.Module:
    return made(MODELS[name])


def speech(items: int = 3, samples: int = 16_000) -> torch.Tensor:
    return torch.stack([torch.from_numpy(noisy[:samples]) for noisy, _ in mixtures("matched", items)])


PAIRS = [
    pytest.param(check, info, id=f"{check.name}, {info.name}", marks=[pytest.mark.cuda] if check.cuda else [])
    for check in CHECKS
    for info in MODELS.values()
    if check.applies(info)
]


@pytest.mark.parametrize(("check", "info"), PAIRS)
def test_it_holds_on_real_mixtures(check: Check, info: models.ModelInfo) -> None:
    if check.cuda and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    assert list(check.find(info, speech(ITEMS))) == []


def test_it_has_as_many_parameters_as_it_says(name: str, model: nn.Module) -> None:
    low, high = SIZES[name]
    assert low <= sum(parameter.numel() for parameter in model.parameters()) <= high


def test_a_mask_net_lets_through_what_its_mask_says() -> None:
    net = models.build("gru_mask").eval()
    noisy = speech()
    for bias, share in ((30.0, 1.0), (0.0, 0.5), (-30.0, 0.0)):
        with torch.no_grad():
            net.mask.weight.zero_()
            net.mask.bias.fill_(bias)
            torch.testing.assert_close(net(noisy)["estimate"], share * noisy, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["gru_mask_pair", "conv_tasnet_pair"])
def test_a_pair_estimates_the_noise_freely_and_only_a_loss_that_asks_for_it_trains_that(name: str) -> None:
    noisy, clean = (torch.stack([torch.from_numpy(pair[k][:8000]) for pair in mixtures("matched", 2)]) for k in (0, 1))
    reached = {}
    for loss in ("snr", "sa_sdr"):
        torch.manual_seed(0)
        net = models.build(name)
        outputs = net(noisy)
        assert torch.equal(outputs["estimates"][:, 0], outputs["estimate"])
        assert (outputs["estimates"].sum(1) - noisy).norm() > 0.01 * noisy.norm()
        objective = losses.Objective(losses.parse(loss))
        fields = complete({"noisy": noisy, "clean": clean, **outputs}, objective.combination.fields)
        objective(fields)[0].backward()
        reached[loss] = sum(int((p.grad != 0).sum()) for p in net.parameters() if p.grad is not None)
    assert reached["sa_sdr"] > reached["snr"] + 1000


def test_the_first_mask_of_a_pair_starts_as_the_only_one_does() -> None:
    built = []
    for name in ("gru_mask", "gru_mask_pair"):
        torch.manual_seed(0)
        built.append(models.build(name))
    noisy = speech()
    assert torch.equal(built[0](noisy)["estimate"], built[1](noisy)["estimate"])


@pytest.mark.parametrize("symbols", [11, 41])
def test_a_transcriber_begins_silent(symbols: int) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        log_probs = models.build("crnn", sizes={"symbols": symbols}).eval()(speech())["log_probs"]
    assert log_probs[..., 0].exp().mean() == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("samples", [1, 100, 5000, 56_000])
def test_a_transcribers_frames_are_80_ms(samples: int) -> None:
    outputs = made(MODELS["crnn"])(torch.zeros(2, samples))
    frames = outputs["log_probs"].shape[1]
    assert frames == pytest.approx(samples / 1280, abs=1)
    assert outputs["frame_lengths"].tolist() == [frames, frames]


@pytest.mark.parametrize("name", ["ds_cnn", "ds_cnn_locate"])
@pytest.mark.parametrize("classes", [1, 2, 20, 200])
def test_logits_begin_as_if_one_class_in_so_many_was_there(name: str, classes: int) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        logits = models.build(name, sizes={"classes": classes}).eval()(speech())["logits"]
    assert 0.5 < logits.sigmoid().mean() * (classes + 1) < 2


def test_dropout_changes_training_and_leaves_the_weights_and_the_judging_alone() -> None:
    built = []
    for settings in ({}, {"dropout": 0.5}):
        torch.manual_seed(0)
        built.append(models.build("gru_mask", settings))
    noisy = speech()
    plain, dropped = ([net.train()(noisy)["estimate"] for _ in range(2)] for net in built)
    assert torch.equal(*plain)
    assert not torch.equal(*dropped)
    judged = [net.eval()(noisy)["estimate"] for net in built]
    assert torch.equal(*judged)


def test_a_setting_that_a_model_does_not_have_is_one_line() -> None:
    with pytest.raises(UserError, match=r"unknown setting of gru_mask 'dropot': did you mean 'dropout'\?"):
        models.build("gru_mask", {"dropot": 0.5})
    with pytest.raises(UserError, match=r"model gru_mask.dropout = 2 is not valid: it must be a number from 0 to 0.9"):
        models.build("gru_mask", {"dropout": 2})


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown model 'gru_msk': did you mean 'gru_mask'\?") as caught:
        models.build("gru_msk")
    assert "\n" not in str(caught.value)


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))


def test_a_class_is_registered_in_small_letters_with_its_fields(own_registry: None) -> None:
    @models.model(gives=("estimate",))
    class TwoTapFIR2(nn.Module):
        """Two taps."""

        def forward(self, noisy: torch.Tensor, lengths: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"estimate": noisy}

        def shared_parameters(self) -> list[nn.Parameter]:
            return []

    info = models.get("two_tap_fir2")
    assert (info.fields, info.gives, info.summary) == (("noisy", "lengths"), ("estimate",), "Two taps.")
    assert isinstance(models.build("two_tap_fir2"), TwoTapFIR2)


def test_a_model_without_shared_parameters_or_with_a_taken_name_is_refused(own_registry: None) -> None:
    with pytest.raises(UserError, match=r"model plain: needs a method shared_parameters\(\)"):
        models.model(gives=("estimate",))(type("Plain", (nn.Module,), {"forward": lambda self, noisy: noisy}))
    taken = type("GruMask", (nn.Module,), {"forward": lambda s, x: x, "shared_parameters": lambda s: []})
    with pytest.raises(UserError, match=r"two models are called 'gru_mask'.*harness\.models\.denoisers.*test_conform"):
        models.model(gives=("estimate",))(taken)
