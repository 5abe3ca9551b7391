import numpy as np
import pytest
import torch
import torchaudio

from harness import signal
from harness.errors import UserError
from harness.spectrum import hann, mean_over_frames, mel_filters, spectrum, squared_magnitude, valid_frames

CPU = torch.device("cpu")
SHAPES = [  # FFT size, hop, window, samples
    (512, 256, 512, 2000),
    (512, 256, 512, 512),
    (512, 256, 512, 1),
    (64, 16, 64, 150),
    (64, 7, 30, 150),
    (64, 50, 64, 149),
    (64, 64, 64, 130),
    (63, 20, 41, 150),
    (60, 13, 60, 90),
]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n_fft", "hop", "width", "samples"), SHAPES)
def test_magnitudes_and_their_slopes_are_those_of_torchs_own_transform(n_fft, hop, width, samples):
    clip, weight = noise(2, samples), noise(1, seed=1)
    frame = hann(width, CPU, torch.float64)
    padded = torch.nn.functional.pad(clip, (0, max(0, n_fft - samples))).requires_grad_()
    theirs = torch.stft(padded, n_fft, hop, width, frame, center=True, pad_mode="constant", return_complex=True)
    theirs = theirs.abs().square().mT
    clip.requires_grad_()
    ours = squared_magnitude(spectrum(clip, n_fft, hop, frame))
    torch.testing.assert_close(ours, theirs)
    weight = noise(*ours.shape, seed=1)
    (slope,) = torch.autograd.grad((weight * ours).sum(), clip)
    (expected,) = torch.autograd.grad((weight * theirs).sum(), padded)
    torch.testing.assert_close(slope, expected[:, :samples])


@pytest.mark.parametrize("samples", [1, 600, 3000])
def test_without_a_shorter_window_the_phases_are_torchs_too(samples):
    clip = noise(2, samples)
    torch.testing.assert_close(spectrum(clip).mT, signal.stft(clip))


@pytest.mark.parametrize(("n_fft", "hop", "width"), [(16, 4, 16), (16, 5, 10), (15, 6, 15)])
def test_slopes_of_every_order_are_right(n_fft, hop, width):
    clip, frame = noise(2, 40).requires_grad_(), hann(width, CPU, torch.float64)
    assert torch.autograd.gradcheck(lambda x: torch.view_as_real(spectrum(x, n_fft, hop, frame)), clip)
    assert torch.autograd.gradcheck(lambda x: squared_magnitude(spectrum(x, n_fft, hop, frame)), clip)
    assert torch.autograd.gradgradcheck(lambda x: squared_magnitude(spectrum(x, n_fft, hop, frame)).log1p(), clip)


def test_the_target_builds_no_graph_and_the_estimate_keeps_one_spectrum():
    kept = []
    estimate, clean = noise(2, 4000).requires_grad_(), noise(2, 4000, seed=1)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        ours, theirs = (squared_magnitude(spectrum(x)) for x in (estimate, clean))
    assert ours.requires_grad
    assert not theirs.requires_grad
    assert [tuple(x.shape) for x in kept if x.is_complex()] == [(2, 16, 257)]
    assert all(x.dim() == 1 for x in kept if not x.is_complex())  # the window


def test_hops_longer_than_a_window_and_windows_longer_than_the_transform_are_refused():
    with pytest.raises(UserError, match="hop = 600 must be from 1 to the window's 512 samples"):
        spectrum(noise(1, 2000), hop=600)
    with pytest.raises(UserError, match="at most n_fft = 256"):
        spectrum(noise(1, 2000), 256, 64, hann(512, CPU, torch.float64))


def test_means_leave_out_the_frames_of_the_padding():
    cells = noise(2, 9, 5)
    lengths = torch.tensor([2048, 600])
    valid = signal.frame_counts(lengths)
    assert valid.tolist() == [9, 3]
    expected = torch.stack([cells[0].mean(), cells[1, :3].mean()])
    torch.testing.assert_close(mean_over_frames(cells, lengths), expected)
    torch.testing.assert_close(mean_over_frames(cells, None), cells.mean((1, 2)))
    assert not valid_frames(cells[..., 0], lengths, 512, 256)[1, 3:].any()


@pytest.mark.parametrize(("n_mels", "f_min", "f_max"), [(40, 0.0, 8000.0), (80, 50.0, 7600.0), (8, 1000.0, 2000.0)])
def test_mel_filters_are_torchaudios(n_mels, f_min, f_max):
    ours = mel_filters(n_mels, f_min, f_max, 512, CPU, torch.float64)
    theirs = torchaudio.functional.melscale_fbanks(257, f_min, f_max, n_mels, 16_000, norm=None, mel_scale="htk")
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=2e-5)


def test_constants_are_made_once_for_each_device_and_precision_and_serve_training_after_inference():
    for make in (
        lambda dtype: hann(48, CPU, dtype),
        lambda dtype: mel_filters(9, 0.0, 8000.0, 512, CPU, dtype),
    ):
        with torch.inference_mode():
            first = make(torch.float32)
        assert first is make(torch.float32)
        assert first.dtype == torch.float32
        assert make(torch.float64).dtype == torch.float64
        assert not first.is_inference()
