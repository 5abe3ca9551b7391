"""Addresses of stores, told without the passwords that they may hold."""

from __future__ import annotations

import re
import sys

HIDDEN = "***"
# Up to the last @: who forgot to quote an @, a slash or a blank in a password must not read a part of it.
_PASSWORD = re.compile(r"(?<=://)([^:/@?#]*:).*(?=@)", re.DOTALL)
_OPTION = re.compile(r"([?&][^=&\s]*(?:password|passwd|secret|token)=)[^&]*", re.IGNORECASE)
_WORD = re.compile(r"[^\s'\"]+://\S+")


def shown(address: str) -> str:
    """An address with its password hidden, whatever else is wrong with it."""
    return _OPTION.sub(rf"\1{HIDDEN}", _PASSWORD.sub(rf"\1{HIDDEN}", address))


def scrubbed(text: str, address: str = "") -> str:
    """A text, such as a library's error, without the passwords of the addresses in it. address: one that it may quote."""
    whole = text.replace(address.rstrip("/"), shown(address.rstrip("/"))) if address else text
    return _WORD.sub(lambda found: shown(found[0]), whole)


def hide_arguments() -> None:
    """Take passwords out of the command line of this process, which everybody on the machine may read."""
    told = [shown(argument) for argument in sys.orig_argv]
    if told != sys.orig_argv:
        import setproctitle

        setproctitle.setproctitle(" ".join(told))
