import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.data import corpora, fetch
from harness.errors import UserError
from tests.data.conftest import VOICES, Tiny, contents, describe
from tests.real import prompts_folder

NOWHERE = {voice: f"http://127.0.0.1:9/{voice}.tar.gz" for voice in VOICES}  # port 9: refused at once


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that is served over HTTP, and its address; no proxy stands between."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_tools(tmp_path, monkeypatch):
    """A machine without apt."""
    monkeypatch.setenv("PATH", str(tmp_path / "no such folder"))


ENGLISH_KEPT = [".tiny-downloads/en_US_f_Allison.tar.gz"]  # intact, and not asked for again


def archives(source: Path, site: tuple[Path, str]) -> dict[str, str]:
    """Serve an archive for each voice; returns their addresses."""
    for voice in VOICES:
        with tarfile.open(site[0] / f"{voice}.tar.gz", "w:gz") as tar:
            for file in sorted((source / voice).rglob("*.g722")):
                tar.add(file, f"./{file.relative_to(source / voice)}")
    return {voice: f"{site[1]}/{voice}.tar.gz" for voice in VOICES}


def left_behind(audio: Path) -> list[str]:
    """Names of the files and folders in the folder of recordings, those of kept downloads with their folder."""
    if not audio.exists():
        return []
    names = [path.name for path in audio.iterdir() if not path.name.endswith("-downloads")]
    return sorted(names + [path.relative_to(audio).as_posix() for path in audio.glob("*-downloads/*")])


def test_the_recordings_on_disk_are_those_of_the_card():
    card = corpora.card("prompts")
    assert fetch.faults(card, prompts_folder()) == []
    for name in ("en_US_f_Allison", "ru_RU_f_IvrvoiceRU"):
        assert contents(prompts_folder() / name) == card.contents[name]


def test_the_digest_is_over_sorted_lines_whatever_the_names(tmp_path):
    for number, name in enumerate(["a/b", "a-b", "a", "B", "é"]):
        file = tmp_path / f"{name}.g722"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes([number]) * 10)
    (tmp_path / "README").write_text("not a recording")
    want = contents(tmp_path)
    assert fetch.tree_digest(tmp_path) == (want.files, want.bytes, want.sha256)
    assert want.files == 5


