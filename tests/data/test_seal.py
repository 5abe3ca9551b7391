"""A bank whose files were damaged is found when it is opened, and made again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from harness.data import seal
from harness.data.bank import Bank, open_bank
from harness.errors import UserError
from tests.data.conftest import Tiny


def opened(tiny: Tiny) -> Bank:
    return open_bank(tiny.card, say=lambda line: None)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 2)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("samples.npy", flip),
        ("samples.npy", cut),
        ("clips.csv", flip),
        ("bank.json", flip),
        ("spectrum.npy", Path.unlink),
    ],
)
def test_a_damaged_file_is_one_line_and_without_the_folder_the_bank_is_made_again(tiny: Tiny, name, damage):
    tiny.place()
    before = opened(tiny)
    damage(before.folder / name)
    with pytest.raises(UserError) as error:
        opened(tiny)
    assert str(error.value).startswith(str(before.folder / name))
    assert f"delete the folder {before.folder}, and" in str(error.value)
    assert "\n" not in str(error.value)
    shutil.rmtree(before.folder)
    assert opened(tiny).digest == before.digest


def test_what_is_left_of_a_bank_is_replaced(tiny: Tiny):
    tiny.place()
    before = opened(tiny)
    (before.folder / "bank.json").unlink()
    assert opened(tiny).digest == before.digest


def test_contents_are_read_again_only_where_a_file_has_changed(tiny: Tiny, monkeypatch):
    tiny.place()
    folder, read = opened(tiny).folder, []
    content = seal._content
    monkeypatch.setattr(seal, "_content", lambda path: (read.append(path.name), content(path))[1])
    opened(tiny)
    assert read == []
    os.utime(folder / "samples.npy")  # as a copy has it
    opened(tiny)
    opened(tiny)
    assert read == ["samples.npy"]


def test_a_bank_of_an_older_version_is_sealed_when_it_is_opened(tiny: Tiny):
    tiny.place()
    folder = opened(tiny).folder
    (folder / seal.FILE).unlink()
    opened(tiny)
    cut(folder / "samples.npy")
    with pytest.raises(UserError, match="delete the folder"):
        opened(tiny)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\x00",
        b'{"samples.npy": [1, 2]',
        b'{"samples.npy": [1, 2]}',
        b'{"samples.npy": 3}',
        b"[" * 9000,
    ],
)
def test_a_garbled_seal_is_refused_and_not_replaced(tiny: Tiny, content: bytes):
    tiny.place()
    folder = opened(tiny).folder
    (folder / seal.FILE).write_bytes(content)
    cut(folder / "samples.npy")
    with pytest.raises(UserError) as error:
        opened(tiny)
    assert str(error.value).startswith(str(folder / seal.FILE))
    assert f"delete the folder {folder}, and" in str(error.value)
    assert (folder / seal.FILE).read_bytes() == content
