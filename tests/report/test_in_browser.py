"""What the script of a page does, in a real browser: sounds by keys, rows found and sorted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.report import page
from harness.report.ranking import analyse
from tests.test_browser import browser, pytestmark, until  # noqa: F401

NAMES = {"mse": 1.0, "si_sdr": 2.0, "l1": 0.5}


@pytest.fixture(scope="module")
def opened(browser: Any, make_results: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: F811
    results = make_results(NAMES, seeds=2, items=6, audio=tmp_path_factory.mktemp("audio"))
    results.curves = results.tuning = results.curves.iloc[:0]  # no pictures are wanted
    folder = tmp_path_factory.mktemp("page")
    page.write_report(results, folder, analyse(results))
    browser.get(next(Path(folder).glob("denoise-*.html")).as_uri())
    return browser


def shown(browser: Any) -> list[str]:  # noqa: F811
    """Names of the trained losses in the first table, as they stand."""
    rows = "return [...document.querySelector('#ranking table').tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[0])"
    return [cell.text.split()[0] for cell in browser.execute_script(rows)]


def test_rows_are_found_by_their_name(opened: Any) -> None:
    field = opened.find_element("css selector", "#ranking input[type=search]")
    field.send_keys("SDR")
    assert shown(opened) == ["si_sdr"]
    opened.execute_script("arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", field)
    assert sorted(shown(opened)) == sorted(NAMES)


def test_rows_are_sorted_by_a_click_or_the_enter_key_on_a_head(opened: Any) -> None:
    head = opened.find_element("css selector", "#ranking table th:nth-child(3)")  # PESQ-WB
    button = head.find_element("tag name", "button")
    button.send_keys("\ue007")
    assert shown(opened) == ["l1", "mse", "si_sdr"]
    assert head.get_attribute("aria-sort") == "ascending"
    button.click()
    assert shown(opened) == ["si_sdr", "mse", "l1"]
    assert head.get_attribute("aria-sort") == "descending"


def test_a_row_leads_to_its_runs_and_shows_its_command(opened: Any) -> None:
    (row,) = [
        r for r in opened.find_elements("css selector", "#ranking table tbody tr") if r.text.startswith("si_sdr")
    ][:1]
    opened.execute_script("arguments[0].querySelector('details').open = true", row)
    links = [a.get_attribute("href") for a in row.find_elements("tag name", "a")]
    assert links == [f"http://127.0.0.1:5000/#/experiments/7/runs/p1-si_sdr-{seed}" for seed in (0, 1)]
    assert row.find_element("tag name", "code").text == "make study STUDY=quick LOSS=x"


def test_keys_play_change_and_go_back_at_the_same_position(opened: Any) -> None:
    group = opened.find_element("css selector", ".item")
    sounds = group.find_elements("tag name", "audio")

    def playing() -> list[int]:
        return [k for k, sound in enumerate(sounds) if opened.execute_script("return !arguments[0].paused", sound)]

    def at(place: int) -> float:
        return float(opened.execute_script("return arguments[0].currentTime", sounds[place]))

    group.send_keys(" ")
    assert until(lambda: playing() == [0])
    opened.execute_script("arguments[0].pause(); arguments[0].currentTime = 0.5", sounds[0])
    group.send_keys("\ue014")  # right
    assert until(lambda: at(1) == pytest.approx(0.5, abs=0.05))
    assert playing() == []
    group.send_keys("b")
    assert until(lambda: opened.execute_script("return document.querySelector('.clip.now audio')") == sounds[0])
    group.send_keys("\ue012")  # left: round to the last
    assert until(lambda: opened.execute_script("return document.querySelector('.clip.now audio')") == sounds[-1])
    group.send_keys(" ")
    assert until(lambda: at(-1) > 0.6)  # well under way: what it tells the page of its beginning has been heard
    begin = "arguments[0].loop = arguments[1].loop = true; arguments[1].play().catch(() => {})"
    opened.execute_script(begin, sounds[-1], sounds[2])
    assert until(lambda: playing() == [2])  # one at a time
    opened.execute_script("arguments[0].pause()", sounds[2])


def test_nothing_of_it_is_an_error_and_no_policy_is_broken(opened: Any) -> None:
    assert [line for line in opened.get_log("browser") if line["level"] == "SEVERE"] == []
