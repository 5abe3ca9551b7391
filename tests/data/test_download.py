"""Downloads from a real server that can go on from a byte, and that breaks off when told to."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.data import fetch
from harness.data.download import CHUNK, download
from harness.errors import UserError
from tests.data.conftest import Tiny, describe
from tests.data.test_fetch import archives, debian, left_behind, no_tools  # noqa: F401

CONTENT = bytes(range(256)) * 4000  # 1 MB, in which a wrong place shows


@dataclass
class Site:
    """A server of a folder. breaks: bytes after which each of the next transfers breaks off; asked: (path, Range, status)."""

    folder: Path
    address: str = ""
    ranges: bool = True
    lying: bool = False  # answers with another range than was asked for
    breaks: list[int] = field(default_factory=list)
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    def statuses(self, name: str) -> list[int]:
        return [status for path, _, status in self.asked if path.endswith(name)]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Site(tmp_path / "site")
    served.folder.mkdir()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = served.folder / self.path.lstrip("/")
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if served.ranges else None
            first = int(wanted[1]) if wanted else 0
            content = file.read_bytes() if file.is_file() else b""
            status = 404 if not file.is_file() else 416 if wanted and first >= len(content) else 206 if wanted else 200
            served.asked.append((self.path, self.headers.get("Range", ""), status))
            if served.lying and wanted:
                first = 0
            body = content[first:] if status in (200, 206) else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if served.breaks and body:
                body = body[: served.breaks.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture
def file(site: Site) -> Path:
    file = site.folder / "file"
    file.write_bytes(CONTENT)
    return file


def get(site: Site, folder: Path) -> list[tuple[int, int]]:
    """Download the file; returns the bytes had and the bytes in all, as they were told."""
    told: list[tuple[int, int]] = []

    def progress(what: str, done: int, of: int, unit: str = "") -> None:
        assert (what, unit) == ("a file", "B")
        told.append((done, of))

    download(f"{site.address}/file", folder / "got", "a file", progress)
    return told


def test_a_download_tells_its_bytes_and_leaves_no_partial_file(site: Site, file: Path, tmp_path: Path):
    told = get(site, tmp_path)
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert not (tmp_path / "got.part").exists()
    get(site, tmp_path)
    assert site.statuses("file") == [200]  # what is there is not asked for again


def test_a_download_that_breaks_off_goes_on_where_it_was(site: Site, file: Path, tmp_path: Path):
    site.breaks = [40 * CHUNK + 1, 30 * CHUNK + 1]
    for had in (40 * CHUNK, 70 * CHUNK):
        with pytest.raises(OSError, match=f"{site.address}/file: broke off"):
            get(site, tmp_path)
        assert (tmp_path / "got.part").read_bytes() == CONTENT[:had]
        assert not (tmp_path / "got").exists()
    told = get(site, tmp_path)
    assert told[0] == (70 * CHUNK, len(CONTENT))
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert [ranged for _, ranged, _ in site.asked] == ["", f"bytes={40 * CHUNK}-", f"bytes={70 * CHUNK}-"]
    assert site.statuses("file") == [200, 206, 206]
    assert not (tmp_path / "got.part").exists()


@pytest.mark.parametrize("server", ["no ranges", "another range"])
def test_where_the_server_cannot_go_on_the_download_starts_again(site: Site, file: Path, tmp_path: Path, server: str):
    site.ranges, site.lying = server != "no ranges", server == "another range"
    (tmp_path / "got.part").write_bytes(b"x" * 400_000)
    told = get(site, tmp_path)
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert told[0] == (0, len(CONTENT))
    assert site.statuses("file") == ([200] if server == "no ranges" else [206, 200])


@pytest.mark.parametrize("more", [0, 100])
def test_a_partial_file_that_is_no_shorter_than_the_whole_is_not_trusted(
    site: Site, file: Path, tmp_path: Path, more: int
):
    (tmp_path / "got.part").write_bytes(b"x" * (len(CONTENT) + more))
    get(site, tmp_path)
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert site.statuses("file") == [416, 200]


def test_what_cannot_be_had_is_an_error_that_names_the_address_and_keeps_what_came(site: Site, tmp_path: Path):
    (tmp_path / "got.part").write_bytes(b"what came")
    with pytest.raises(OSError, match=f"^{site.address}/file: 404 ") as caught:
        get(site, tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match=r"^http://127\.0\.0\.1:9/file: cannot be reached$"):
        download("http://127.0.0.1:9/file", tmp_path / "got", "a file", lambda *_: None)
    assert (tmp_path / "got.part").read_bytes() == b"what came"


def packed(tiny: Tiny, site: Site) -> Tiny:
    """The tiny corpus with its archives on the site."""
    return tiny.but(upstream=archives(tiny.source, (site.folder, site.address)))


def test_a_fetch_that_broke_off_goes_on_and_its_checksums_hold(tiny: Tiny, site: Site, no_tools):  # noqa: F811
    tiny = packed(tiny, site)
    site.breaks = [10**9, 3 * CHUNK]  # the first archive comes whole, the second not
    said: list[str] = []
    with pytest.raises(
        UserError, match=r"it_IT_m_Carlo\.tar\.gz: broke off.* What came is kept: the same command goes on"
    ):
        fetch.recordings(tiny.card, say=said.append)
    kept = [".tiny-downloads/en_US_f_Allison.tar.gz", ".tiny-downloads/it_IT_m_Carlo.tar.gz.part"]
    assert left_behind(tiny.audio) == kept
    assert (tiny.audio / kept[1]).stat().st_size == 3 * CHUNK
    root = fetch.recordings(tiny.card, say=said.append)
    assert fetch.faults(tiny.card, root) == []
    assert left_behind(tiny.audio) == ["tiny"]
    assert site.statuses("en_US_f_Allison.tar.gz") == [200]
    assert site.statuses("it_IT_m_Carlo.tar.gz") == [200, 206]
    assert "tiny: it_IT_m_Carlo.tar.gz: going on at 0.0 MB" in said


def test_a_corrupt_partial_is_deleted_with_one_line_and_the_next_fetch_starts_again(tiny: Tiny, site: Site, no_tools):  # noqa: F811
    tiny = packed(tiny, site)
    part = tiny.audio / ".tiny-downloads" / "en_US_f_Allison.tar.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(os.urandom(20_000))
    said: list[str] = []
    with pytest.raises(UserError, match=r"tried upstream archives \(en_US_f_Allison: "):
        fetch.recordings(tiny.card, say=said.append)
    assert site.statuses("en_US_f_Allison.tar.gz") == [206]
    (line,) = (line for line in said if "deleted" in line)
    assert line.startswith("tiny: en_US_f_Allison.tar.gz is corrupt and was deleted (")
    assert "\n" not in line
    assert left_behind(tiny.audio) == []
    assert fetch.faults(tiny.card, fetch.recordings(tiny.card, say=said.append)) == []


OTHER = """
import sys
from pathlib import Path
from harness import paths
from harness.data import fetch
from harness.data.corpora import Card
folder = Path(sys.argv[1])
paths.AUDIO = folder / "audio"
card = Card.model_validate_json((folder / "card.json").read_text())
print(fetch.faults(card, fetch.recordings(card, say=lambda text: print(text, flush=True))))
"""


def test_a_second_process_waits_for_the_first_ones_download(tiny: Tiny, site: Site, no_tools):  # noqa: F811
    tiny = packed(tiny, site)
    folder = tiny.audio.parent
    (folder / "card.json").write_text(tiny.card.model_dump_json())
    other: list[subprocess.Popen[str]] = []

    def meanwhile(text: str) -> None:
        if "fetching" in text:
            command = [sys.executable, "-c", OTHER, str(folder)]
            other.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            assert other[0].stdout
            assert other[0].stdout.readline() == "tiny: another process is fetching it; waiting\n"

    root = fetch.recordings(tiny.card, say=meanwhile)
    assert other[0].communicate(timeout=60)[0] == "[]\n"
    assert fetch.faults(tiny.card, root) == []
    assert [status for _, _, status in site.asked] == [200, 200]


@pytest.fixture
def package(tiny: Tiny, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on a Debian repository that is served over HTTP."""
    site.folder.rmdir()
    site.folder = tmp_path / "repository"
    return debian(tiny, tmp_path, monkeypatch, site.address)


