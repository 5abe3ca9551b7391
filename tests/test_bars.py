import io

from rich.console import Console

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


def test_without_a_terminal_there_is_no_bar():
    assert shown(False, ("a.tar.gz", 4, 10, "B"), ("decoding", 3, 12, "")).strip() == ""
