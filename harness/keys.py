"""What names protocols, losses and runs: hashes of all that must be equal for two losses to be compared, and for a run to be one
that was made before."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from harness import losses, models
from harness.data import corpora
from harness.losses.combination import Combination
from harness.spec import Study

RESULT_VERSION = (
    1  # tasks, models, training and metrics: raise it when their numbers move; runs of older versions are stale
)
IDENTITY = r"^[0-9a-f]{12}$"  # the form of what `digest` gives


def protocol(study: Study, corpus_digest: str, lists: dict[str, str]) -> dict[str, Any]:
    """All that must be equal for two losses to stand in one table. lists: hash of each judged set's items."""
    source = models.get(study.model).source
    return ({"model_source": source} if source else {}) | {
        "task": study.task,
        "corpus": corpora.card(study.corpus).name,  # of a folder, wherever it lies
        "corpus_digest": corpus_digest,
        "scenes": study.scenes.model_dump(mode="json", exclude_none=True),
        "lists": lists,
        "model": study.model,
        "batch": study.batch,
        "updates": study.updates.model_dump(),
        "optimiser": study.optimiser.model_dump(),
        "precision": study.precision,
        "objective": study.objective,
        "result_version": RESULT_VERSION,
        **({} if study.search is None else {"search": study.search.model_dump(mode="json", exclude={"trials"})}),
    }


def digest(value: Any) -> str:
    """Hash of JSON data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()[:12]


def loss_key(combination: Combination, weighting: str) -> dict[str, Any]:
    """What makes a loss the same loss: terms, all settings, what they name, versions, weighting."""
    how = losses.get_weighting(weighting).key(combination)
    key = {**combination.canonical(), "versions": combination.versions, "weighting": how}
    return key | ({"named": combination.named} if combination.named else {})


def identity(protocol_digest: str, key: dict[str, Any], phase: str, seed: int | None, tuned: dict[str, float]) -> str:
    """Hash that names one run: asked for twice, it runs once. Rates are compared to six digits."""
    rounded = {name: float(f"{value:.6g}") for name, value in tuned.items()}
    return digest({"protocol": protocol_digest, "loss": key, "phase": phase, "seed": seed, "tuned": rounded})
