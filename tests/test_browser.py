"""The report and MLflow's UI in a real browser (Debian's chromium and chromium-driver)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Smoke
from tests.servers import free_port

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --mute-audio --autoplay-policy=no-user-gesture-required"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def page_of(smoke: Smoke) -> Path:
    """The page of the smoke study's protocol."""
    return next((smoke.home / "reports").glob("denoise-*.html"))


def until(what: Any) -> Any:
    """The first true value of a call, or its last."""
    end = time.monotonic() + 120  # a bound on hanging
    while not (value := what()) and time.monotonic() < end:
        time.sleep(0.3)
    return value


def test_the_report_opens_from_disk_without_errors_and_its_audio_plays(browser: Any, smoke: Smoke) -> None:
    browser.set_window_size(1200, 900)
    browser.get(page_of(smoke).as_uri())
    assert "si_sdr" in browser.find_element("tag name", "body").text
    for details in browser.find_elements("css selector", "details:not([open])"):
        browser.execute_script("arguments[0].open = true", details)
    players = browser.find_elements("tag name", "audio")
    assert len(players) >= 3 * (2 + 3)  # noisy, clean and three losses, of three items
    length = "const a = arguments[0]; a.preload = 'auto'; return a.error ? -1 : a.duration"
    for player in players[:8]:
        browser.execute_script("arguments[0].load()", player)
        seconds = until(lambda player=player: browser.execute_script(length, player))
        assert 1.5 <= seconds <= 8
    broken = "return [...document.images].filter(i => i.complete && !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def test_the_report_does_not_scroll_sideways_on_a_phone(browser: Any, smoke: Smoke) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        browser.get(page_of(smoke).as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(scope="module")
def ui(smoke: Smoke) -> Iterator[str]:
    port = free_port()
    store = f"sqlite:///{smoke.home / 'runs' / 'mlflow.db'}"
    command = [sys.executable, "-m", "harness.cli", "ui", "--port", str(port), "--tracking-uri", store]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return bool(urllib.request.urlopen(f"{address}/health", timeout=2).read() == b"OK")
        except OSError:
            return False

    try:
        assert until(answers)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_mlflows_ui_shows_the_parents_and_their_children_and_plays_their_audio(
    browser: Any, ui: str, smoke: Smoke
) -> None:
    from harness.tracking import Tracker

    tracker = Tracker(f"sqlite:///{smoke.home / 'runs' / 'mlflow.db'}")
    run = tracker.search("tags.phase = 'confirm'")[0]
    browser.set_window_size(1400, 1000)

    def text() -> str:
        return str(browser.find_element("tag name", "body").text)

    browser.get(f"{ui}/#/experiments/{run.info.experiment_id}/runs")
    assert until(lambda: "si_sdr" in text() and "unprocessed" in text()), text()
    browser.get(f"{ui}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
    assert until(lambda: "validation/pesq_wb" in text() and "matched/pesq_wb" in text()), text()
    wav = next(path for path in sorted(tracker.artifact(run.info.run_id, "audio").glob("*.wav")))  # type: ignore[union-attr]
    browser.get(f"{ui}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/audio/{wav.name}")
    found = "return document.querySelectorAll('audio, wave, canvas, [data-testid*=audio]').length"
    assert until(lambda: browser.execute_script(found)), Path(wav).name


def test_mlflows_ui_tells_the_ranking_the_use_of_the_machine_and_the_scores_item_by_item(
    browser: Any, ui: str, smoke: Smoke
) -> None:
    from harness.tracking import Tracker

    tracker = Tracker(f"sqlite:///{smoke.home / 'runs' / 'mlflow.db'}")
    run = tracker.search("tags.phase = 'confirm' and tags.family = 'distortion' and tags.state = 'finished'")[0]
    parent = run.data.tags["mlflow.parentRunId"]
    runs = f"{ui}/#/experiments/{run.info.experiment_id}/runs"

    def open_(address: str) -> None:
        browser.get("about:blank")  # the artifacts' page does not follow an address that changes behind its hash
        browser.get(address)

    def shows(address: str, *words: str) -> bool:
        open_(address)
        seen = until(lambda: all(word in browser.find_element("tag name", "body").text for word in words))
        return bool(seen)

    def source(*words: str) -> bool:
        return bool(until(lambda: all(word in browser.page_source for word in words)))

    assert shows(runs, "prompts · gru_mask · protocol")  # the head of the experiment's description
    assert shows(f"{runs}/{parent}", "Child runs", "family")
    assert source("The order:", "tie letters")
    assert shows(f"{runs}/{run.info.run_id}/system-metrics", "cpu_utilization_percentage", "process_memory_megabytes")
    assert shows(f"{runs}/{run.info.run_id}/artifacts/scores.json", "pesq_wb", "input_snr")
    picture = next(path for path in sorted(tracker.artifact(run.info.run_id, "audio").glob("*.png")))  # type: ignore[union-attr]
    open_(f"{runs}/{run.info.run_id}/artifacts/audio/{picture.name}")
    drawn = "return [...document.images].filter(i => i.naturalWidth > 300).length"
    assert until(lambda: browser.execute_script(drawn))


def test_the_pages_of_ones_own_recording_and_of_the_atlas_open_without_errors(
    browser: Any, smoke: Smoke, tmp_path: Path
) -> None:
    import soundfile
    import torch

    from harness import atlas
    from harness.report.atlas import write_atlas
    from tests.conftest import here

    write_atlas(atlas.responses(["snr"], torch.randn(8000, generator=torch.Generator().manual_seed(0))), tmp_path)
    soundfile.write(tmp_path / "mine.wav", 0.1 * torch.randn(16_000).numpy(), 16_000)
    store = f"sqlite:///{smoke.home / 'runs' / 'mlflow.db'}"
    done = here("listen", str(tmp_path / "mine.wav"), "--tracking-uri", store, home=tmp_path)
    assert done.returncode == 0, done.stderr
    browser.get_log("browser")  # of the pages before
    for page, words in ((tmp_path / "atlas.html", "blind"), (tmp_path / "reports" / "listen.html", "mine.wav")):
        browser.get(page.as_uri())
        assert words in browser.find_element("tag name", "body").text
        assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
    player = browser.find_elements("tag name", "audio")[-1]
    browser.execute_script("arguments[0].preload = 'auto'; arguments[0].load()", player)
    assert until(lambda: browser.execute_script("return arguments[0].duration", player)) == pytest.approx(1.0, abs=0.01)
