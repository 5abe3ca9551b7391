"""Addresses of stores, told without the passwords that they may hold."""

from __future__ import annotations

import os
import re
import sys

HIDDEN = "***"
VARIABLES = ("HARNESS_STORAGE", "HARNESS_TRACKING_URI")
# Up to the last @: who forgot to quote an @, a slash or a blank in a password must not read a part of it.
_PASSWORD = re.compile(r"(?<=://)([^:/@?#]*:).*(?=@)", re.DOTALL)
_OPTION = re.compile(r"([?&][^=&\s]*(?:password|passwd|secret|token)=)[^&]*", re.IGNORECASE)
_ADDRESS = re.compile(r"[\w+]+://.+", re.DOTALL)
_WORD = re.compile(r"[^\s'\"]+://\S+")


def shown(address: str) -> str:
    """An address with its password hidden, whatever else is wrong with it."""
    return _OPTION.sub(rf"\1{HIDDEN}", _PASSWORD.sub(rf"\1{HIDDEN}", address))


def scrubbed(text: str, address: str = "") -> str:
    """A text, such as a library's error, without the passwords of the addresses in it. address: one that it may quote, as it may
    those that this process was given."""
    for quoted in (address, *_given()):
        text = text.replace(quoted.rstrip("/"), shown(quoted.rstrip("/"))) if quoted else text
    return _WORD.sub(lambda found: shown(found[0]), text)


def _given() -> list[str]:
    """Of these even a password with blanks in it is known whole."""
    told = (*sys.argv, *sys.orig_argv, *(os.environ.get(name, "") for name in VARIABLES))
    return [found[0] for found in map(_ADDRESS.search, told) if found]


def hide_arguments() -> None:
    """Take passwords out of the command line of this process, which everybody on the machine may read."""
    told = [shown(argument) for argument in sys.orig_argv]
    if told != sys.orig_argv:
        import setproctitle

        setproctitle.setproctitle(" ".join(told))
