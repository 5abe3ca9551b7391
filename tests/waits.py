"""What makes a GPU wait, forbidden for a while: on a GPU as the driver sees it, on a CPU by the calls that would make one wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

# Each brings a value, or a shape that hangs on values, to the host.
LOOKS = {
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
}
COPIES = {"lift_fresh"}  # of lists; a single number that is put into a slice is filled in, and copied from nowhere


class Waits(RuntimeError):
    """A step of a training would wait for the GPU."""


@contextmanager
def forbidden(device: torch.device) -> Iterator[None]:
    """Whatever would wait for the device is an error meanwhile."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return
    # These three are no calls of kernels.
    with _Watched(), patch.multiple(torch.Tensor, tolist=_look, numpy=_look, cpu=_look):
        yield


def _look(tensor: torch.Tensor, *_: Any, **__: Any) -> None:
    raise Waits("a tensor is brought to the host")


class _Watched(TorchDispatchMode):
    """Calls on a CPU that would wait on a GPU. AdamW counts its updates on the CPU wherever the weights are: it may look."""

    def __enter__(self) -> Any:
        self.counting = False
        self.hooks = [
            register_optimizer_step_pre_hook(lambda *_: setattr(self, "counting", True)),
            register_optimizer_step_post_hook(lambda *_: setattr(self, "counting", False)),
        ]
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()
        super().__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        copies = name in COPIES and args[0].dim() > 0
        if (name in LOOKS or copies or by_mask) and not self.counting:
            raise Waits(f"{function} waits for the GPU")
        return function(*args, **kwargs or {})
