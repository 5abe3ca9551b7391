import io
from types import SimpleNamespace

from rich.console import Console

from harness import bars
from harness.bars import DataBar


def shown(terminal: bool, *told: tuple[str, int, int, str]) -> str:
    file = io.StringIO()
    with DataBar(Console(file=file, force_terminal=terminal, width=120, color_system=None)) as bar:
        for what, done, of, unit in told:
            bar(what, done, of, unit)
            bar._bars.refresh()
    return file.getvalue()


def test_a_download_shows_its_bytes_on_a_terminal_and_what_was_there_before_is_no_speed():
    text = shown(True, ("a.tar.gz", 4_000_000, 10_000_000, "B"), ("a.tar.gz", 10_000_000, 10_000_000, "B"))
    assert "a.tar.gz" in text
    assert "4.0/10.0 MB" in text
    assert "10.0/10.0 MB" in text
    assert "?" in text.split("4.0/10.0 MB")[1].splitlines()[0]  # no speed yet


def test_recordings_are_counted_and_an_unknown_number_is_not_shown():
    text = shown(True, ("reading", 0, 0, ""), ("decoding", 3, 12, ""))
    assert "3/12" in text.replace(" ", "")
    assert "MB" not in text
    assert "0/?" not in text


def test_without_a_terminal_there_is_no_bar_and_of_what_is_quick_no_line(capsys):
    assert shown(False, ("a.tar.gz", 4, 10, "B"), ("decoding", 3, 12, ""), ("decoding", 12, 12, "")).strip() == ""
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_what_takes_long_is_told_in_a_line_at_every_tenth(capsys, monkeypatch):
    clock = iter(range(0, 100_000, 3))  # three seconds from one look to the next
    monkeypatch.setattr(bars, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    decoded = [("librispeech: decoding", done, 2000, "") for done in range(2001)]
    loaded = [("a.tar.gz", done * 1_000_000, 2_000_000_000, "B") for done in (900, 950, 1500, 1900, 2000)]
    assert shown(False, *decoded, ("reading", 5, 0, ""), ("reading", 6, 0, ""), *loaded).strip() == ""
    out, err = capsys.readouterr()
    assert out == ""  # which may be JSON
    lines = err.splitlines()
    assert lines[:2] == ["librispeech: decoding: 20 % (400 of 2,000)", "librispeech: decoding: 30 % (600 of 2,000)"]
    assert len([line for line in lines if line.startswith("librispeech")]) == 9
    assert lines[-2:] == ["a.tar.gz: 90 % (1,900 of 2,000 MB)", "a.tar.gz: 100 % (2,000 of 2,000 MB)"]
    assert "reading" not in err
