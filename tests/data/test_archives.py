"""Archives of public corpora whose members would leave the folder that they are unpacked into."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from harness import paths
from harness.data import archives, corpora
from harness.errors import UserError

OUTSIDE = ["../evil", "../../../evil", "/{away}/evil", "inside/../../evil", "..\\evil", "\\evil"]


def zipped(file: Path, name: str) -> None:
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("inside/with.wav", b"fine")
        packed.writestr(name, b"evil")


def tarred(file: Path, name: str) -> None:
    with tarfile.open(file, "w:gz") as tar:
        for member, content in ((tarfile.TarInfo("inside/with.wav"), b"fine"), (tarfile.TarInfo(name), b"evil")):
            member.size = 4
            tar.addfile(member, io.BytesIO(content))


def linked(file: Path, target: str) -> None:
    """A link out of the folder, and a file behind it."""
    with tarfile.open(file, "w:gz") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, target
        tar.addfile(link)
        behind = tarfile.TarInfo("link/evil")
        behind.size = 4
        tar.addfile(behind, io.BytesIO(b"evil"))


def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that lies here in place of a corpus's own is refused in one line, and leaves nothing behind."""
    card = corpora.card("fsdd")
    audio = tmp_path / "a" / "b" / "audio"
    audio.mkdir(parents=True)
    packed = tmp_path / "packed"

    def download(url: str, file: Path, *_: object) -> None:
        file.write_bytes(packed.read_bytes())

    monkeypatch.setattr(paths, "AUDIO", audio)
    monkeypatch.setattr(archives, "download", download)
    away = tuple(archive.model_copy(update={"sha256": None}) for archive in card.archives[:1])
    with pytest.raises(UserError, match=r"^cannot get 'fsdd': .* is corrupt and was deleted \(") as error:
        archives.root(card.model_copy(update={"archives": away}), None, lambda text: None)
    assert "\n" not in str(error.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == [packed]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_zip_whose_member_would_leave_the_folder_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(tmp_path / "packed", name.format(away=tmp_path))
    refused(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_tar_whose_member_would_leave_the_folder_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tarred(tmp_path / "packed", name.format(away=tmp_path))
    refused(tmp_path, monkeypatch)


@pytest.mark.parametrize("target", ["..", "../..", "/tmp"])
def test_a_tar_with_a_link_out_of_the_folder_is_refused(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked(tmp_path / "packed", target)
    refused(tmp_path, monkeypatch)
