"""The pages that are published follow from the exports that are published, and from nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from harness import atlas, paths, published
from harness.distortions import noise
from harness.errors import UserError
from harness.readme import with_section
from harness.report import publish
from tests.conftest import Smoke, here

WORDS = re.compile(r"<text[^>]*>([^<]*)</text>")
MEND = "run `make results` and commit docs/results and README.md"
README = "# Mine\n\n<!-- results: written by make results -->\nStale words.\n<!-- end of results -->\n\nThe end.\n"


def quiet(done: int, of: int) -> None:
    pass


def files(folder: Path) -> dict[str, bytes]:
    made = [path for path in folder.rglob("*") if path.suffix in (".md", ".svg")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in made}


@pytest.fixture(scope="module")
def repository(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a README and an export of the smoke study."""
    root = tmp_path_factory.mktemp("repository")
    (root / "README.md").write_text(README)
    runs = root / "docs" / "results" / "runs"
    done = here("export", "tags.phase != 'tune'", str(runs / "smoke"), home=smoke.home)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def written(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the command printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "RESULTS", repository / "docs" / "results")
        patch.setattr(paths, "README", repository / "README.md")
        done = here("results", home=tmp_path_factory.mktemp("home"))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_writes_pages_pictures_and_the_section_of_the_readme(repository: Path, written: str) -> None:
    folder = repository / "docs" / "results"
    (page,) = folder.glob("denoise-*.md")
    assert re.search(r"on .+, \d{4}-\d\d-\d\d\. Protocol [0-9a-f]{12}\.", page.read_text())
    assert "make study STUDY=smoke\n" in page.read_text()
    assert f"{len(files(folder))} pages and pictures" in written
    readme = (repository / "README.md").read_text()
    assert readme.startswith("# Mine\n")
    assert readme.endswith("<!-- end of results -->\n\nThe end.\n")
    assert "Stale words" not in readme
    shown = re.findall(r"\]\((docs/results/[^)]+)\)", readme)
    assert len([path for path in shown if path.endswith(".svg")]) == 2
    assert all((repository / path).is_file() for path in shown)
    assert "(3 losses, 2 seeds)" in readme
    assert "Preliminary: quick form" in readme


def test_an_atlas_beside_the_exports_gets_a_page_and_is_led_to(repository: Path, tmp_path: Path) -> None:
    folder = repository / "docs" / "results"
    clean = noise(torch.randn(16000, generator=torch.Generator().manual_seed(0)), torch.tensor([10.0]))[0]
    atlas.responses(["si_sdr", "mse"], clean).to_csv(folder / "runs" / "atlas.csv", index=False)
    try:
        made, _ = published.texts(folder, repository / "README.md", quiet)
    finally:
        (folder / "runs" / "atlas.csv").unlink()
    assert "| si\\_sdr" in made["atlas.md"]
    assert "(atlas.md)" in made["README.md"]
    assert set(re.findall(r"\]\((pictures/[^)]+)\)", made["atlas.md"])) == {n for n in made if "/atlas." in n}
    assert "atlas.md" not in published.texts(folder, repository / "README.md", quiet)[0]


def test_links_of_a_page_lead_to_files_that_are_there(repository: Path, written: str) -> None:
    folder = repository / "docs" / "results"
    for page in folder.glob("*.md"):
        for path in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            assert (folder / path).exists(), (page.name, path)


def test_written_again_the_pages_are_the_same_bytes_and_what_follows_from_no_run_is_gone(
    repository: Path, written: str
) -> None:
    folder, readme = repository / "docs" / "results", (repository / "README.md").read_bytes()
    first = files(folder)
    (folder / "denoise-old.md").write_text(f"{publish.MARK}\n\n# An old protocol\n")
    (folder / "pictures" / "old.svg").write_text("<svg/>")
    (folder / "notes.md").write_text("# By hand\n")
    published.make(folder, repository / "README.md", quiet)
    (folder / "notes.md").unlink()
    assert files(folder) == first
    assert (repository / "README.md").read_bytes() == readme


def test_without_an_export_the_command_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").write_text(README)
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "docs" / "results")
    monkeypatch.setattr(paths, "README", tmp_path / "README.md")
    done = here("results", home=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "holds no export" in done.stderr
    assert "harness export" in done.stderr
    assert (tmp_path / "README.md").read_text() == README


def test_a_readme_without_a_place_for_results_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="end of results"):
        with_section("# Mine\n", "results", "make results", "new")


there_are = pytest.mark.skipif(not any(paths.RESULTS.glob("runs/**/runs.json")), reason="no results are published yet")


@there_are
def test_the_published_pages_were_written_from_the_published_runs() -> None:
    index = (paths.RESULTS / "README.md").read_text()
    for name, count, digest in published.sources(paths.RESULTS):
        assert re.search(rf"\| {re.escape(name)} +\| {count} +\| {digest} ", index.replace("\\", "")), MEND
    assert max(len(content) for content in files(paths.RESULTS).values()) < 150_000


@there_are
@pytest.mark.slow  # hundreds of runs are imported
def test_the_published_pages_and_the_readme_are_what_the_published_runs_say() -> None:
    """Of pictures the words are compared: where a line lies to the last digit is for the drawing library to say."""
    pages, section = published.texts(paths.RESULTS, paths.README, quiet)
    there = {name: text.decode() for name, text in files(paths.RESULTS).items()}
    assert set(pages) <= set(there), MEND
    for name, text in pages.items():
        same = WORDS.findall(text) == WORDS.findall(there[name]) if name.endswith(".svg") else text == there[name]
        assert same, f"{name}: {MEND}"
    marked = [name for name, text in there.items() if text.startswith(publish.MARK) or name.endswith(".svg")]
    assert set(marked) == set(pages), MEND
    readme = paths.README.read_text(encoding="utf-8")
    assert with_section(readme, "results", "make results", section) == readme, MEND
