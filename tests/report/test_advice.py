import re
from dataclasses import replace

import pandas as pd
import pytest

from harness.report import advice, publish, verdict
from harness.report.ranking import analyse
from harness.report.view import View

GAINS = {"mse": 1.0, "si_sdr": 2.0, "twin": 2.0, "l1": 0.5}


def view(results):
    return View(results, analyse(results), "p1")


@pytest.fixture(scope="module")
def results(make_results):
    made = make_results(GAINS, seeds=5, items=30, noise=0.2, targets={"si_sdr": ("si_sdr",)})
    steps = made.throughput["loss"].map({"mse": 20.0, "si_sdr": 50.0, "twin": 22.0, "l1": 20.0})
    made.throughput = made.throughput.assign(model="gru_small", step_ms=steps, step_ratio=steps / 20)
    return made


def test_the_losses_that_nothing_beats_are_advised_and_the_cheapest_of_them_is_named(results):
    said = " ".join(advice.sentences(view(results)))
    assert said.startswith("denoise / prompts / gru_small (4 losses, 5 seeds): use ")
    assert "use si_sdr or twin: no other" in said or "use twin or si_sdr: no other" in said
    assert "The cheapest of them is twin, which takes 1.1 × the step of mse" in said
    assert "On mismatched items the same are unbeaten." in said
    assert "Preliminary" not in said


def test_a_loss_that_is_best_on_one_metric_and_beaten_on_another_is_not_advised_for_all(make_results):
    shift = {("si_sdr", "pesq_wb"): -1.5, ("twin", "si_sdr"): -1.5}
    said = advice.sentence(view(make_results(GAINS, seeds=5, items=30, noise=0.05, shift=shift)))
    assert "it depends on what counts: for PESQ-WB twin; " in said
    assert "for SI-SDR si_sdr; " in said


def test_a_loss_that_ties_with_the_best_but_is_beaten_by_another_is_not_advised(results):
    own = view(results)
    ranking = own.analysis.ranking.copy()
    assert {"si_sdr", "twin"} == set(advice.unbeaten(own, "matched"))
    beaten = (ranking["loss"] == "twin") & (ranking["metric"] == "estoi") & (ranking["test_set"] == "matched")
    ranking.loc[beaten, "rank"] = 2  # its letters are still those of the best
    other = View(results, replace(own.analysis, ranking=ranking), "p1")
    assert advice.unbeaten(other, "matched") == ["si_sdr"]
    assert advice.unbeaten(other, "mismatched") == advice.unbeaten(own, "mismatched")


def test_what_every_loss_makes_worse_on_another_set_is_said(make_results):
    made = make_results({"mse": 1.0, "l1": 0.9}, seeds=5, items=30, noise=0.05)
    there = made.scores["test_set"] == "mismatched"
    made.scores.loc[there & ~made.scores["run_id"].str.contains("unprocessed|oracle"), "estoi"] -= 0.5
    said = advice.sentences(view(made))
    assert [line for line in said if line.endswith("; every loss lowers ESTOI.")] != []
    told = " ".join(verdict.sentences(view(made)))
    assert re.search(r"[Ff]or ESTOI it is \S+ \(−0\.\d+ over unprocessed, worse for certain\)", told)
    assert "PESQ-WB it is" not in told.split("On mismatched")[0]


def test_few_seeds_stamp_the_advice(make_results):
    own = view(make_results(GAINS, seeds=3, items=12, noise=0.05))
    assert advice.sentences(own)[-1].startswith("Preliminary: 3 seeds; a full study has 5")
    assert advice.sentence(own).endswith("(preliminary).")


def test_where_nothing_parts_the_losses_no_loss_is_recommended_over_another(make_results):
    own = view(make_results(dict.fromkeys(("mse", "l1"), 1.0), seeds=3, items=12, noise=2.0))
    assert "nothing parts the losses for certain" in advice.sentence(own)


def test_one_seed_is_no_reason_to_take_the_cheapest_loss_and_is_said_to_tell_nothing(make_results):
    own = view(make_results({"mse": 1.0, "l1": -1.0}, seeds=1, items=12))
    said = advice.sentences(own)
    assert "one seed tells nothing for certain; the highest means are those of mse on PESQ-WB (" in said[0]
    assert not [line for line in said if "cheapest" in line or "unbeaten" in line]
    assert "one seed does not tell it from l1" in verdict.sentences(own)[0]
    assert "rank first" not in " ".join(verdict.sentences(own))


def test_without_scores_there_is_no_advice(make_results):
    made = make_results({"mse": 1.0}, items=6, seeds=1, diverged=(("mse", 0),))
    made.runs = made.runs[made.runs["role"] != "control"]
    assert advice.sentences(view(made)) == []
    assert advice.sentence(view(made)) == ""


@pytest.fixture(scope="module")
def files(results, make_results):
    """Of that protocol and another of another task, which has more losses: pages and the section of the README."""
    made = make_results({"cross_entropy": 1.0, **{f"c{k}": 1.0 for k in range(4)}}, seeds=2, items=4, protocol="p2")
    made.runs["task"] = "keywords"
    for name in ("runs", "scores", "tuning"):
        setattr(made, name, pd.concat([getattr(results, name), getattr(made, name)]))
    made.notes |= results.notes
    made.curves, made.throughput = made.curves.iloc[:0], results.throughput
    return publish.files(made, "docs/results", [("runs/all", 30, "abc")])


