from typing import Annotated, Literal

import pytest
import torch
from torch import nn

import harness.losses
from harness.errors import UserError
from harness.losses import Range, all_losses, build, get, loss, registry


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Losses registered in a test are gone after it."""
    monkeypatch.setattr(registry, "_LOSSES", dict(registry._LOSSES))
    monkeypatch.setattr(registry, "_ALIASES", dict(registry._ALIASES))


def weighted_error(estimate, clean, lengths=None, *, power: Annotated[float, Range(1, 4)] = 2.0, root: bool = False):
    """Mean of a power of the error. Returns (batch,)."""
    return (estimate - clean).abs().pow(power).mean(-1)


def test_the_signature_says_fields_optional_fields_and_settings():
    loss(weighted_error)
    info = get("weighted_error")
    assert info.fields == ("estimate", "clean")
    assert info.optional_fields == ("lengths",)
    assert info.settings["power"].default == 2.0
    assert info.settings["power"].range == Range(1, 4)
    assert info.settings["root"].kind == "bool"
    assert info.sizes == ()
    assert info.summary == "Mean of a power of the error. Returns (batch,)."
    assert info.family == "test_registry"
    assert info.minimum() is None


def test_a_plug_in_file_registers_its_losses_when_it_is_run(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from __future__ import annotations\n"
        "from typing import Literal\n"
        "from torch import nn\n"
        "from harness.losses import loss\n"
        "@loss(minimum=0.0, unit='bel', aliases=('own',))\n"
        "def my_loss(estimate, clean, *, p: Literal[1, 2] = 1):\n"
        "    'Mine.'\n"
        "    return (estimate - clean).abs().pow(p).mean(-1)\n"
        "@loss\n"
        "class LearnedScale(nn.Module):\n"
        "    def __init__(self, *, dim: int):\n"
        "        super().__init__()\n"
        "        self.scale = nn.Parameter(__import__('torch').ones(dim))\n"
        "    def forward(self, embedding):\n"
        "        return (self.scale * embedding).sum(-1)\n"
    )
    exec(compile(plugin.read_text(), str(plugin), "exec"), {"__name__": "mine"})
    assert harness.losses.my_loss is harness.losses.own
    value = build("own", {"p": 2})({"estimate": torch.full((3, 4), 2.0), "clean": torch.zeros(3, 4), "noisy": None})
    assert value.tolist() == [4, 4, 4]
    assert get("learned_scale").sizes == ("dim",)
    assert len(list(build("learned_scale", sizes={"dim": 4}).parameters())) == 1


def test_two_losses_of_one_name_are_refused_by_both_their_modules():
    def si_sdr(estimate, clean):
        """Another."""

    with pytest.raises(UserError, match=r"'si_sdr'.*harness\.losses\.distortion.*test_registry"):
        loss(si_sdr)
    assert get("si_sdr").family == "distortion"

    def other(estimate, clean):
        """Another."""

    with pytest.raises(UserError, match=r"'sdr'.*harness\.losses\.distortion"):
        loss(aliases=("sdr",))(other)
    assert "other" not in all_losses()


def test_a_loss_can_be_written_again_in_its_own_module():
    loss(weighted_error)
    assert loss(version=2)(weighted_error) is get("weighted_error").function
    assert get("weighted_error").version == 2


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(
        UserError, match=r"unknown loss 'si_sdrr': did you mean 'si_sdr'\? See all with: harness losses"
    ):
        get("si_sdrr")
    with pytest.raises(ImportError):
        from harness.losses import no_such_loss  # noqa: F401


def test_an_unknown_setting_names_the_nearest():
    with pytest.raises(UserError, match="unknown setting of si_sdr 'maxdb': did you mean 'max_db'"):
        build("si_sdr", {"maxdb": 20})


def test_a_bad_setting_names_itself_its_value_and_its_range():
    with pytest.raises(UserError, match=r"^si_sdr\.max_db = 60 is not valid: it must be a number from 10 to 50$"):
        build("si_sdr", {"max_db": 60})


def test_settings_come_out_in_their_own_type():
    settings = get("si_sdr").resolve({"max_db": 20})
    assert settings == {"zero_mean": True, "max_db": 20.0, "eps": 1e-10}
    assert isinstance(settings["max_db"], float)
    assert isinstance(get("spectral_mag").resolve({"hop": 128.0})["hop"], int)
    for name, value in {"hop": 100.5, "p": True, "n_fft": "512"}.items():
        with pytest.raises(UserError, match=f"spectral_mag.{name}"):
            get("spectral_mag").resolve({name: value})
    with pytest.raises(UserError, match=r"snr\.zero_mean = 1 is not valid: it must be True or False"):
        get("snr").resolve({"zero_mean": 1})


def test_the_minimum_follows_the_settings():
    assert get("si_sdr").minimum() == -30
    assert get("si_sdr").minimum({"max_db": 20}) == -20
    assert build("log_mse", {"eps": 1e-8}).minimum == pytest.approx(-80)


def test_missing_fields_and_sizes_are_named():
    with pytest.raises(UserError, match="loss mse needs the field clean; given: estimate"):
        build("mse")({"estimate": torch.ones(1, 2)})
    with pytest.raises(UserError, match="loss center needs the sizes classes, dim; missing: dim"):
        build("center", sizes={"classes": 3})


def test_a_module_without_settings_needs_no_constructor():
    @loss
    class PlainError(nn.Module):
        """Mean error."""

        def forward(self, estimate, clean):
            return (estimate - clean).mean(-1)

    assert get("plain_error").settings == {}
    assert build("plain_error")({"estimate": torch.ones(2, 3), "clean": torch.zeros(2, 3)}).tolist() == [1, 1]


def undefaulted(estimate, *, power: Annotated[float, Range(1, 4)]): ...
def unranged(estimate, *, power: float = 2.0): ...
def outside(estimate, *, power: Annotated[float, Range(1, 4)] = 5.0): ...
def positional(estimate, power=2.0): ...
def variadic(*signals): ...
def choosing(estimate, *, p: Literal[1, 2] = 3): ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (undefaulted, "loss undefaulted: the setting power needs a default"),
        (unranged, r"unranged\.power: annotate a setting as Annotated"),
        (outside, r"outside\.power = 5\.0 is not valid: it must be a number from 1 to 4"),
        (positional, r"loss positional: power=2\.0 is neither a field"),
        (variadic, r"loss variadic: \*signals is neither a field"),
        (choosing, r"choosing\.p = 3 is not valid: it must be one of 1, 2"),
    ],
)
def test_a_signature_that_says_too_little_is_refused(function, message):
    with pytest.raises(UserError, match=message):
        loss(function)
    assert function.__name__ not in all_losses()


@pytest.mark.parametrize("arguments", [(2, 1), (1, 1), (0, 1, True)])
def test_a_range_is_not_empty_and_positive_if_logarithmic(arguments):
    with pytest.raises(UserError, match="needs low < high, and low > 0 for log"):
        Range(*arguments)


def test_losses_run_in_float32_inside_autocast_and_keep_float64():
    seen = []

    def spy(estimate, clean):
        """Look at the precision."""
        seen.append((estimate.dtype, (estimate @ clean.T).dtype))
        return (estimate - clean).mean(-1)

    watched = loss(spy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        watched(torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(2, 3))
        watched(torch.ones(2, 3), clean=torch.ones(2, 3))
        watched(torch.ones(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64))
    assert seen == [(torch.float32, torch.float32)] * 2 + [(torch.float64, torch.float64)]


def test_the_gradient_comes_back_in_half_precision():
    estimate = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    harness.losses.mse(estimate, torch.zeros(2, 3)).sum().backward()
    assert estimate.grad.dtype == torch.bfloat16


def test_a_module_follows_its_mode_and_device_like_any_other():
    assert isinstance(build("center", sizes={"classes": 2, "dim": 2}), nn.Module)
    assert build("center", sizes={"classes": 2, "dim": 2}).double().compute.centers.dtype == torch.float64
