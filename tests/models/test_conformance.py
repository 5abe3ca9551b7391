"""What every registered model must do. A new model is tested as soon as it is registered."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness import losses, models, tasks
from harness.errors import UserError
from harness.models import registry
from harness.tasks.fields import complete
from tests.real import mixtures

MODELS = models.all_models()
SIZES = {  # parameters; a new model states its own
    "gru_mask": (250_000, 270_000),
    "gru_mask_pair": (290_000, 320_000),
    "conv_tasnet": (170_000, 190_000),
    "conv_tasnet_pair": (180_000, 200_000),
}
SAMPLES = (1, 2, 100, 255, 256, 257, 511, 512, 513, 5000, 16_000)


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> nn.Module:
    torch.manual_seed(0)
    return models.build(name).eval()


def speech(items: int = 3, samples: int = 16_000) -> torch.Tensor:
    return torch.stack([torch.from_numpy(noisy[:samples]) for noisy, _ in mixtures("matched", items)])


def inputs() -> dict[str, torch.Tensor]:
    """Waveforms that break models, by name."""
    noisy = speech()
    click = torch.zeros(3, 8000)
    click[:, 4000] = 1.0
    return {
        "real mixtures": noisy,
        "silence": torch.zeros(2, 8000),
        "clipped": (1000 * noisy).clamp(-1, 1),
        "far over full scale": 1e4 * noisy,
        "faint": 1e-6 * noisy,
        "fainter than float32 squares": 1e-25 * noisy,
        "an offset": torch.full((2, 8000), 0.5),
        "a click": click,
        "one item": noisy[:1],
        **{f"{n} samples": noisy[:, 5000 : 5000 + n] for n in SAMPLES},
    }


@pytest.mark.parametrize("case", inputs())
def test_the_output_is_finite_and_as_long_as_the_input(model: nn.Module, case: str) -> None:
    noisy = inputs()[case]
    with torch.no_grad():
        outputs = model(noisy)
    assert outputs["estimate"].shape == noisy.shape
    for output in outputs.values():
        assert output.shape[-1] == noisy.shape[-1]
        assert output.dtype == noisy.dtype
        assert output.isfinite().all()


@pytest.mark.parametrize("case", inputs())
def test_gradients_are_finite_for_every_input_and_reach_every_parameter(model: nn.Module, case: str) -> None:
    noisy = inputs()[case].clone().requires_grad_()
    sum((output - 0.01).square().sum() for output in model.train()(noisy).values()).backward()
    assert noisy.grad is not None
    assert noisy.grad.isfinite().all()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert case != "real mixtures" or parameter.grad.any()


@pytest.mark.parametrize("samples", [100, 5001, 16_000])
def test_items_of_a_batch_do_not_know_each_other(model: nn.Module, samples: int) -> None:
    noisy = torch.cat([speech(3, samples), torch.zeros(1, samples)])
    with torch.no_grad():
        together = model(noisy)["estimate"]
        alone = torch.cat([model(item[None])["estimate"] for item in noisy])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("samples", [5120 + extra for extra in (0, 1, 60, 128, 200, 255)])
def test_the_end_of_a_clip_is_no_louder_than_the_rest_whatever_the_weights(model: nn.Module, samples: int) -> None:
    # Behind the last frame's centre an altered spectrum is divided by a window that is almost zero.
    noisy = speech(3, samples)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        estimate = model(noisy)["estimate"]
    # Beside its own middle, and not its input: a model may amplify.
    assert estimate[:, -256:].abs().max() < 3 * estimate[:, 256:-256].abs().max()


def test_silence_in_is_silence_out(model: nn.Module) -> None:
    with torch.no_grad():
        assert model(torch.zeros(1, 4000))["estimate"].abs().max() < 1e-6


def test_it_gives_what_it_says_and_takes_what_a_task_gives(name: str, model: nn.Module) -> None:
    info = models.get(name)
    given = set(tasks.get("denoise").given)
    assert set(info.fields) <= given
    assert info.summary
    assert set(model(*[speech() for _ in info.fields])) == set(info.gives)


def test_shared_parameters_are_parameters_of_the_model_that_every_output_depends_on(model: nn.Module) -> None:
    own = {id(parameter) for parameter in model.parameters()}
    shared = model.shared_parameters()
    assert shared
    assert {id(parameter) for parameter in shared} <= own
    outputs = model(speech(1))
    for output in outputs.values():
        gradients = torch.autograd.grad(output.square().sum(), shared, retain_graph=True)
        assert all(gradient.any() for gradient in gradients)


def test_a_checkpoint_is_read_without_pickle_and_gives_the_same_output(name: str, model: nn.Module, tmp_path) -> None:
    torch.save(model.state_dict(), tmp_path / "model.pt")
    torch.manual_seed(99)
    other = models.build(name).eval()
    noisy = speech()
    with torch.no_grad():
        assert not torch.equal(other(noisy)["estimate"], model(noisy)["estimate"])
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert torch.equal(other(noisy)["estimate"], model(noisy)["estimate"])


def test_equal_seeds_build_equal_weights_and_other_seeds_others(name: str) -> None:
    built = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        built.append(nn.utils.parameters_to_vector(models.build(name).parameters()))
    assert torch.equal(built[0], built[1])
    assert not torch.equal(built[0], built[2])


def test_it_has_as_many_parameters_as_it_says(name: str, model: nn.Module) -> None:
    low, high = SIZES[name]
    assert low <= sum(parameter.numel() for parameter in model.parameters()) <= high


def test_it_does_not_change_its_input_and_is_deterministic(model: nn.Module) -> None:
    noisy = speech()
    before = noisy.clone()
    with torch.no_grad():
        assert torch.equal(model(noisy)["estimate"], model(noisy)["estimate"])
    assert torch.equal(noisy, before)


def test_it_trains_after_judging_in_inference_mode(model: nn.Module) -> None:
    # What is kept between calls (windows) must not be a tensor of inference mode.
    with torch.inference_mode():
        model(speech(1, 3333))
    model.train()(speech(1, 3333))["estimate"].sum().backward()


def test_double_precision_agrees_with_single(name: str, model: nn.Module) -> None:
    with torch.no_grad():
        single = model(speech())["estimate"]
        double = model.double()(speech().double())["estimate"]
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-5)


def test_bfloat16_autocast_stays_close(model: nn.Module) -> None:
    with torch.no_grad():
        exact = model(speech())["estimate"]
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(speech())["estimate"]
    assert rough.isfinite().all()
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


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
