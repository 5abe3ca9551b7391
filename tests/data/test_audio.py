import numpy as np
import pytest

from harness.data.audio import SAMPLE_RATE, active_level, decode_g722
from tests.real import prompts_folder

HELLO = "en_US_f_Allison/hello-world.g722"


def sine(peak: float, samples: int = 30 * 512) -> np.ndarray:
    return np.round(32768 * peak * np.sin(2 * np.pi * 500 * np.arange(samples) / SAMPLE_RATE)).astype(np.int16)


def test_a_byte_of_g722_is_two_samples_of_16_khz():
    path = prompts_folder() / HELLO
    samples = decode_g722(path)
    assert samples.dtype == np.int16
    assert len(samples) == 2 * path.stat().st_size


def test_a_decoded_prompt_is_speech_at_a_speaking_level():
    samples = decode_g722(prompts_folder() / HELLO)
    assert -35 < active_level(samples) < -10
    power = np.abs(np.fft.rfft(samples / 32768)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    assert power[(hertz > 100) & (hertz < 4000)].sum() > 0.8 * power.sum()


def test_what_was_encoded_comes_back(tmp_path):
    import av

    tone = sine(0.25)
    encoder = av.CodecContext.create("g722", "w")
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    (tmp_path / "tone.g722").write_bytes(b"".join(bytes(packet) for packet in packets))
    decoded = decode_g722(tmp_path / "tone.g722").astype(float)
    # The codec delays by some samples and is lossy: compare at the best shift.
    errors = [np.mean((decoded[shift:][:8000] - tone[:8000]) ** 2) for shift in range(64)]
    assert min(errors) < np.mean(tone.astype(float) ** 2) / 100
    assert active_level(decoded) == pytest.approx(active_level(tone), abs=0.3)


def test_an_empty_file_is_no_samples(tmp_path):
    (tmp_path / "empty.g722").touch()
    assert len(decode_g722(tmp_path / "empty.g722")) == 0


@pytest.mark.parametrize("size", [1, 17, 4000])
def test_bytes_that_are_no_speech_decode_to_as_many_samples(tmp_path, size):
    # G.722 has no header: any byte is valid, so a corrupt file is caught by its checksum and not here.
    (tmp_path / "odd.g722").write_bytes(np.random.default_rng(0).bytes(size))
    assert len(decode_g722(tmp_path / "odd.g722")) == 2 * size


def test_the_level_of_a_sine_is_its_mean_power():
    assert active_level(sine(1 - 1e-4)) == pytest.approx(-3.01, abs=0.01)
    assert active_level(sine(0.1)) == pytest.approx(-23.01, abs=0.01)


def test_pauses_do_not_lower_the_active_level_and_faint_speech_within_40_db_does():
    tone, pause = sine(0.5, 5120), np.zeros(51200, np.int16)
    assert active_level(np.concatenate([tone, pause])) == pytest.approx(active_level(tone), abs=1e-9)
    within = active_level(np.concatenate([tone, sine(0.5 * 10 ** (-39 / 20), 5120)]))
    assert within == pytest.approx(active_level(tone) - 3.01, abs=0.01)
    beyond = active_level(np.concatenate([tone, sine(0.5 * 10 ** (-41 / 20), 5120)]))
    assert beyond == pytest.approx(active_level(tone), abs=1e-9)


@pytest.mark.parametrize("samples", [0, 1, 511, 512, 5000])
def test_silence_of_any_length_is_minus_infinity(samples):
    assert active_level(np.zeros(samples, np.int16)) == -np.inf
