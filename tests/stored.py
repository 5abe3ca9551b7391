"""Runs in a real store as a study leaves them behind, without its trainings."""

import json

import numpy as np
import pandas as pd

from harness import keys, outbox

TAGS = {
    "protocol": "p1",
    "task": "denoise",
    "corpus": "prompts",
    "model": "gru_mask",
    "weighting": "fixed",
    "targets": "",
}
TAGS |= {"reference": "mse", "loss_versions": "{}", "result_version": str(keys.RESULT_VERSION), "preliminary": "True"}
TAGS |= {"device": "cpu", "commit": "c", "test_list": "l1 l2"}


def write(tracker, folder, loss, phase, seed, gain, updates, study="quick", lr=0.001, form="", content=None, **more):
    """One run as a study leaves it behind: its scores, its validation curve, its spec."""
    rng = np.random.default_rng([seed or 0, len(loss), len(phase)])
    items = [f"matched/{k}" for k in range(6)]
    table = pd.DataFrame({"test_set": "matched", "item": items, "cluster": items, "input_snr": 5, "noise": "ssn"})
    table = table.assign(
        speaker="anna", floored="", unasked="", estoi=0.5 + 0.1 * gain + 0.001 * rng.standard_normal(6)
    )
    folder.mkdir()
    table.to_csv(folder / "scores.csv", index=False)
    (folder / "spec.json").write_text(json.dumps({"loss": {}, "notes": ["Whose they are."], **(content or {})}))
    if seed is not None:
        steps = np.array([0.5, 1.0]) * updates
        curve = pd.DataFrame({"estoi": 0.5, "score": gain * np.array([0.5, 1.0]), "step": steps, "seconds": steps / 10})
        curve.to_csv(folder / "validation.csv", index=False)
    tags = TAGS | {"loss": loss, "phase": phase, "seed": "" if seed is None else str(seed), "study": study}
    tags |= more | {"identity": f"{loss}{form} {phase} {seed} {lr}", "role": "control" if seed is None else "loss"}
    parent = outbox.Parent(loss, f"parent {loss}{form}", TAGS | {"loss": loss} | more)
    record = outbox.Record(tracker, "denoise", loss, parent, tags, {"lr": lr, "loss": loss})
    record.log([("updates", updates, 0), ("parameters", 10, 0)] if seed is not None else [])
    record.close("finished", folder)
    assert not record.lost
    if seed == 1:
        chosen = {"lr": 0.001, "tuning": "tuned", "scores": {}}
        outbox.mark(tracker, "denoise", parent, selected=json.dumps(chosen))
