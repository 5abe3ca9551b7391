import base64
import csv
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from harness.report import cautions, page, stamp, tables, words
from harness.report.ranking import PAIRS, RANKING, analyse
from harness.report.runs import Results

EMPTY = pd.DataFrame()
GENERAL = ("index.html", "throughput.html", *(other.file for other in page.ELSEWHERE))  # pages of no protocol
SCRIPT = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """All tags and their attributes, and the text outside of style and script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self._last = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._last = tag

    def handle_data(self, data):
        self.words += [data] if self._last not in ("script", "style") else []

    def handle_endtag(self, tag):
        self._last = ""

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def write(results, folder):
    """The page of the one protocol, or the index where there is none."""
    index = page.write_report(results, folder)
    own = [path for path in folder.glob("*.html") if path.name not in GENERAL]
    return Tags((own or [index])[0].read_text(encoding="utf-8"))


def header(path):
    return next(csv.reader(path.open()))


@pytest.fixture(scope="module")
def full(make_results, tmp_path_factory):
    """One page with everything on it, and the folder it lies in."""
    folder = tmp_path_factory.mktemp("report")
    gains = {"mse": 1.0, "si_sdr": 2.0, "twin": 2.0, "old": 1.0, SCRIPT: 0.5}
    results = make_results(
        gains, seeds=3, items=12, stale=("old",), diverged=(("twin", 1),), targets={"si_sdr": ("si_sdr",)},
        audio=tmp_path_factory.mktemp("audio"), noise=0.05,
    )  # fmt: skip
    results.scores["speaker"] = results.scores["speaker"].replace("anna", SCRIPT)
    results.runs.loc[results.runs["loss"] == "twin", "reason"] = "loss not finite"
    results.notes["p1"].append(SCRIPT)
    return write(results, folder), folder


def test_names_from_outside_never_become_tags(full):
    for path in full[1].glob("*.html"):
        found = Tags(path.read_text(encoding="utf-8"))
        scripts = [attrs for tag, attrs in found.tags if tag == "script"]
        assert scripts == [{}]  # our own
        assert SCRIPT in found.text or path.name in set(GENERAL) - {"throughput.html"}


def test_our_own_script_runs_and_no_other_may(full):
    text = next(full[1].glob("denoise-*.html")).read_text(encoding="utf-8")
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\">" in text
    assert "default-src 'none'" in text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_pages_need_nothing_but_one_another(full):
    pages = {path.name for path in full[1].iterdir()}
    for path in full[1].glob("*.html"):
        for tag, attrs in Tags(path.read_text(encoding="utf-8")).tags:
            assert tag not in ("link", "iframe")
            assert (attrs.get("src") or "data:").startswith("data:")
            href = attrs.get("href") or attrs.get("xlink:href") or "#"
            assert href.startswith(("#", "http://127.0.0.1:5000/#/experiments/7/runs/")) or href in pages


def test_pages_of_other_commands_are_led_to_told_how_to_make_and_kept_once_made(make_results, tmp_path):
    results = make_results({"mse": 1.0, "snr": 1.5}, seeds=2, items=6)
    index = page.write_report(results, tmp_path).read_text()
    assert {"atlas.html", "listen.html"} <= set(re.findall(r'href="([^"#]+)"', index))
    assert "<code>make atlas</code>" in (tmp_path / "atlas.html").read_text()
    (tmp_path / "atlas.html").write_text("made")
    page.write_report(results, tmp_path)
    assert (tmp_path / "atlas.html").read_text() == "made"


def test_the_answer_comes_first_and_in_numbers(full):
    text = full[0].text
    assert re.search(r"Best for PESQ-WB si_sdr 2\.\d\d \( ?\+0\.\d\d over unprocessed", text)
    assert text.index("Best for PESQ-WB") < text.index("Matched: 12 items")


def test_the_page_says_what_is_missing_and_what_was_not_retuned(full):
    text = full[0].text
    for phrase in (
        "preliminary",
        "3 seeds; a full study has 5",
        "twin: 1 of 3 seeds diverged (loss not finite)",
        "Stale, shown but not ranked",
        "reference, not retuned",
        "GPU: not measured.",
        "The test list has been read by 1 study of 3 losses so far.",
        "P.862.2",
        "Example Corpus, CC BY 4.0",
    ):
        assert phrase in text


def test_every_loss_can_be_heard_beside_noisy_and_clean(full):
    players = [attrs for tag, attrs in full[0].tags if tag == "audio"]
    labels = [attrs["aria-label"] for attrs in players]
    assert labels[:3] == ["noisy", "clean", "si_sdr"]
    assert len(players) == 3 * (2 + 5) + 5 * 3  # and of each loss the item on which it did worst
    assert all(attrs["src"].startswith("data:audio/flac;base64,") for attrs in players)


def test_csv_files_have_the_columns_of_the_protocol(full):
    folder = full[1]
    assert header(folder / "ranking.csv") == RANKING
    assert header(folder / "pairs.csv") == PAIRS
    assert header(folder / "throughput.csv") == tables.THROUGHPUT
    assert not list(folder.glob(".*"))


def test_zero_runs_say_so_and_name_the_command(tmp_path):
    text = write(Results(EMPTY, EMPTY, EMPTY, EMPTY, EMPTY, EMPTY, {}), tmp_path).text
    assert "Nothing has been run yet" in text
    assert "make study LOSS=si_sdr" in text
    assert header(tmp_path / "ranking.csv") == RANKING


def test_one_loss_with_one_seed_and_nothing_else_makes_a_page(make_results, tmp_path):
    results = make_results({"b": 1.0}, seeds=1, items=6)
    results.runs = results.runs[results.runs["role"] == "loss"]
    results.curves = results.tuning = results.throughput = results.audio = EMPTY
    text = write(results, tmp_path).text
    assert "The only loss of this table." in text
    assert "The reference loss has not been run under this protocol." in text
    assert "one seed gives no interval" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_runs_that_all_diverged_make_a_page(make_results, tmp_path):
    results = make_results({"b": 1.0}, seeds=2, items=6, diverged=(("b", 0), ("b", 1)))
    results.runs = results.runs[results.runs["role"] == "loss"]
    text = write(results, tmp_path).text
    assert "No trained loss has test scores yet." in text
    assert "b: 2 of 2 seeds diverged" in text


def test_a_recording_that_is_gone_is_said_to_be_gone(make_results, tmp_path):
    audio = tmp_path / "audio"
    audio.mkdir()
    results = make_results({"mse": 1.0}, seeds=1, items=6, audio=audio)
    for path in results.audio.loc[results.audio["kind"] == "estimate", "path"]:
        (audio / path).unlink()
    assert "the recording is gone" in write(results, tmp_path).text


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    target = page.write(tmp_path / "index.html", "old")
    monkeypatch.setattr(page.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        page.write(target, "new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


def test_a_gpu_row_ends_the_remark_that_none_was_measured(make_results, tmp_path):
    results = make_results({"mse": 1.0, "b": 2.0}, seeds=2, items=6)
    results.throughput = pd.concat([results.throughput, results.throughput.assign(device="cuda (H100)")])
    text = write(results, tmp_path).text
    assert "GPU: not measured" not in text
    assert "cuda (H100), 2 threads, float32" in text


def test_summary_table_has_a_row_a_loss_and_control_best_first(make_results):
    analysis = analyse(make_results({"mse": 1.0, "si_sdr": 2.0}, items=12, noise=0.05))
    table = page.summary_table(analysis)
    assert table.columns.tolist() == ["loss", "PESQ-WB", "ESTOI", "SI-SDR", "DNSMOS OVRL", "overall"]
    assert table["loss"].tolist()[:2] == ["si_sdr", "mse"]
    assert re.fullmatch(r"\d\.\d\d \+0\.\d\d a", table["PESQ-WB"][0])
    assert table["overall"].tolist() == ["1", "2", "", "", ""]


def test_conditions_are_means_of_paired_gains(make_results):
    from harness.report.blocks import blocks

    results = make_results({"mse": 1.0}, seeds=2, items=12)
    block = next(iter(blocks(results)))
    by = {t["title"]: t for t in tables.condition_tables(results, block, ["mse"])}
    assert by["input SNR"]["columns"] == ["0 dB", "5 dB", "10 dB"]
    assert by["speaker"]["columns"] == ["anna", "bert", "carl", "dora"]
    gain = pd.Series(block.difference("mse", "unprocessed").mean(0), block.losses["mse"].columns)
    assert by["speaker"]["rows"][0][1][0] == words.number("pesq_wb", gain.iloc[::4].mean(), signed=True)


def test_numbers_and_lists_read_as_people_write_them():
    assert words.number("pesq_wb", -0.416, signed=True) == "−0.42"
    assert words.number("estoi", 0.8734) == "0.873"
    assert words.number("accuracy", -1e-17, signed=True) == "+0.000"
    assert words.number("si_sdr", float("nan")) == "–"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.listed([str(i) for i in range(10)], most=3) == "0, 1 and 8 more"


def test_tuning_cautions_name_edges_and_choices_of_other_metrics(make_results):
    results = make_results({"mse": 1.0, "b": 2.0}, seeds=2, items=6)
    results.tuning.loc[results.tuning["loss"] == "b", "pesq_wb"] = range(5)
    results.tuning.loc[(results.tuning["loss"] == "mse") & results.tuning["chosen"], "edge"] = True
    said = " ".join(cautions.cautions(results, analyse(results), "p1"))
    assert "lies on the edge of what was tried for mse." in said
    assert "Chosen by PESQ-WB alone, the learning rate would differ for b." in said


def test_a_rate_that_is_best_by_less_than_seeds_differ_is_named(make_results):
    results = make_results({"mse": 1.0, "si_sdr": 2.0}, seeds=3, items=6)
    score = pd.DataFrame({"run_id": [f"p1-{n}-{s}" for n in ("mse", "si_sdr") for s in range(3)], "metric": "score"})
    results.curves = score.assign(step=800, seconds=1.0, value=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])  # apart by 0.1
    close = results.tuning["loss"] == "mse"
    results.tuning.loc[close, "score"] = [0.0, 0.1, 0.3, 0.25, 0.0]
    results.tuning.loc[~close, "score"] = [0.0, 0.1, 0.3, 0.15, 0.0]
    said = [line for line in cautions.cautions(results, analyse(results), "p1") if "less than seeds differ" in line]
    assert said == [
        "The best learning rate beats the next by less than seeds differ (standard deviation 0.100 of the selection score) for "
        "mse: what the next best rate would have given may lie outside of the intervals."
    ]


def test_whose_voices_and_which_noise_a_set_has_and_what_was_judged_on_fewer_items_is_told(make_results, tmp_path):
    results = make_results({"mse": 1.0, "si_sdr": 2.0}, seeds=2, items=12)
    results.scores["unasked"] = ""
    third = results.scores["item"].str[-1].isin(["1", "2", "4", "5", "7", "8"])
    results.scores.loc[third, "dnsmos_ovrl"] = np.nan
    results.scores.loc[third, "unasked"] = "dnsmos_ovrl"
    page.write_report(results, tmp_path)
    for path in [*tmp_path.glob("denoise-*.md"), *tmp_path.glob("denoise-*.html")]:
        text = path.read_text("utf-8")
        assert "Voices: anna, bert, carl and dora; noise: babble and street." in text
        assert "Judged on fewer: DNSMOS OVRL on 5 items." in text
        assert "atched: 12 items, 4 prompts" in text


def test_mixed_commits_and_devices_are_said(make_results):
    results = make_results({"mse": 1.0, "b": 2.0}, seeds=2, items=6)
    results.runs.loc[results.runs["loss"] == "b", ["commit", "device"]] = ["fff", "cuda"]
    said = " ".join(cautions.cautions(results, analyse(results), "p1"))
    assert "come from 2 commits: abc1234 and fff." in said
    assert "come from 2 devices: cpu (16 cores) and cuda." in said


def test_the_pairs_file_holds_every_loss_against_the_unprocessed_recording_too(make_results, tmp_path):
    page.write_report(make_results({"mse": 1.0, "si_sdr": 2.0}, items=12, seeds=3), tmp_path)
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    own = pairs[(pairs.b == "unprocessed") & (pairs.test_set == "matched") & (pairs.metric == "pesq_wb")].set_index("a")
    ranking = pd.read_csv(tmp_path / "ranking.csv")
    means = ranking[(ranking.test_set == "matched") & (ranking.metric == "pesq_wb")].set_index("loss")["mean"]
    assert own["diff"]["si_sdr"] == pytest.approx(means["si_sdr"] - means["unprocessed"])
    assert own["low"]["si_sdr"] < own["diff"]["si_sdr"] < own["high"]["si_sdr"]
    assert len(pairs[(pairs.a == "si_sdr") & (pairs.b == "mse")]) == len(
        pairs[(pairs.a == "si_sdr") & (pairs.b == "unprocessed")]
    )


def test_a_report_is_current_until_the_results_or_the_page_change(make_results, tmp_path):
    results = make_results({"mse": 1.0}, items=6, seeds=2)
    assert not stamp.current(results, tmp_path)
    (tmp_path / "index.html").write_text("page")
    stamp.leave(results, tmp_path)
    assert stamp.current(make_results({"mse": 1.0}, items=6, seeds=2), tmp_path)
    assert not stamp.current(make_results({"mse": 1.0}, items=6, seeds=3), tmp_path)
    (tmp_path / "index.html").unlink()
    assert not stamp.current(results, tmp_path)


def test_items_that_a_loss_could_say_nothing_of_are_told_where_there_are_any(make_results):
    results = make_results({"mse": 0.0, "b": 1.0}, seeds=2, items=6)
    analysis = analyse(results)
    assert "could say nothing" not in " ".join(cautions.cautions(results, analysis, "p1"))
    results.runs["void"] = np.where((results.runs["loss"] == "b") & (results.runs["seed"] == 1), 0.031, 0.0)
    said = [line for line in cautions.cautions(results, analysis, "p1") if "could say nothing" in line]
    assert len(said) == 1
    assert said[0].startswith("b could say nothing of 3.1 % of the training items")
