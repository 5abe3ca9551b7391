"""Public corpora from a real server, and from archives that people have put in place; members that would leave their folder."""

import hashlib
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from harness import paths
from harness.data import archives, checksums, corpora
from harness.data.corpora import Archive, Card
from harness.errors import UserError
from tests.data.test_download import Site, site  # noqa: F401

EMPTY = hashlib.sha256(b"").hexdigest()


@pytest.fixture(autouse=True)
def audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "AUDIO", tmp_path / "audio")
    return tmp_path / "audio"


def digits(folder: Path, takes: int = 1) -> Path:
    """Files where FSDD has its recordings; nothing here is decoded."""
    for speaker in ("george", "nicolas", "theo"):
        for take in range(takes):
            file = folder / "free-spoken-digit-dataset" / "recordings" / f"0_{speaker}_{take}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(f"{speaker} {take} ".encode() * 5000)
    return folder


def words(folder: Path) -> Path:
    for name in ("validation_list.txt", "testing_list.txt", "yes/1_nohash_0.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def benchmark(folder: Path) -> Path:
    for name in ("yes/2_nohash_0.wav", "_silence_/3_nohash_0.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def pack(folder: Path, file: Path) -> Path:
    """All of a folder as a zip or a tar archive, by the name of the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    inside = sorted(path for path in folder.rglob("*") if path.is_file())
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w") as packed:
            for path in inside:
                packed.write(path, path.relative_to(folder))
    else:
        with tarfile.open(file, "w:gz") as tar:
            for path in inside:
                tar.add(path, f"./{path.relative_to(folder)}")
    return file


def described(server: Site, *names: str, card: str = "fsdd", **changed: object) -> Card:
    """A card whose archives are those of the server."""
    found = tuple(Archive(url=f"{server.address}/{name}", bytes=1000) for name in names)
    return corpora.card(card).model_copy(update={"archives": found} | changed)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetched(card: Card) -> tuple[Path, list[str]]:
    said: list[str] = []
    return archives.root(card, None, said.append), said


@pytest.mark.parametrize("name", ["digits.zip", "digits.tar.gz"])
def test_an_archive_is_downloaded_unpacked_and_put_in_place_whole(site, tmp_path, audio, name):  # noqa: F811
    pack(digits(tmp_path / "made"), site.folder / name)
    root, said = fetched(described(site, name))
    assert root == audio / "fsdd" / "free-spoken-digit-dataset"
    assert tree(audio / "fsdd") == tree(tmp_path / "made")
    assert said[0] == "fsdd: fetching 0 MB from its publisher"  # before anything is downloaded
    assert sorted(path.name for path in audio.iterdir()) == ["fsdd", "fsdd.sha256"]  # no download, no scratch
    asked = len(site.asked)
    assert fetched(described(site, name)) == (root, [])
    assert len(site.asked) == asked


def test_several_archives_lie_side_by_side(site, tmp_path, audio):  # noqa: F811
    pack(digits(tmp_path / "made"), site.folder / "digits.zip")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "notes.txt").write_text("told")
    pack(tmp_path / "more", site.folder / "notes.tar.gz")
    fetched(described(site, "digits.zip", "notes.tar.gz"))
    assert tree(audio / "fsdd") == tree(tmp_path / "made") | tree(tmp_path / "more")


def test_another_checksum_than_the_cards_is_refused_and_the_archive_deleted(site, tmp_path, audio):  # noqa: F811
    file = pack(digits(tmp_path / "made"), site.folder / "digits.zip")
    wrong = (Archive(url=f"{site.address}/digits.zip", bytes=1000, sha256=EMPTY),)
    got = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(UserError) as caught:
        fetched(described(site).model_copy(update={"archives": wrong}))
    message = str(caught.value)
    assert f"digits.zip is corrupt and was deleted (SHA-256 {got}, the card says {EMPTY})" in message
    assert f"under {audio / 'fsdd'}, or name their folder with --data-dir" in message
    assert "\n" not in message
    assert list(audio.iterdir()) == []
    right = (wrong[0].model_copy(update={"sha256": got}),)
    assert fetched(described(site).model_copy(update={"archives": right}))[0].is_dir()


@pytest.mark.parametrize("name", ["digits.zip", "digits.tar.gz"])
def test_a_transfer_that_broke_off_goes_on_where_it_was(site, tmp_path, audio, name):  # noqa: F811
    whole = pack(digits(tmp_path / "made", 40), site.folder / name).stat().st_size
    site.breaks = [whole // 2]
    with pytest.raises(UserError, match=r"broke off.* What came is kept: the same command goes on from there"):
        fetched(described(site, name))
    (part,) = (audio / ".fsdd-downloads").iterdir()
    assert 0 < part.stat().st_size < whole
    fetched(described(site, name))
    assert site.statuses(name) == [200, 206]
    assert tree(audio / "fsdd") == tree(tmp_path / "made")


@pytest.mark.parametrize("name", ["digits.zip", "digits.tar.gz"])
def test_a_truncated_archive_is_one_line_and_deleted(site, tmp_path, audio, name):  # noqa: F811
    file = pack(digits(tmp_path / "made"), site.folder / name)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match=f"{name} is corrupt and was deleted") as caught:
        fetched(described(site, name))
    assert "\n" not in str(caught.value)
    assert list(audio.iterdir()) == []


def test_archives_that_hold_something_else_are_refused_and_what_lies_there_stays(site, tmp_path, audio):  # noqa: F811
    pack(words(tmp_path / "made"), site.folder / "digits.zip")
    (audio / "fsdd").mkdir(parents=True)
    (audio / "fsdd" / "mine.txt").write_text("mine")
    with pytest.raises(
        UserError, match=r"cannot get 'fsdd': its archives hold something else. By hand: put recordings/"
    ):
        fetched(described(site, "digits.zip"))
    assert tree(audio / "fsdd") == {"mine.txt": b"mine"}
    assert not checksums.file(corpora.card("fsdd")).exists()


def test_what_people_have_put_in_place_is_moved_aside_and_not_deleted(site, tmp_path, audio):  # noqa: F811
    pack(digits(tmp_path / "made"), site.folder / "digits.zip")
    for number in (1, 2):
        shutil.rmtree(audio / "fsdd", ignore_errors=True)
        (audio / "fsdd").mkdir(parents=True)
        (audio / "fsdd" / "half.txt").write_text(str(number))
        _, said = fetched(described(site, "digits.zip"))
        assert tree(audio / f"fsdd.old-{number}") == {"half.txt": str(number).encode()}
        assert said[-1] == (
            f"fsdd: what lay in {audio / 'fsdd'} is now in {audio / f'fsdd.old-{number}'}; delete it if you need it no more"
        )
    assert tree(audio / "fsdd") == tree(tmp_path / "made")


def test_an_empty_folder_makes_room_without_a_word(site, tmp_path, audio):  # noqa: F811
    pack(digits(tmp_path / "made"), site.folder / "digits.zip")
    (audio / "fsdd").mkdir(parents=True)
    _, said = fetched(described(site, "digits.zip"))
    assert not any("old-1" in line for line in said)
    assert not (audio / "fsdd.old-1").exists()


def test_archives_that_lie_in_the_folder_are_unpacked_and_stay(site, tmp_path, audio):  # noqa: F811
    file = pack(digits(tmp_path / "made"), audio / "fsdd" / "digits.tar.gz")
    content = file.read_bytes()
    _, said = fetched(described(site, "digits.tar.gz"))
    assert said[0] == f"fsdd: unpacking digits.tar.gz from {audio / 'fsdd'}"
    assert site.asked == []
    assert tree(audio / "fsdd") == tree(tmp_path / "made")
    assert (audio / "fsdd.old-1" / "digits.tar.gz").read_bytes() == content


def test_a_corrupt_archive_of_somebodys_is_named_and_not_deleted(site, tmp_path, audio):  # noqa: F811
    file = pack(digits(tmp_path / "made"), audio / "fsdd" / "digits.tar.gz")
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match=f"digits.tar.gz is corrupt in {audio / 'fsdd'}: delete it "):
        fetched(described(site, "digits.tar.gz"))
    assert file.exists()


def test_an_archive_that_is_not_unpacked_in_a_folder_of_the_users_is_told(site, tmp_path):  # noqa: F811
    pack(digits(tmp_path / "made"), tmp_path / "mine" / "digits.zip")
    with pytest.raises(UserError, match=r"does not hold 'fsdd', which is: recordings/.*; unpack there digits.zip"):
        archives.root(described(site, "digits.zip"), tmp_path / "mine", lambda line: None)


def test_an_archive_without_a_published_checksum_must_stay_what_it_was(site, tmp_path, audio):  # noqa: F811
    file = pack(digits(tmp_path / "made"), site.folder / "digits.zip")
    card, first = described(site, "digits.zip"), hashlib.sha256(file.read_bytes()).hexdigest()
    fetched(card)
    record = audio / "fsdd.sha256"
    assert record.read_text() == f"{first}  digits.zip\n"
    shutil.rmtree(audio / "fsdd")
    fetched(card)  # the same again
    shutil.rmtree(audio / "fsdd")
    second = hashlib.sha256(pack(digits(tmp_path / "made", 2), file).read_bytes()).hexdigest()
    with pytest.raises(UserError) as caught:
        fetched(card)
    message = str(caught.value)
    assert f"digits.zip is another than the one that was fetched before (SHA-256 {second}, then {first})" in message
    assert (
        f"where its publisher has changed it, delete {record}, else {audio / '.fsdd-downloads' / 'digits.zip'}"
        in message
    )
    assert not (audio / "fsdd").exists()
    record.unlink()
    fetched(card)
    assert record.read_text() == f"{second}  digits.zip\n"


def test_the_benchmark_of_speech_commands_shares_the_words_and_adds_its_test(site, tmp_path, audio):  # noqa: F811
    pack(words(tmp_path / "words"), site.folder / "words.tar.gz")
    pack(benchmark(tmp_path / "benchmark"), site.folder / "test.tar.gz")
    all_words, twelve = corpora.card("speech_commands"), corpora.card("speech_commands_12")
    assert twelve.archives[0] == all_words.archives[0]  # 2.4 GB
    assert twelve.archives[1].folder == "speech_commands_test_set_v0.02"
    urls = [f"{site.address}/{name}" for name in ("words.tar.gz", "test.tar.gz")]
    found = tuple(
        a.model_copy(update={"url": url, "sha256": None}) for a, url in zip(twelve.archives, urls, strict=True)
    )
    twelve = twelve.model_copy(update={"archives": found})
    all_words = all_words.model_copy(update={"archives": found[:1]})
    home = audio / "speech_commands"
    assert fetched(all_words)[0] == home
    assert tree(home) == tree(tmp_path / "words")
    assert fetched(twelve)[0] == home
    assert site.statuses("words.tar.gz") == [200]  # once for both
    test = {f"speech_commands_test_set_v0.02/{name}": content for name, content in tree(tmp_path / "benchmark").items()}
    assert tree(home) == tree(tmp_path / "words") | test
    assert sorted(checksums.read(twelve)) == ["test.tar.gz", "words.tar.gz"]
    shutil.rmtree(home)
    assert fetched(twelve)[0] == home  # and both at once
    assert tree(home) == tree(tmp_path / "words") | test


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
