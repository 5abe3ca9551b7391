import pytest
import torch
from torch.nn import functional

from harness.losses import complex_compressed, mse, multi_res_stft, parse, spectral_mag, spectral_poisson

from .signals import CLEAN, ESTIMATE, NOISY, SILENCE, altered, corner, value_and_gradient

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))


def magnitudes(waveform, n_fft=512, hop=256, window=None):
    """Plain magnitudes by torch's own transform."""
    window = torch.hann_window(n_fft, dtype=waveform.dtype).sqrt() if window is None else window
    return torch.stft(
        waveform, n_fft, hop, len(window), window, center=True, pad_mode="constant", return_complex=True
    ).abs()


@pytest.mark.parametrize(
    ("loss", "settings", "expected"),
    [
        (spectral_mag, {"p": 1}, 0.79594555),
        (spectral_mag, {"p": 2}, 0.95255135),
        (complex_compressed, {"a": 0.0}, 0.38813408),
        (complex_compressed, {"a": 1.0}, 0.89833391),
        (complex_compressed, {}, 0.54119403),
        (complex_compressed, {"c": 1.0, "a": 0.0}, 0.952551),
        (complex_compressed, {"c": 1.0, "a": 1.0}, 1.124928),
        (complex_compressed, {"c": 1.0}, 1.004264),
        (spectral_poisson, {}, 0.619445),
        (spectral_poisson, {"power": 2}, 1.279536),
        (multi_res_stft, {}, 4.026286),
        (multi_res_stft, {"resolutions": RESOLUTIONS[:1], "w_mag": 0.0}, 0.454402),
        (multi_res_stft, {"resolutions": RESOLUTIONS[:1], "w_sc": 0.0}, 3.588049),
        (multi_res_stft, {"resolutions": RESOLUTIONS[1:2], "w_mag": 0.0}, 0.460772),
        (multi_res_stft, {"resolutions": RESOLUTIONS[1:2], "w_sc": 0.0}, 3.736500),
        (multi_res_stft, {"resolutions": RESOLUTIONS[2:], "w_mag": 0.0}, 0.447704),
        (multi_res_stft, {"resolutions": RESOLUTIONS[2:], "w_sc": 0.0}, 3.391432),
    ],
)
def test_three_seconds_give_the_golden_values(loss, settings, expected):
    assert loss(ESTIMATE, CLEAN, **settings).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("case", "value", "gradient"),
    [("silent estimate", 0.3707, 402), ("silent target", 0.9673, 0.045), ("perfect", 0, 0)],
)
def test_corner_cases_of_complex_compressed_have_the_known_value_and_gradient(case, value, gradient):
    assert value_and_gradient(complex_compressed, *corner(case)) == (
        pytest.approx(value, rel=1e-3, abs=1e-12),
        pytest.approx(gradient, rel=0.02, abs=1e-6),
    )


def test_poisson_is_torchs_without_the_part_that_no_estimate_changes():
    p, q = magnitudes(NOISY), magnitudes(CLEAN + 1e-3)
    theirs = functional.poisson_nll_loss(p, q, log_input=False, eps=1e-8)
    least = functional.poisson_nll_loss(q, q, log_input=False, eps=1e-8)
    torch.testing.assert_close(spectral_poisson(NOISY, CLEAN + 1e-3)[0], theirs - least, rtol=1e-5, atol=0)


def test_multi_res_stft_is_its_formula_on_torchs_own_spectra():
    estimate, clean = torch.stack([ESTIMATE[0], 0.5 * NOISY[0]]), torch.stack([CLEAN[0], CLEAN[0].flip(-1)])
    total = 0
    for n_fft, hop, width in RESOLUTIONS:
        window = torch.hann_window(width, dtype=torch.float64)
        e, s = (magnitudes(x, n_fft, hop, window).square().clamp(min=1e-7).sqrt() for x in (estimate, clean))
        total += (s - e).norm(dim=(1, 2)) / s.norm(dim=(1, 2)) + (s.log() - e.log()).abs().mean((1, 2))
    torch.testing.assert_close(multi_res_stft(estimate, clean), total / 3)


def test_complex_compression_without_compression_is_the_error_of_the_complex_spectrum():
    spectra = [
        torch.stft(x, 512, 256, window=torch.hann_window(512).double().sqrt(), pad_mode="constant", return_complex=True)
        for x in (ESTIMATE, CLEAN)
    ]
    expected = (spectra[0] - spectra[1]).abs().square().mean()
    torch.testing.assert_close(complex_compressed(ESTIMATE, CLEAN, c=1.0, a=1.0)[0], expected)
    # By Parseval, up to the two halves of frames that lie outside of the clip: the squared error of the waveform.
    assert expected == pytest.approx(256 * mse(ESTIMATE, CLEAN).item(), rel=0.02)


