"""Tasks `keywords` (which word was said) and `voices` (which talker in which language), judged by accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import nn

from harness.data.progress import Progress
from harness.data.voice_scenes import VoiceRule, VoiceScenes, open_voice_scenes
from harness.tasks.recognise import Recognise, predictions, rule_of
from harness.tasks.task import SHOWN_SEED, Fields, Judged
from harness.tasks.verification import auroc, equal_error_rate, pairs

CENTROID_ITEMS = 640  # of training, at least, whose embeddings' means are the centroids
BINS = 15  # of confidence, as Guo et al. 2017 (arXiv 1706.04599) count the calibration error


class Keywords(Recognise):
    """An output is an item's logits, (classes,), and the class whose centroid in the unit-norm embedding is nearest, so that
    losses on logits and losses on embeddings are judged in both ways. Centroids are means over training items."""

    name = "keywords"
    given = ("noisy", "label")
    predicted = ("logits", "embedding")
    rule = rule_of("keywords")
    controls = ("chance", "constant")
    explained = (
        "The control chance is right once in as many items as there are classes; constant always says the first class."
    )
    remarks: ClassVar[Mapping[str, str]] = {
        "real_words": "Real words: the ten digits as one person says them in English, a recording each, in every noise at "
        "every SNR. No net has heard a person say a word alone, nor this voice but in babble. Ten recordings of one voice "
        "show whether what synthetic voices teach carries over to a person at all, and not how well people are understood."
    }
    judged = ("accuracy", "centroid_accuracy")
    watched = ("accuracy", "centroid_accuracy")
    objectives = ("quality", *watched)

    def sizes(self, scenes: Any) -> dict[str, int]:
        return {"classes": len(scenes.classes)}

    def outputs(
        self, model: nn.Module, examples: Sequence[Fields], device: torch.device, batches: Callable[[int], Fields]
    ) -> list[Any]:
        model.eval()
        centroids = self._centroids(model, batches)
        made = []
        for given in predictions(model, examples, device):
            distance = np.linalg.norm(_unit(given["embedding"]) - centroids, axis=-1)
            near = np.isfinite(distance).any()
            nearest, away = (np.array(f(distance) if near else np.nan) for f in (np.nanargmin, np.nanmin))
            kept = {name: given[name] for name in ("logits", "embedding")}
            made.append(kept | {"nearest": nearest, "away": away})
        model.train()
        return made

    def keep(self, folder: Path, judged: Judged, picture: Callable[..., bytes]) -> None:
        """Unit-norm embeddings of the matched set, (items, dim), with the items' ids, in `embeddings.npz`."""
        if judged.test_set == "matched" and judged.seed == SHOWN_SEED:
            embeddings = _unit(np.stack([output["embedding"] for output in judged.outputs]))
            np.savez_compressed(
                folder / "embeddings.npz", item=list(judged.ids), embedding=embeddings.astype(np.float16)
            )

    def _centroids(self, model: nn.Module, batches: Callable[[int], Fields]) -> np.ndarray:
        """(classes, dim); a class that no item is of is nowhere."""
        embeddings: list[np.ndarray] = []
        labels: list[int] = []
        with torch.inference_mode():
            while len(labels) < CENTROID_ITEMS:
                fields = batches(len(embeddings))
                embeddings.append(model(fields["noisy"])["embedding"].float().cpu().numpy())
                labels += fields["label"].tolist()
        member = np.eye(max(labels) + 1, dtype=np.float32)[labels]
        centroids = _unit(member.T @ _unit(np.concatenate(embeddings)))
        return np.where(member.sum(0)[:, None] > 0, centroids, np.nan)

    def control(self, name: str, examples: Sequence[Fields], scenes: Any, model: type[nn.Module]) -> list[Any]:
        """`chance` is right once in so many classes, on every item alike; `constant` always says the first class."""
        classes = len(scenes.classes)
        first = {"logits": 50 * np.eye(classes)[0], "nearest": np.array(0)}  # and is sure of it
        return [{"chance": classes} if name == "chance" else first] * len(examples)

    def measure(self, output: Mapping[str, np.ndarray], example: Fields) -> dict[str, Any]:
        label = int(example["label"])
        if label < 0:
            return {}  # a word that no class is of
        if "chance" in output:
            return dict.fromkeys(self.judged, 1 / float(output["chance"]))
        nearest = output["nearest"]
        centroid = {"centroid_accuracy": np.nan if np.isnan(nearest) else float(nearest == label)}
        logits = output["logits"].astype(float)
        if not np.isfinite(logits).all():
            return {"accuracy": np.nan, **centroid}
        said = int(logits.argmax())
        about = {"label": label, "said": said, "confidence": _confidence(output)}
        return {"accuracy": float(said == label), **centroid, **about}

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        """Macro F1, and the calibration error of the logits."""
        if "said" not in table or table["said"].isna().any():
            return {}
        from torchmetrics.functional.classification import binary_calibration_error, multiclass_f1_score

        said, label = (torch.tensor(table[name].to_numpy(int)) for name in ("said", "label"))
        sure, right = torch.tensor(table["confidence"].to_numpy(float)), (said == label).long()
        classes = int(torch.cat([said, label]).max()) + 1
        # The confidence in what is said, against whether it is right, is the calibration error of several classes.
        return {
            "macro_f1": float(multiclass_f1_score(said, label, classes, average="macro")),
            "calibration_error": float(binary_calibration_error(sure, right, BINS)),
        }

    def across(self, sets: Mapping[str, Judged]) -> dict[str, float]:
        """Equal error rates of the sets, and how well known words are told from those of the open set: by the highest softmax of
        the logits, and by how far the nearest centroid is.

        To a control, which does not listen, all items are alike. Where an output is not finite nothing is said: the rest of
        them would reward it.
        """
        found = {f"{name}/equal_error_rate": _verified(judged) for name, judged in sets.items() if name != "open_set"}
        if "open_set" in sets:
            known, unknown = sets["matched"].outputs, sets["open_set"].outputs
            for metric, score in (("open_set_auroc", _confidence), ("open_set_centroid_auroc", _closeness)):
                found[f"matched/{metric}"] = _detected(list(map(score, known)), list(map(score, unknown)))
        return {name: value for name, value in found.items() if np.isfinite(value)}


