import mmap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from harness import cli, paths, size
from harness.data import build, corpora
from harness.data.bank import Bank, open_bank
from harness.errors import UserError
from tests.real import CPU, scenes


def peak(speech: Bank, folder: Path, hours: float) -> tuple[int, int, float]:
    """How many recordings were made, the bytes of the bank, and the most memory that opening it and drawing from it took."""
    files = size.synthesise(folder, hours, speech)
    card = corpora.card(size.CORPUS)
    tracemalloc.start()
    try:
        bank = open_bank(card, folder, lambda line: None)
        rng = np.random.default_rng(0)
        for _ in range(20):
            bank.cut(bank.draw("train", rng, 8, 32_000), 32_000, CPU)
        return files, bank.samples.nbytes, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_four_times_the_recordings_take_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speech = scenes().speech  # opened where the real recordings lie
    monkeypatch.setattr(paths, "AUDIO", tmp_path)
    monkeypatch.setattr(build, "CHUNK", 1 << 18)  # else so short a bank is one block of its reading
    monkeypatch.setattr(size, "SECONDS", (2.0, 6.0))
    peak(speech, tmp_path / "first", 0.02)  # what is imported and made but once
    few, small, before = peak(speech, tmp_path / "few", 0.05)
    many, large, after = peak(speech, tmp_path / "many", 0.2)
    assert 3 < many / few < 5
    assert 3 < large / small < 5
    # A fiftieth of what the samples take: the table of clips has a row for each.
    assert after - before < 0.02 * (large - small) + 200_000
    assert after < 0.25 * large


def test_hours_are_numbers_from_half_an_hour_on() -> None:
    assert size.parsed("5 1, 20") == [1, 5, 20]
    for text in ("", "one", "0", "1 -5", "nan", "1e9"):
        with pytest.raises(UserError, match=r"^--hours .*: must be hours of speech .* as in --hours '1 5 20'$"):
            size.parsed(text)


def test_made_recordings_are_a_corpus_of_librispeechs_layout_that_is_always_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        size.synthesise(tmp_path / name, 0.02, scenes().speech)
    one, two = (sorted((tmp_path / name).rglob("*.flac")) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert {path.relative_to(tmp_path / "one").parts[0] for path in one} == set(size.PARTS)
    speakers = [{path.name for path in (tmp_path / "one" / part).iterdir()} for part in size.PARTS]
    assert len(set.union(*speakers)) == sum(map(len, speakers))  # nobody is in two splits


def test_memory_is_that_of_the_process_and_not_of_files_that_it_maps(tmp_path: Path) -> None:
    file = tmp_path / "bank.npy"
    np.save(file, np.ones(10_000_000, np.float32))
    with size.watching() as mapped:
        before = size.anonymous()
        assert np.load(file, mmap_mode="r").sum() > 0
    assert mapped.bytes - before < 10e6
    with size.watching() as own:
        before = size.anonymous()
        fresh = mmap.mmap(
            -1, 40_000_000, mmap.MAP_PRIVATE
        )  # what numpy takes may have been given back by a test before
        for _ in range(40):
            fresh.write(b"1" * 1_000_000)
    assert own.bytes - before > 30e6
    fresh.close()


def test_the_command_prints_a_table_and_what_more_hours_cost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {
        size.decoding: {"decode_s": 3.0, "bank_bytes": 115e6, "decode_bytes": 400e6},
        size.training: {"start_s": 7.0, "update_ms": 50.0, "train_bytes": 500e6},
    }

    def apart(body, loaded, options, audio, progress):
        assert (loaded.corpus, loaded.scenes.noise, loaded.model) == ("librispeech", size.NOISE, "gru_mask")
        hours = int(next(iter(options.data_dir.parent.glob("hours-*"))).name[6:])
        return {name: value * (hours if name == "bank_bytes" else 1) for name, value in found[body].items()}

    def synthesise(folder, hours, speech, progress):
        (folder.parent / f"hours-{hours:g}").mkdir()
        return round(400 * hours)

    monkeypatch.setattr(size, "apart", apart)
    monkeypatch.setattr(size, "synthesise", synthesise)
    cli.app(["bench", "--hours", "1 5"], standalone_mode=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "2,000" in text
    assert (
        "from 1 to 5 h: +0.0 MB an hour of recordings in decoding, +0.0 in training; the bank is 115 MB an hour" in text
    )
    with pytest.raises(UserError, match="leave the study, --corpus and --data-dir out"):
        cli.app(["bench", "--hours", "1", "--corpus", "librispeech"], standalone_mode=False)


@pytest.mark.slow
def test_a_corpus_is_decoded_and_trained_on_in_processes_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    found = size.measure(size.study(None, None), "cpu", [0.5], told.append, lambda what, *_: told.append(what))
    (row,) = found["rows"]
    assert row["files"] > 100
    assert row["bank_bytes"] > 0.5 * 3600 * 32_000
    assert 0 < row["decode_bytes"] < 2e9
    assert row["update_ms"] > 0
    assert "librispeech: decoding" in told
