"""Every registered weighting by every check that applies to it. A new one is tested as soon as it is registered."""

import pytest
import torch

from harness.conformance.of_weightings import CHECKS
from harness.losses import all_weightings

PAIRS = [
    pytest.param(check, info, id=f"{check.name}, {info.name}", marks=[pytest.mark.cuda] if check.cuda else [])
    for check in CHECKS
    for info in all_weightings().values()
    if check.applies(info)
]


@pytest.mark.parametrize(("check", "info"), PAIRS)
def test_it_holds(check, info):
    if check.cuda and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    assert list(check.find(info)) == []
