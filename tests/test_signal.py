import pytest
import torch

from harness import signal
from harness.errors import UserError

from .losses.signals import CLEAN


def test_the_spectrum_is_the_discrete_transform_of_windowed_frames():
    clip = CLEAN[0, :2000]
    frame = torch.arange(512, dtype=torch.float64)
    window = torch.sin(torch.pi * frame / 512)  # the square root of a periodic Hann window
    turns = torch.exp(-2j * torch.pi * 37 * frame / 512)
    expected = (clip[768 - 256 : 768 + 256] * window * turns).sum()
    torch.testing.assert_close(signal.stft(clip)[37, 3], expected)
    padded = torch.cat([torch.zeros(256, dtype=torch.float64), clip])[:512]
    torch.testing.assert_close(signal.stft(clip)[37, 0], (padded * window * turns).sum())


@pytest.mark.parametrize("samples", [1, 100, 511, 512, 513, 767, 768, 1000, 48000])
def test_frame_counts_are_those_of_the_spectrum(samples):
    frames = signal.stft(torch.ones(samples)).shape[-1]
    assert signal.frame_counts(torch.tensor([samples])).item() == frames
    assert samples != 48000 or frames == 188


@pytest.mark.parametrize("samples", [1, 100, 512, 1000, 1279, 4096])
def test_the_inverse_gives_the_signal_back(samples):
    clip = torch.randn(2, 3, samples, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(signal.istft(signal.stft(clip), samples), clip)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("samples", [1, 255, 512, 1279, 16_000])
def test_the_inverse_and_its_slope_are_torchs_to_the_last_bit(samples, dtype):
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(3, samples, generator=generator, dtype=dtype)
    altered = signal.stft(clip) * torch.rand(257, 1, generator=generator, dtype=dtype)
    ours, theirs = (altered.clone().requires_grad_() for _ in range(2))
    window = signal.window(512, clip.device, dtype)
    pair = signal.istft(ours, samples), torch.istft(theirs, 512, 256, window=window, length=samples)
    assert torch.equal(*pair)
    for wave in pair:
        (wave * clip).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_an_altered_spectrum_stays_small_behind_the_last_frame_of_a_clip_padded_to_the_hop():
    clip = torch.randn(1, 1279, generator=torch.Generator().manual_seed(0))
    padded = signal.pad_to_hop(clip)
    assert padded.shape[-1] == 1280
    masked = signal.stft(padded) * torch.rand(257, 1, generator=torch.Generator().manual_seed(1))
    assert signal.istft(masked, 1279).abs().max() < 2 * clip.abs().max()


@pytest.mark.parametrize("length", [1, 300, 512, 700, 1024, 1500])
def test_a_clip_in_a_padded_batch_has_the_spectrum_of_the_clip_alone(length):
    clip = torch.randn(1, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = torch.nn.functional.pad(clip, (0, 2000 - length), value=9.0)
    lengths = torch.tensor([length])
    spectrum = signal.stft(signal.mask_samples(batch, lengths))
    valid = signal.frame_mask(lengths, spectrum.shape[-1])[0]
    torch.testing.assert_close(spectrum[..., valid], signal.stft(clip))


def test_frames_further_apart_than_a_window_are_refused():
    with pytest.raises(UserError, match="hop = 600 must be from 1 to n_fft = 512"):
        signal.stft(torch.ones(2000), hop=600)


def test_frames_whose_windows_do_not_add_up_are_not_inverted():
    with pytest.raises(UserError, match="hop = 300 must be from 1 to n_fft / 2 = 256"):
        signal.istft(signal.stft(torch.ones(2000), hop=300), 2000, hop=300)


def test_a_window_first_made_for_inference_serves_training_too():
    signal.window.cache_clear()
    with torch.inference_mode():
        signal.stft(torch.ones(600))
    clip = torch.ones(600, requires_grad=True)
    signal.magnitude(signal.stft(clip)).sum().backward()
    assert clip.grad.isfinite().all()


def test_the_window_is_made_once():
    signal.window.cache_clear()
    assert signal.window(512, torch.device("cpu"), torch.float32) is signal.window(
        512, torch.device("cpu"), torch.float32
    )