def _remove(file: Path) -> None:
    file.unlink()


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _alter(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[500] ^= 1
    file.write_bytes(content)


def _rename(file: Path) -> None:
    file.rename(file.with_name("other.g722"))


@pytest.mark.parametrize("damage", [_remove, _truncate, _alter, _rename])
def test_a_damaged_folder_is_one_fault_that_names_it(tiny: Tiny, damage):
    assert fetch.faults(tiny.card, tiny.source) == []
    damage(tiny.source / "it_IT_m_Carlo" / "transfer.g722")
    (fault,) = fetch.faults(tiny.card, tiny.source)
    assert fault.startswith("it_IT_m_Carlo:")
    assert ("SHA-256" in fault) == (damage in (_alter, _rename))


def test_a_folder_that_is_not_there_is_a_fault(tiny: Tiny):
    shutil.rmtree(tiny.source / "en_US_f_Allison")
    (fault,) = fetch.faults(tiny.card, tiny.source)
    assert "en_US_f_Allison: no such folder" in fault


def test_recordings_already_there_are_used_as_they_are(tiny: Tiny, no_tools):
    root = tiny.place()
    said: list[str] = []
    assert fetch.recordings(tiny.card, say=said.append) == root
    assert said == []


@pytest.mark.parametrize("inside", ["", "tiny", "usr/share/tiny"])
def test_a_folder_of_the_users_is_found_by_itself_by_name_or_as_unpacked_packages(tiny: Tiny, tmp_path, inside):
    given = tmp_path / "mine"
    shutil.copytree(tiny.source, given / inside)
    said: list[str] = []
    assert fetch.recordings(tiny.card, given, said.append) == given / inside
    assert said == []
    assert not tiny.audio.exists()


def test_a_folder_of_the_users_with_other_contents_is_used_with_a_warning(tiny: Tiny):
    _truncate(tiny.source / "en_US_f_Allison" / "with.g722")
    said: list[str] = []
    assert fetch.recordings(tiny.card, tiny.source, said.append) == tiny.source
    (line,) = said
    assert line.startswith("warning: tiny: en_US_f_Allison:")


@pytest.mark.parametrize("folder", ["empty", "missing", "half"])
def test_a_wrong_folder_of_the_users_is_one_line_that_names_it(tiny: Tiny, tmp_path, folder):
    (tmp_path / "empty").mkdir()
    shutil.copytree(tiny.source / "en_US_f_Allison", tmp_path / "half" / "en_US_f_Allison")
    with pytest.raises(UserError, match="--data-dir") as caught:
        fetch.recordings(tiny.card, tmp_path / folder)
    assert str(tmp_path / folder) in str(caught.value)
    assert "it_IT_m_Carlo" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_archives_are_downloaded_checked_and_put_in_place(tiny: Tiny, site, no_tools):
    tiny = tiny.but(upstream=archives(tiny.source, site), bytes=123_456_789)
    said: list[str] = []
    root = fetch.recordings(tiny.card, say=said.append)
    assert root == tiny.audio / "tiny"
    assert fetch.faults(tiny.card, root) == []
    assert left_behind(tiny.audio) == ["tiny"]
    assert "123 MB from the upstream archives" in said[0]  # said before anything is downloaded
    assert "upstream archives, checksums hold" in said[-1]


def test_archives_with_other_contents_are_refused(tiny: Tiny, site, no_tools):
    urls = archives(tiny.source, site)
    altered = shutil.copytree(tiny.source, tiny.source.parent / "altered")
    _alter(altered / "it_IT_m_Carlo" / "with.g722")
    archives(altered, site)
    tiny = tiny.but(upstream=urls)
    said: list[str] = []
    with pytest.raises(UserError, match=r"upstream archives \(it_IT_m_Carlo: .*SHA-256"):
        fetch.recordings(tiny.card, say=said.append)
    assert left_behind(tiny.audio) == ENGLISH_KEPT
    (line,) = (line for line in said if "deleted" in line)
    assert line.startswith("tiny: it_IT_m_Carlo.tar.gz is corrupt and was deleted (it_IT_m_Carlo: as many files")


@pytest.mark.parametrize("evil", ["../../../evil", "../../../../evil", "/evil", "link"])
def test_an_archive_cannot_write_outside_its_folder(tiny: Tiny, site, no_tools, tmp_path, evil):
    urls = archives(tiny.source, site)
    # It is unpacked four folders below `tmp_path`, the upper one of which outlives the fetch.
    name = str(tmp_path / "evil") if evil == "/evil" else evil
    with tarfile.open(site[0] / "en_US_f_Allison.tar.gz", "w:gz") as tar:
        tar.add(tiny.source / "en_US_f_Allison" / "with.g722", "with.g722")
        if evil == "link":
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
            tar.addfile(link)
            name = "link/evil"
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    tiny = tiny.but(upstream=urls)
    with pytest.raises(UserError, match="cannot get 'tiny'"):
        fetch.recordings(tiny.card, say=lambda text: None)
    assert list(tmp_path.rglob("evil")) == []
    assert left_behind(tiny.audio) == []


@pytest.mark.parametrize("kept", [0, 20, 0.5, 0.99])
def test_a_truncated_archive_is_a_way_that_failed_not_a_crash(tiny: Tiny, site, no_tools, kept):
    tiny = tiny.but(upstream=archives(tiny.source, site))
    whole = (site[0] / "it_IT_m_Carlo.tar.gz").read_bytes()
    (site[0] / "it_IT_m_Carlo.tar.gz").write_bytes(whole[: kept if kept >= 1 else int(kept * len(whole))])
    with pytest.raises(UserError, match="tried upstream archives"):
        fetch.recordings(tiny.card, say=lambda text: None)
    assert left_behind(tiny.audio) == ENGLISH_KEPT


def test_a_corrupt_archive_is_a_way_that_failed_not_a_crash(tiny: Tiny, site, no_tools):
    tiny = tiny.but(upstream=archives(tiny.source, site))
    content = bytearray((site[0] / "it_IT_m_Carlo.tar.gz").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    (site[0] / "it_IT_m_Carlo.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match="tried upstream archives"):
        fetch.recordings(tiny.card, say=lambda text: None)
    assert left_behind(tiny.audio) == ENGLISH_KEPT


def test_an_interrupted_fetch_leaves_nothing_half_made_and_the_next_one_works(tiny: Tiny, site, no_tools):
    tiny = tiny.but(upstream=archives(tiny.source, site))

    def interrupt(text: str) -> None:
        if "en_US_f_Allison" in text:  # the first archive has come, the second has not
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.recordings(tiny.card, say=interrupt)
    assert left_behind(tiny.audio) == ENGLISH_KEPT
    (site[0] / "en_US_f_Allison.tar.gz").unlink()  # it need not be had again
    assert fetch.faults(tiny.card, fetch.recordings(tiny.card, say=lambda text: None)) == []
    assert left_behind(tiny.audio) == ["tiny"]


def test_without_network_one_line_names_three_ways(tiny: Tiny, no_tools):
    tiny = tiny.but(upstream=NOWHERE, packages={"tiny-sounds": "0" * 64})
    with pytest.raises(UserError) as caught:
        fetch.recordings(tiny.card, say=lambda text: None)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{NOWHERE['en_US_f_Allison']}: cannot be reached" in message
    for part in ("(1)", "(2)", "(3)", "--data-dir", str(tiny.audio / "tiny"), "apt-get download tiny-sounds"):
        assert part in message
    assert all(url in message and voice in message for voice, url in NOWHERE.items())
    assert left_behind(tiny.audio) == []


def test_a_missing_page_is_a_way_that_failed(tiny: Tiny, site, no_tools):
    tiny = tiny.but(upstream={voice: f"{site[1]}/{voice}.tar.gz" for voice in VOICES})
    with pytest.raises(UserError, match=r"upstream archives \(http://\S+/en_US_f_Allison.tar.gz: 404 "):
        fetch.recordings(tiny.card, say=lambda text: None)


def test_a_damaged_folder_is_fetched_again_but_kept_where_that_fails(tiny: Tiny, site, no_tools):
    root = tiny.place()
    _alter(root / "en_US_f_Allison" / "transfer.g722")
    damaged = contents(root / "en_US_f_Allison")
    said: list[str] = []
    with pytest.raises(UserError):
        fetch.recordings(tiny.but(upstream=NOWHERE).card, say=said.append)
    assert "is not what the card says" in said[0]
    assert contents(root / "en_US_f_Allison") == damaged
    fetch.recordings(tiny.but(upstream=archives(tiny.source, site)).card, say=said.append)
    assert fetch.faults(tiny.card, root) == []


def test_two_who_fetch_at_once_both_get_whole_recordings(tiny: Tiny, site, no_tools):
    tiny = tiny.but(upstream=archives(tiny.source, site))
    other: list[os.stat_result] = []

    def meanwhile(text: str) -> None:
        if "it_IT_m_Carlo" in text and not other:  # all but in place, when another process is done before
            other.append(os.stat(tiny.place()))

    root = fetch.recordings(tiny.card, say=meanwhile)
    assert fetch.faults(tiny.card, root) == []
    # The folder that the other one may be reading from is still there.
    assert os.stat(root).st_ino == other[0].st_ino


@pytest.fixture
def repository(tiny: Tiny, tmp_path, monkeypatch) -> Path:
    """A Debian repository in a folder, with the tiny corpus as a package: real apt-get and dpkg-deb, no network."""
    return debian(tiny, tmp_path, monkeypatch, f"file:{tmp_path / 'repository'}")


def debian(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> Path:
    """The repository's package, for an apt that knows that address only."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("needs apt-get and dpkg-deb")
    tree, folder = tmp_path / "tree", tmp_path / "repository"
    folder.mkdir()
    shutil.copytree(tiny.source, tree / "usr/share/tiny")
    (tree / "DEBIAN").mkdir()
    control = "Package: tiny-sounds\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n"
    (tree / "DEBIAN" / "control").write_text(control + "Description: a dozen prompts\n")
    package = folder / "tiny-sounds_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, package], check=True, capture_output=True)
    content = package.read_bytes()
    (folder / "Packages").write_text(
        f"{control}Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
        "Description: a dozen prompts\n"
    )
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] {address} ./\n")
    settings = f'Dir::Etc::SourceList "{tmp_path}/sources.list";\nDir::Etc::SourceParts "/dev/null";\n'
    (tmp_path / "apt.conf").write_text(settings)
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return package


def test_debian_packages_are_downloaded_and_unpacked_where_the_archives_fail(tiny: Tiny, repository):
    digest = hashlib.sha256(repository.read_bytes()).hexdigest()
    card = describe(tiny.source, upstream=NOWHERE, packages={"tiny-sounds": digest})
    said: list[str] = []
    root = fetch.recordings(card, say=said.append)
    assert fetch.faults(card, root) == []
    assert "from the Debian packages, checksums hold" in said[-1]
    assert not any("warning" in line for line in said)
    assert left_behind(tiny.audio) == ["tiny"]


def test_a_rebuilt_package_with_the_same_sounds_is_a_warning_that_names_both_checksums(tiny: Tiny, repository):
    card = describe(tiny.source, upstream=NOWHERE, packages={"tiny-sounds": "0" * 64})
    said: list[str] = []
    assert fetch.faults(card, fetch.recordings(card, say=said.append)) == []
    (warning,) = (line for line in said if line.startswith("warning"))
    assert "0" * 64 in warning
    assert hashlib.sha256(repository.read_bytes()).hexdigest() in warning


def test_a_package_that_is_not_to_be_had_is_a_way_that_failed(tiny: Tiny, repository):
    card = describe(tiny.source, upstream=NOWHERE, packages={"no-such-sounds": "0" * 64})
    with pytest.raises(UserError, match=r"Debian packages \(apt-get download: .*no-such-sounds"):
        fetch.recordings(card, say=lambda text: None)
    assert left_behind(tiny.audio) == []
    assert not (tiny.audio / "tiny").exists()
