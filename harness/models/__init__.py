"""Models by name. A model is an nn.Module whose `forward` takes a task's given fields and returns its predicted ones.

To add one, decorate its class with `@model` (in a file here, or in one named by `--plugin`).
"""

from __future__ import annotations

from harness.models import classifiers, denoisers
from harness.models.registry import ModelInfo, all_models, build, get, inputs, model

__all__ = ["ModelInfo", "all_models", "build", "classifiers", "denoisers", "get", "inputs", "model"]
