"""What a check is: a function that yields what does not hold, and the mend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from harness.errors import UserError, in_one_line

Finder = Callable[..., Iterator[str]]


@dataclass(frozen=True)
class Check:
    """One thing that must hold. find: yields the cases in which it does not, in words; mend: what to change in the code.

    applies: to which losses or models; cuda: whether it takes a GPU; decides: whether the checks behind it mean nothing where
    it does not hold.
    """

    find: Finder
    mend: str
    applies: Callable[[Any], bool] = lambda info: True
    cuda: bool = False
    decides: bool = False

    @property
    def name(self) -> str:
        return self.find.__name__

    @property
    def sentence(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ")

    def possible(self) -> bool:
        """Whether this machine can make it."""
        return not self.cuda or torch.cuda.is_available()

    def faults(self, *subject: Any) -> list[str]:
        """All that does not hold, an exception being one more fault. subject: what `find` takes."""
        found = []
        try:
            for fault in self.find(*subject):
                found.append(fault)
        except UserError as error:
            found.append(str(error))
        except Exception as error:  # somebody else's code
            found.append(in_one_line(error))
        return found


class Suite(list[Check]):
    """Checks in the order in which they are written, which is that in which they are made."""

    def add(self, *, mend: str, **more: Any) -> Callable[[Finder], Finder]:
        """A decorator for a finder. more: the other fields of a `Check`."""

        def decorate(find: Finder) -> Finder:
            self.append(Check(find, mend, **more))
            return find

        return decorate


def unlike(actual: torch.Tensor, expected: torch.Tensor, rtol: float | None = None, atol: float | None = None) -> str:
    """How two tensors differ, in one line; "" where they are close (and of one dtype)."""
    try:
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)
    except AssertionError as error:
        first, second = (shown(tensor) for tensor in (actual, expected))
        if first != second:
            return f"{first} instead of {second}"
        return " ".join(str(error).replace("\n", " ").split())[:160]
    return ""


def shown(tensor: torch.Tensor) -> str:
    """The values of a tensor, the first few of a long one."""
    values = tensor.detach().flatten().tolist()
    text = ", ".join(f"{value:.6g}" for value in values[:4])
    return f"{text}, …" if len(values) > 4 else text