class Voices(Keywords):
    """As `keywords`, on windows of running speech."""

    name = "voices"
    kind = "speech"
    corpus = "prompts"
    rule = VoiceRule
    remarks: ClassVar[Mapping[str, str]] = {
        "real_words": "Real words: who says a single digit, 0 or 9, the two that no training heard, in every noise at every SNR; a "
        "recording of each in every class, and so eight. One word holds less of a voice than a second of running speech."
    }

    def open(
        self, corpus: str, rule: Any, data_dir: Path | None, say: Callable[[str], None], progress: Progress
    ) -> VoiceScenes:
        return open_voice_scenes(corpus, rule, data_dir, say, progress)


def _verified(judged: Judged) -> float:
    """Equal error rate of a set, NaN where an embedding is not finite or there is no pair of each kind."""
    embedding = _unit(np.stack([output.get("embedding", np.ones(1)) for output in judged.outputs]))
    label = np.array([int(example["label"]) for example in judged.examples])
    one, other, same = pairs(label, np.array(judged.clusters))
    score = (embedding[one] * embedding[other]).sum(-1)
    return equal_error_rate(score, same) if len(same) and np.isfinite(embedding).all() else np.nan


def _detected(known: Sequence[float], unknown: Sequence[float]) -> float:
    return auroc(np.array(known), np.array(unknown)) if np.isfinite([*known, *unknown]).all() else np.nan


def _confidence(output: Mapping[str, np.ndarray]) -> float:
    logits = output.get("logits", np.zeros(1)).astype(float)
    return float(1 / np.exp(logits - logits.max()).sum())


def _closeness(output: Mapping[str, np.ndarray]) -> float:
    return -float(output.get("away", np.zeros(1)).item())


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