def test_the_section_of_the_readme_has_gains_with_intervals_throughput_and_two_pictures_of_the_pages(results, files):
    pages, section = files
    gains = analyse(results).gains.set_index(["test_set", "metric", "loss"])
    gain = gains.loc[("matched", "pesq_wb", "twin")]
    row = next(line for line in section.splitlines() if line.startswith("| twin"))
    assert f"+{gain['gain']:.2f} \\[+{gain['low']:.2f}, +{gain['high']:.2f}\\]" in row
    assert f"{1000 / (20 + 0.4 * 1.25**2):.1f} updates/s, 1.1 ×" in row
    shown = [part.split(")")[0] for part in section.split("](docs/results/")[1:]]
    assert [name.split(".")[1] for name in shown if name.endswith(".svg")] == ["ranking-matched", "cost-1"]
    assert all(name in pages for name in shown)


def test_a_loss_that_is_advised_has_a_row_however_low_its_place_and_what_it_games_is_said(make_results):
    gains = {"mse": 1.0, "gamer": 0.2, **{f"l{k}": 1.5 + 0.2 * k for k in range(9)}}
    shift = {("gamer", "pesq_wb"): 5.0}
    made = make_results(gains, seeds=5, items=12, noise=0.02, shift=shift, targets={"gamer": ("pesq_wb",)})
    own = view(made)
    _, rows = publish.top(own, own.analysis, "matched")
    names = [row[0] for row in rows]
    assert names.index("gamer") >= publish.TOP
    assert len(names) == len(set(names)) < len(gains)
    said = " ".join(advice.sentences(own))
    assert "for PESQ-WB gamer;" in said
    assert "gamer beats mse on what it optimises (PESQ-WB) and loses on ESTOI, SI-SDR and DNSMOS OVRL." in said


def test_every_model_of_a_task_has_a_line(results, make_results):
    more = make_results(GAINS, seeds=3, items=6, protocol="p2")
    more.runs["model"] = "conv_tasnet"
    for name in ("runs", "scores", "tuning"):
        setattr(more, name, pd.concat([getattr(results, name), getattr(more, name)]))
    more.curves = more.curves.iloc[:0]
    _, section = publish.files(more, "docs/results", [])
    assert "- denoise / prompts / conv\\_tasnet (4 losses, 3 seeds): " in section
    assert section.startswith(
        "**Which loss should I use?** By task / corpus / model (study): denoise / prompts / gru\\_small (4"
    )


def test_a_page_of_one_seed_does_not_lead_over_one_of_several(results, make_results):
    more = make_results(GAINS | {f"l{k}": 1.0 for k in range(30)}, seeds=1, items=4, protocol="p2")
    for name in ("runs", "scores", "tuning"):
        setattr(more, name, pd.concat([getattr(results, name), getattr(more, name)]))
    more.curves = more.curves.iloc[:0]
    _, section = publish.files(more, "docs/results", [])
    assert "(4 losses, 5 seeds)" in section
    assert "34 losses" not in section


@pytest.mark.parametrize("seeds", [1, 5])
def test_a_full_study_leads_over_a_preliminary_one_of_more_losses_and_weightings_have_a_line_of_their_own(
    seeds, results, make_results
):
    more = make_results(GAINS | {f"l{k}": 1.0 for k in range(9)}, seeds=3, items=30, protocol="p2")
    weighed = make_results({"mse": 1.0} | {f"w{k}": 1.0 for k in range(20)}, seeds=seeds, items=30, protocol="p3")
    weighed.runs.loc[weighed.runs["loss"] == "w3", "weighting"] = "equal"
    for name in ("runs", "scores", "tuning"):
        setattr(more, name, pd.concat([getattr(one, name) for one in (results, more, weighed)]))
    more.curves, more.notes = more.curves.iloc[:0], results.notes | more.notes | weighed.notes
    lead, others = publish.files(more, "docs/results", [])[1].split("\n\n")[:2]
    assert "(4 losses, 5 seeds)" in lead
    assert ("(21 losses, 5 seeds)" in others) == (seeds == 5)
    assert "(21 losses, 1 seed)" not in others
    assert "(13 losses, 3 seeds)" not in others  # of the same task, and less


def test_a_page_says_how_when_and_on_what_it_was_measured_and_shows_its_pictures(files):
    pages, _ = files
    (name,) = [name for name in pages if name.startswith("denoise")]
    text = pages[name]
    assert text.startswith(publish.MARK)
    assert re.search(r"\| p1 +\| denoise / prompts / gru\\_small +\| 4 +\| 5 +\| cpu \(16 cores\) ", pages["claims.md"])
    for words in ("seeds: 5", "on cpu (16 cores), 2026-11-24. Protocol p1.", "make study STUDY=quick"):
        assert words in text
    assert text.count("](pictures/denoise-prompts-gru_small-p1.") == 3
    assert "Measured 2026-11-25." in pages["throughput.md"]
    assert f"]({name})" in pages["README.md"]
    assert re.search(r"\| runs/all +\| 30 +\| abc ", pages["README.md"])


def test_the_denoising_protocol_leads_whatever_else_is_published(files):
    paragraph, others = files[1].split("\n\n")[:2]
    assert "denoise / prompts" in paragraph
    assert others.startswith("- keywords / prompts")
    assert "(preliminary). [The page](docs/results/keywords-" in others
    assert "[The whole table](docs/results/denoise-" in files[1]
