import pytest
import torch
import torchaudio

from harness.losses import log_mel, mel_l1

from .signals import CLEAN, ESTIMATE, SILENCE, altered, value_and_gradient


def bands(waveform, power, n_mels=40, f_min=0.0, f_max=8000.0):
    """Mel bands by torchaudio."""
    settings = {"n_mels": n_mels, "f_min": f_min, "f_max": f_max, "power": power, "pad_mode": "constant"}
    return torchaudio.transforms.MelSpectrogram(16_000, 512, hop_length=256, **settings).double()(waveform)


def test_three_seconds_give_the_golden_values():
    assert log_mel(ESTIMATE, CLEAN).item() == pytest.approx(4.939538, rel=1e-5)
    assert mel_l1(ESTIMATE, CLEAN).item() == pytest.approx(3.964698, rel=1e-5)


@pytest.mark.parametrize("settings", [{}, {"n_mels": 20, "f_min": 100.0, "f_max": 7000.0}])
def test_torchaudio_agrees(settings):
    e, s = (bands(x, 2, **settings) for x in (ESTIMATE, CLEAN))
    expected = ((e + 1e-5).log() - (s + 1e-5).log()).abs().mean().item()
    assert log_mel(ESTIMATE, CLEAN, **settings).item() == pytest.approx(expected, rel=1e-4)
    e, s = (bands(x, 1, **settings) for x in (ESTIMATE, CLEAN))
    assert mel_l1(ESTIMATE, CLEAN, **settings).item() == pytest.approx((e - s).abs().mean().item(), rel=1e-4)
    compressed = (e**0.3 - s**0.3).abs().mean().item()
    assert mel_l1(ESTIMATE, CLEAN, c=0.3, **settings).item() == pytest.approx(
        compressed, rel=1e-2
    )  # silence is floored


# Values of log_mel of the clean signal altered in known ways.
FORGIVEN = {
    "perfect": 0,
    "hilbert": 0.037,
    "inverted": 0,
    "quieter": 3.479,
    "offset": 0.164,
    "5 late": 0.015,
    "5 early": 0.019,
    "160 late": 0.390,
    "8 taps": 0.998,
    "128 taps": 1.573,
    "512 taps": 3.027,
    "noise": 6.350,
    "mixture": 5.217,
    "zeros": 8.656,
}
ALTERED = altered()


@pytest.mark.parametrize("name", FORGIVEN)
def test_what_is_forgiven_is_known(name):
    assert log_mel(ALTERED[name], CLEAN).item() == pytest.approx(FORGIVEN[name], rel=0.02, abs=6e-4)


def test_mel_l1_follows_level_by_its_compression():
    for c in (0.3, 1.0):
        value = mel_l1(ESTIMATE, CLEAN, c=c).item()
        assert mel_l1(10 * ESTIMATE, 10 * CLEAN, c=c).item() == pytest.approx(10**c * value, rel=0.02)


@pytest.mark.parametrize("loss", [log_mel, mel_l1])
def test_more_bands_than_bins_leave_some_empty_and_all_finite(loss):
    settings = {"c": 0.3} if loss is mel_l1 else {}
    for estimate, clean in ((ESTIMATE, CLEAN), (SILENCE, CLEAN), (ESTIMATE, SILENCE), (SILENCE, SILENCE)):
        value, slope = value_and_gradient(loss, estimate, clean, n_mels=128, **settings)
        assert torch.tensor([value, slope]).isfinite().all()
