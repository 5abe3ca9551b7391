"""What a study has decided of an entrant, kept as tags of its parent run in MLflow."""

from __future__ import annotations

import json
from typing import Any

from harness import outbox
from harness.context import Context
from harness.entrants import Entrant


def read(context: Context, entrant: Entrant, name: str) -> dict[str, Any] | None:
    """What a tag of an entrant's parent run holds; None where there is none, or the store is away."""
    identity = context.parent(entrant.loss, entrant.weighting).identity
    runs = outbox.answer(context.tracker, lambda: context.tracker.search(f"tags.identity = '{identity}'"))
    return json.loads(runs[0].data.tags[name]) if runs and name in runs[0].data.tags else None


def write(context: Context, entrant: Entrant, name: str, content: dict[str, Any]) -> None:
    parent = context.parent(entrant.loss, entrant.weighting)
    outbox.mark(context.tracker, context.study.task, parent, None, **{name: json.dumps(content)})


def selection(context: Context, entrant: Entrant) -> dict[str, Any] | None:
    """What was decided for an entrant under this protocol: rate, "tuned" or "shipped", and the scores behind it."""
    return read(context, entrant, "selected")
