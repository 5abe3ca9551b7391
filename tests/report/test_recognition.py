import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.classification import multiclass_recall

from harness.report import page, recognition
from harness.report.ranking import analyse
from harness.report.runs import Results
from tests.report.conftest import RUN
from tests.report.test_page import Tags
from tests.report.test_plots import texts

CLASSES = ("yes", "no", "up", "down")
RIGHT = {"cross_entropy": 0.7, "supcon": 0.3, "multi_margin": 0.9}  # by the logits
NEAR = {"cross_entropy": 0.6, "supcon": 0.95, "multi_margin": 0.5}  # by the embedding


def classified(folder, seeds=2, items=40, task="keywords", corpus="spoken_words"):
    """A classification whose losses are right as often as RIGHT and NEAR say, with the controls chance and constant."""
    rng = np.random.default_rng(3)
    runs, scores, summaries, kept = [], [], [], []
    for name in ("chance", "constant", *RIGHT):
        control = name not in RIGHT
        for seed in [pd.NA] if control else range(1, seeds + 1):
            run = f"{name}-{seed}"
            role = "control" if control else "reference" if name == "cross_entropy" else "loss"
            row = RUN | {"task": task, "corpus": corpus, "run_id": run, "protocol": "p1", "loss": name, "role": role}
            row |= {"seed": seed, "state": "finished", "tuning": "", "lr": 1e-3, "params": 1e4, "targets": ()}
            runs.append(row)
            for test_set in ("matched", "mismatched"):
                ids = [f"{test_set}/{k:03d}" for k in range(items)]
                table = pd.DataFrame({"run_id": run, "test_set": test_set, "item": ids, "cluster": ids})
                table["input_snr"], table["noise"] = np.resize([0.0, 10.0], items), np.resize(["ssn", "babble"], items)
                table["speaker"], table["floored"], table["unasked"] = table["cluster"], "", ""
                label = np.arange(items) % 4
                if name == "chance":
                    scores.append(table.assign(accuracy=0.25, centroid_accuracy=0.25))
                    continue
                right = label == 0 if control else rng.random(items) < RIGHT[name]
                near = right if control else rng.random(items) < NEAR[name]
                table["label"], table["said"] = (
                    label.astype(float),
                    np.where(right, label, (label + 1) % 4).astype(float),
                )
                table["confidence"] = 1.0 if control else rng.random(items)
                scores.append(table.assign(accuracy=right.astype(float), centroid_accuracy=near.astype(float)))
                for metric, value in (("macro_f1", right.mean()), ("calibration_error", 0.1), ("new_metric", 0.5)):
                    summaries.append((run, test_set, metric, value + (0 if control else 0.01 * seed)))
            if not control and seed == 1:
                path = folder / f"{name}.npz"
                vectors = np.eye(4)[np.arange(items) % 4] + 0.1 * rng.standard_normal((items, 4))
                np.savez(path, item=[f"matched/{k:03d}" for k in range(items)], embedding=vectors.astype(np.float16))
                kept.append((run, str(path)))
    empty = pd.DataFrame()
    return Results(
        runs=pd.DataFrame(runs).astype({"seed": "Int64"}),
        scores=pd.concat(scores, ignore_index=True),
        curves=empty,
        tuning=empty,
        throughput=empty,
        audio=empty,
        notes={},
        summaries=pd.DataFrame(summaries, columns=["run_id", "test_set", "metric", "value"]),
        embeddings=pd.DataFrame(kept, columns=["run_id", "path"]),
        classes={"p1": CLASSES},
        imbalance={"p1": 1.0},
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return classified(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def pictures(results):
    return recognition.pictures(results, analyse(results), "p1", ["multi_margin", "supcon", "cross_entropy"])


@pytest.fixture(scope="module")
def whole(results):
    return recognition.of_set(results, "p1", "matched", [*RIGHT, "chance", "constant"])


def cell(whole, loss, metric):
    cells = next(cells for name, _, cells in whole["rows"] if name == loss)
    return cells[[m for m, _ in whole["heads"]].index(metric)]


def test_metrics_of_a_set_are_means_and_spreads_over_seeds(results, whole):
    values = results.summaries
    own = values[values["run_id"].str.startswith("supcon") & (values["metric"] == "macro_f1")]
    own = own.loc[own["test_set"] == "matched", "value"]
    assert cell(whole, "supcon", "macro_f1") == f"{own.mean():.3f} ± {own.std():.3f}"
    assert cell(whole, "constant", "calibration_error") == "0.100"


def test_a_metric_that_the_page_has_no_words_for_is_shown_under_its_name(whole):
    assert ("new_metric", "new metric") in whole["heads"]


def test_recall_is_computed_for_every_seed_and_control_that_answers(results, whole):
    runs = [
        results.scores[(results.scores["run_id"] == f"supcon-{s}") & (results.scores["test_set"] == "matched")]
        for s in (1, 2)
    ]
    own = [multiclass_recall(*(torch.tensor(r[c].to_numpy(int)) for c in ("said", "label")), 4, "macro") for r in runs]
    assert cell(whole, "supcon", "recall") == f"{np.mean(own):.3f} ± {np.std(own, ddof=1):.3f}"
    assert cell(whole, "constant", "recall") == "0.250"
    assert [name for name, *_ in whole["rows"]] == [*RIGHT, "constant"]  # chance answers nothing


def test_an_imbalanced_training_shows_the_recall_of_the_rare(results):
    rare = recognition.of_set(Results(**{**vars(results), "imbalance": {"p1": 10.0}}), "p1", "matched", list(RIGHT))
    assert "minority_recall" in dict(rare["heads"])
    assert "recall" not in dict(rare["heads"])


def test_the_confusion_is_of_the_best_by_logits_and_of_the_reference(pictures):
    shown = texts(pictures["confusion"])
    assert {"multi_margin", "cross_entropy", *CLASSES} <= set(shown)
    assert "supcon" not in shown


def test_embeddings_are_of_the_best_either_way_and_of_the_reference(pictures):
    assert {"supcon", "multi_margin", "cross_entropy", *CLASSES} <= set(texts(pictures["embeddings"]))


def test_what_has_no_names_is_numbered_and_files_that_are_gone_are_left_out(results, tmp_path):
    bare = Results(
        **{**vars(results), "classes": {}, "embeddings": results.embeddings.assign(path=str(tmp_path / "gone"))}
    )
    drawn = recognition.pictures(bare, analyse(bare), "p1", list(RIGHT))
    assert {"0", "1", "2", "3"} <= set(texts(drawn["confusion"]))
    assert "embeddings" not in drawn


def test_curves_over_snr_are_means_over_seeds_and_items(results):
    block = next(b for b in analyse(results).blocks if (b.test_set, b.metric) == ("matched", "accuracy"))
    snr = results.scores.drop_duplicates("item").set_index("item")["input_snr"]
    curves = recognition.by_snr(block, snr).set_index(["loss", "step"])["value"]
    own = results.scores[results.scores["run_id"].str.startswith("supcon") & (results.scores["test_set"] == "matched")]
    assert curves["supcon"].to_dict() == pytest.approx(own.groupby("input_snr")["accuracy"].mean().to_dict())


def test_an_answer_that_is_not_finite_counts_as_wrong(results):
    scores = results.scores.copy()
    lost = (scores["run_id"] == "supcon-1") & (scores["item"] == "matched/000")
    scores.loc[lost, ["label", "said", "confidence"]] = np.nan
    own = recognition.answers(Results(**{**vars(results), "scores": scores}), "p1", "matched")
    row = own[(own["run_id"] == "supcon-1") & (own["item"] == "matched/000")].iloc[0]
    assert row["label"] == 0
    assert np.isnan(row["said"])
    assert "chance" not in set(own["name"])


def test_only_losses_that_train_embeddings_alone_are_said_to():
    names = (
        "supcon",
        "aam_softmax",
        "center",
        "triplet_margin",
        "cross_entropy",
        "cross_entropy + center",
        "of_a_plugin",
    )
    assert [name for name in names if recognition._on_embeddings(name)] == list(names[:4])


def test_the_page_of_a_classifier_says_nothing_of_a_denoiser(results):
    text = Tags(page.render(results, analyse(results))).text
    for phrase in ("oracle", "unprocessed", "Listen", "prompts", "estimate", "PESQ", "mask"):
        assert phrase not in text
    for phrase in (
        "Synthetic speech: says little about people.",
        "40 items, 40 voices",
        "over chance",
        "The control chance is right once in as many items as there are classes",
        "What is taken for what",
        "macro recall",
        "Calibration error (Guo et al. 2017)",
    ):
        assert phrase in text


def test_the_page_of_talkers_is_of_people_and_prompts(tmp_path):
    results = classified(tmp_path, task="voices", corpus="prompts")
    text = Tags(page.render(results, analyse(results))).text
    assert "Synthetic speech" not in text
    assert "40 prompts" in text


def test_a_denoiser_has_none_of_it(make_results):
    results = make_results({"mse": 1.0, "b": 2.0}, seeds=2, items=6)
    analysis = analyse(results)
    assert recognition.of_set(results, "p1", "matched", ["mse", "b"]) == {}
    text = page.render(results, analysis)
    assert "The oracle rows show the ceiling of a mask" in text
    assert "matched items of each input SNR" not in text