@pytest.mark.parametrize(
    ("loss", "settings"),
    [(spectral_mag, {"p": 1}), (spectral_mag, {"p": 2}), (spectral_poisson, {}), (multi_res_stft, {})],
)
def test_phase_blind_losses_are_blind_to_sign(loss, settings):
    assert loss(-CLEAN, CLEAN, **settings).item() == pytest.approx(0, abs=1e-12)
    assert complex_compressed(-CLEAN, CLEAN, a=0.0).item() == pytest.approx(0, abs=1e-12)
    assert complex_compressed(-CLEAN, CLEAN).item() > 0.4


@pytest.mark.parametrize(
    ("loss", "settings", "degree"),
    [
        (spectral_mag, {"p": 1}, 1),
        (spectral_mag, {"p": 2}, 2),
        (spectral_poisson, {}, 1),
        (spectral_poisson, {"power": 2}, 2),
        (complex_compressed, {}, 0.6),
        (complex_compressed, {"c": 1.0}, 2),
        (multi_res_stft, {}, 0),
    ],
)
def test_level_counts_to_the_known_degree(loss, settings, degree):
    clean = CLEAN + 0.01 * (NOISY - CLEAN)  # no silence, where the floors are
    value = loss(ESTIMATE, clean, **settings).item()
    assert loss(10 * ESTIMATE, 10 * clean, **settings).item() == pytest.approx(10**degree * value, rel=1e-3)


# Values of the clean signal altered in known ways: multi_res_stft and complex_compressed.
FORGIVEN = {
    "perfect": (0, 0),
    "hilbert": (0.062, 0.231),
    "inverted": (0, 0.457),
    "quieter": (2.659, 0.095),
    "offset": (0.492, 0.030),
    "5 late": (0.052, 0.195),
    "5 early": (0.066, 0.194),
    "160 late": (0.613, 0.235),
    "8 taps": (0.983, 0.092),
    "128 taps": (2.098, 0.254),
    "512 taps": (6.225, 0.610),
    "noise": (5.562, 1.064),
    "mixture": (4.278, 0.631),
    "zeros": (5.280, 0.3707),  # .381 without the floor: the clip has silence
}
ALTERED = altered()


@pytest.mark.parametrize("name", FORGIVEN)
def test_what_is_forgiven_is_known(name):
    values = [loss(ALTERED[name], CLEAN).item() for loss in (multi_res_stft, complex_compressed)]
    assert values == pytest.approx(FORGIVEN[name], rel=0.02, abs=1e-3)


def test_an_item_of_multi_res_stft_does_not_know_how_loud_the_others_are():
    together = multi_res_stft(torch.cat([ESTIMATE, 100 * NOISY]), torch.cat([CLEAN, 100 * CLEAN]))
    torch.testing.assert_close(together[:1], multi_res_stft(ESTIMATE, CLEAN))


def test_multi_res_stft_has_a_slope_where_the_target_is_silent_and_none_where_the_estimate_is():
    value, slope = value_and_gradient(multi_res_stft, ESTIMATE, SILENCE)
    assert 0 < slope < 1e6
    assert 0 < value < 1e6
    assert value_and_gradient(multi_res_stft, SILENCE, CLEAN)[1] == 0


def test_slopes_of_multi_res_stft_are_right_by_both_signals_and_of_second_order():
    generator = torch.Generator().manual_seed(0)
    signals = [torch.randn(2, 90, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    resolutions = ((64, 16, 48), (32, 10, 32))
    assert torch.autograd.gradcheck(lambda e, s: multi_res_stft(e, s, resolutions=resolutions), signals)
    assert torch.autograd.gradgradcheck(lambda e: multi_res_stft(e, signals[1].detach()), signals[0], fast_mode=True)


def test_resolutions_are_written_in_an_expression():
    term = parse("0.5*multi_res_stft(resolutions=[[512, 128, 512], [256, 64, 200]], w_sc=0.5)").terms[0]
    assert term.settings["resolutions"] == ((512, 128, 512), (256, 64, 200))
    assert term.expression == "0.5*multi_res_stft(resolutions=((512, 128, 512), (256, 64, 200)), w_sc=0.5)"
    assert parse("multi_res_stft(resolutions=((512, 128, 512),))").expression.endswith("((512, 128, 512),))")
    assert parse(f"multi_res_stft(resolutions={RESOLUTIONS})").expression == "multi_res_stft"
