"""Task `labels`: which label a recording bears, in a corpus of them or in folders of one's own; judged by accuracy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.data.label_scenes import LabelRule, LabelScenes, open_label_scenes
from harness.data.progress import Progress
from harness.tasks.classify import Keywords


class Labels(Keywords):
    """As `keywords`, on recordings as they are, or in noise where a study names one."""

    name = "labels"
    kind = "labels"
    corpus = "speech_commands"
    rule = LabelRule

    def open(
        self, corpus: str, rule: LabelRule, data_dir: Path | None, say: Callable[[str], None], progress: Progress
    ) -> LabelScenes:
        return open_label_scenes(corpus, rule, data_dir, say, progress)
