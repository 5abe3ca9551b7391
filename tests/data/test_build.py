"""Recordings as users have them: of every rate, depth, container and state."""

from __future__ import annotations

import io
import itertools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from harness.data import audio, build, corpora
from harness.data.bank import Bank, open_bank
from harness.errors import UserError
from tests.data import layouts
from tests.data.layouts import write

SPEECH = next(layouts.speech(1.6))


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with layouts.kept_apart(tmp_path_factory.mktemp("audio")):
        yield


def decoded(file: Path) -> tuple[np.ndarray, float]:
    blocks: list[np.ndarray] = []
    clipped = audio.decode(file, blocks.append)
    return np.concatenate([np.zeros(0, np.int16), *blocks]), clipped


KINDS = {  # name, sampling rate, subtype, channels
    "8 bits": ("a.wav", 16_000, "PCM_U8", 1),
    "24 bits": ("a.wav", 16_000, "PCM_24", 1),
    "float": ("a.wav", 16_000, "FLOAT", 1),
    "stereo": ("a.wav", 16_000, "PCM_16", 2),
    "8 kHz": ("a.wav", 8_000, "PCM_16", 1),
    "44.1 kHz": ("a.flac", 44_100, "PCM_24", 1),
    "48 kHz": ("a.wav", 48_000, "PCM_16", 1),
    "an odd rate": ("a.wav", 11_127, "PCM_16", 1),
    "vorbis": ("a.ogg", 16_000, "VORBIS", 1),
    "mp3": ("a.mp3", 16_000, "MPEG_LAYER_III", 1),
    "aiff": ("a.aiff", 22_050, "PCM_16", 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_recording_is_its_speech_comes_to_16_khz_mono(kind, tmp_path):
    name, rate, subtype, channels = KINDS[kind]
    samples, clipped = decoded(write(tmp_path / name, 0.5 * SPEECH, rate, subtype, channels))
    assert clipped == 0
    assert abs(len(samples) - len(SPEECH)) <= (2500 if kind == "mp3" else 2)
    # What both hold, below 3.5 kHz, is the same; MP3 comes late.
    spectra = [np.abs(np.fft.rfft(x, 1 << 16))[:14_000] for x in (samples / 32768, 0.5 * SPEECH)]
    assert np.corrcoef(spectra)[0, 1] > (0.95 if kind in ("8 bits", "mp3", "vorbis") else 0.999)


USUAL = (8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 37_800, 44_056, 44_100, 47_952, 48_000, 50_000, 88_200, 96_000)


@pytest.mark.parametrize("rate", [*USUAL, 176_400, 192_000, 352_800, 384_000, 768_000, 199_999])
def test_every_usual_rate_is_read(rate, tmp_path):
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    soundfile.write(tmp_path / "a.wav", tone, rate)
    samples, _ = decoded(tmp_path / "a.wav")
    assert abs(len(samples) - 16_000) <= 1
    assert np.abs(np.fft.rfft(samples)).argmax() == pytest.approx(440, abs=1)


@pytest.mark.parametrize("rate", [767_999, 200_003, 999, 768_001])
def test_a_rate_whose_filter_would_fill_the_memory_is_a_damaged_header(rate, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(48_000), rate)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"^unreadable: its header tells a sampling rate of {rate:,} Hz$"):
        decoded(tmp_path / "a.wav")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # bytes


def test_ffmpeg_reads_what_libsndfile_does_not(tmp_path):
    import av

    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(SPEECH[None].copy(), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    samples, _ = decoded(tmp_path / "a.m4a")
    assert abs(len(samples) - len(SPEECH)) < 4096
    power = [np.mean(np.square(x, dtype=float)) for x in (samples / 32768, SPEECH)]
    assert power[0] == pytest.approx(power[1], rel=0.1)


def test_a_playlist_opens_nothing_beyond_this_machine(tmp_path):
    (tmp_path / "a.wav").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(ValueError, match="unreadable"):
        decoded(tmp_path / "a.wav")


@settings(max_examples=15)
@given(
    rate=st.sampled_from([8000, 11_127, 22_050, 44_100, 48_000, 16_001]),
    cuts=st.lists(st.integers(0, 6000), max_size=5),
    samples=st.integers(0, 6000),
)
def test_blocks_come_to_16_khz_as_the_whole_does(rate, cuts, samples):
    wave = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    places = sorted({0, samples, *(min(cut, samples) for cut in cuts)})
    blocks = [wave[a:b] for a, b in itertools.pairwise(places)]
    together = np.concatenate([np.zeros(0, np.float32), *audio.resampled(iter(blocks), rate)])
    divisor = np.gcd(rate, 16_000)
    expected = resample_poly(wave, 16_000 // divisor, rate // divisor) if samples else together
    assert together.shape == expected.shape
    np.testing.assert_allclose(together, expected, atol=1e-4)


def good(container: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, SPEECH, 16_000, format=container)
    return file.getvalue()


@settings(max_examples=40)
@given(
    container=st.sampled_from(["WAV", "FLAC", "OGG"]),
    where=st.floats(0, 1),
    junk=st.binary(max_size=40),
    keep=st.floats(0, 1),
    suffix=st.sampled_from([".wav", ".mp3", ".flac", ".xyz", ""]),
)
def test_a_damaged_file_is_decoded_or_refused_in_one_line_and_never_a_crash(
    container, where, junk, keep, suffix, tmp_path_factory
):
    content = bytearray(good(container))
    content[(place := int(where * len(content))) : place + len(junk)] = junk
    file = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    file.write_bytes(content[: int(keep * len(content))])
    reason = ""
    try:
        samples, clipped = decoded(file)
    except ValueError as error:
        reason = str(error)
    if reason:
        assert reason.startswith(("unreadable: ", "empty"))
        assert len(reason.splitlines()) == 1
    else:
        assert samples.dtype == np.int16
        assert 0 <= clipped <= 1


def test_a_file_in_which_no_sampling_rate_is_found_is_unreadable(tmp_path):
    for suffix in (".wav", ".flac", ""):
        file = tmp_path / f"headless{suffix}"
        file.write_bytes(b"\0" + good("WAV")[1:])
        with pytest.raises(ValueError, match=r"^unreadable: "):
            decoded(file)


def test_clipped_samples_are_counted_where_they_are_held_at_full_scale(tmp_path):
    wave = np.zeros(1000)
    wave[100:110], wave[200:202], wave[300:303] = 1.0, 1.0, -1.0
    assert decoded(write(tmp_path / "a.wav", wave))[1] == pytest.approx(13 / 1000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of every kind of fault, among twelve good ones."""
    root = tmp_path_factory.mktemp("folder")
    layouts.pairs(root)

    def both(name: str, clean: np.ndarray, noisy: np.ndarray | None = None) -> None:
        write(root / "clean" / "s1" / f"{name}.wav", clean)
        write(root / "noisy" / "s1" / f"{name}.wav", clean + 0.01 if noisy is None else noisy)

    clips = layouts.speech(1.7)
    both("silent", np.zeros(16_000))
    both("short", SPEECH[:800])
    both("clipped", np.clip(40 * next(clips), -1, 1))
    both("longer", next(clips), next(clips)[:20_000])
    both("unread", next(clips))
    (root / "noisy" / "s1" / "unread.wav").write_bytes(b"RIFF, or so")
    both("none", next(clips))
    (root / "clean" / "s1" / "none.wav").write_bytes(b"")
    write(root / "clean" / "s1" / "alone.wav", next(clips))
    write(root / "noisy" / "s1" / "widow.wav", next(clips))
    for side in ("clean", "noisy"):
        (root / side / "s1" / "again.wav").write_bytes((root / side / "s1" / "3.wav").read_bytes())
        (root / side / "notes.txt").write_text("no recording")
    return root


FAULTS = {
    "silent": "silent (",
    "short": "too short (0.05 s)",
    "clipped": "clean: clipped (",
    "longer": "unequal length: clean 1.700 s, noisy 1.250 s",
    "unread": "noisy: unreadable: ",
    "none": "clean: empty (no byte)",
    "alone": "unpaired: no noisy one",
    "widow": "unpaired: no clean one",
}


def opened(root: Path) -> Bank:
    return open_bank(corpora.card(str(root)), say=lambda text: None)


def test_every_faulty_file_is_listed_with_its_reason_and_the_rest_is_used(folder):
    bank = opened(folder)
    reasons = bank.left_out().set_index("clip").reason.to_dict()
    duplicates = {clip: reasons.pop(clip) for clip in list(reasons) if clip in ("s1/again", "s1/3")}
    (duplicate,) = duplicates.values()
    assert duplicate in ("duplicate of s1/3", "duplicate of s1/again")
    assert set(reasons) == {f"s1/{name}" for name in FAULTS}
    for name, reason in FAULTS.items():
        assert reasons[f"s1/{name}"].startswith(reason), reasons[f"s1/{name}"]
    assert len(bank.clips) == 12
    assert bank.noisy is not None
    assert len(bank.samples) == len(bank.noisy) >= (bank.clips.start + bank.clips.samples).max()


def test_a_folder_that_has_changed_is_read_again_and_one_that_has_not_is_not(folder):
    said: list[str] = []
    first = open_bank(corpora.card(str(folder)), say=said.append)
    assert open_bank(corpora.card(str(folder)), say=said.append).folder == first.folder
    before = len(said)
    write(folder / "clean" / "s2" / "more.wav", next(layouts.speech(1.8)))
    assert open_bank(corpora.card(str(folder)), say=said.append).folder != first.folder
    again, older = said[before:]
    assert again == f"{folder.name}: decoding to 16 kHz"
    assert older.endswith(f"may be deleted: {first.folder.name} in {first.folder.parent}")


def test_a_table_tells_who_speaks_and_keeps_them_in_one_split(tmp_path):
    rows = ["file,speaker"]
    for number, clean in zip(range(8), layouts.speech(), strict=False):
        write(tmp_path / "speech" / f"{number}.wav", clean)
        rows.append(f"{number}.wav,talker{number % 4}")
    (tmp_path / "speakers.csv").write_text("\n".join(rows))
    clips = opened(tmp_path).clips
    assert set(clips.voice) == {f"talker{number}" for number in range(4)}
    assert clips.groupby("voice").split.nunique().max() == 1
    assert set(clips.split) == {"train", "validation", "test"}
    (tmp_path / "speakers.csv").write_text("who,what\n")
    with pytest.raises(UserError, match="first line must be: file,speaker"):
        opened(tmp_path)


def test_a_very_long_recording_is_cut_into_pieces_and_never_held_whole(tmp_path, monkeypatch):
    minutes = 8
    monkeypatch.setattr(audio, "BLOCK", 1 << 17)
    monkeypatch.setattr(build, "CHUNK", 1 << 17)
    noise = (np.random.default_rng(0).standard_normal(16_000 * 60) * 3000).astype(np.int16)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 16_000, 1, "PCM_16") as file:
        for _ in range(minutes):
            file.write(noise)
    (tmp_path / "c" / "speech").mkdir(parents=True)
    (tmp_path / "long.wav").rename(tmp_path / "c" / "speech" / "long.wav")
    for number, clean in zip(range(3), layouts.speech(), strict=False):
        write(tmp_path / "c" / "speech" / f"{number}.wav", clean)
    tracemalloc.start()
    bank = opened(tmp_path / "c")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pieces = bank.clips[bank.clips.name == "long.wav"]
    assert len(pieces) == minutes * 60 / 8
    assert pieces.samples.sum() == minutes * 60 * 16_000
    assert pieces.samples.max() <= 8 * 16_000 + 512
    assert peak < 2 * minutes * 60 * 16_000 / 3  # of the bytes of the recording


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds no recordings laid out in a way that can be read. Ways: clean/ and noisy/"),
        (("speech/a.wav", "speech/b.wav"), "2 recordings are too few"),
        (("speech/a.wav", "speech/b.wav", "speech/c.wav"), "no usable recording"),
    ],
)
def test_a_folder_that_holds_too_little_is_one_line_that_says_what_is_wanted(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError) as caught:
        opened(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