def test_a_package_that_broke_off_is_gone_on_with(tiny: Tiny, site: Site, package: Path):
    content = package.read_bytes()
    card = describe(tiny.source, packages={"tiny-sounds": hashlib.sha256(content).hexdigest()})
    part = tiny.audio / ".tiny-downloads" / f"{package.name}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content[:30_000])
    told: list[tuple[str, int, int, str]] = []
    root = fetch.recordings(card, say=lambda text: None, progress=lambda *given: told.append(given))
    assert fetch.faults(card, root) == []
    assert [(ranged, status) for path, ranged, status in site.asked if path.endswith(".deb")] == [("bytes=30000-", 206)]
    assert (f"tiny: {package.name}", 30_000, len(content), "B") in told
    assert told[-1] == (f"tiny: {package.name}", len(content), len(content), "B")
    assert left_behind(tiny.audio) == ["tiny"]


def test_a_corrupt_package_is_deleted_with_one_line(tiny: Tiny, site: Site, package: Path):
    card = describe(tiny.source, packages={"tiny-sounds": hashlib.sha256(package.read_bytes()).hexdigest()})
    part = tiny.audio / ".tiny-downloads" / f"{package.name}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(os.urandom(30_000))
    said: list[str] = []
    with pytest.raises(UserError, match=rf"Debian packages \({package.name}: other SHA-256"):
        fetch.recordings(card, say=said.append)
    (line,) = (line for line in said if "deleted" in line)
    assert line.startswith(f"tiny: {package.name} is corrupt and was deleted (SHA-256 ")
    assert left_behind(tiny.audio) == []
    assert fetch.faults(card, fetch.recordings(card, say=said.append)) == []
