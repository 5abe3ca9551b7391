"""Files of a user's own that register losses (`@loss`), models (`@model`) and weightings (`@weighting`)."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from harness import paths
from harness.errors import UserError

PREFIX = "harness_plugin_"


def source_of(module: str) -> str:
    """Hash of the file of a user's own that a module is; "" of any other module."""
    if not module.startswith(PREFIX):
        return ""
    return hashlib.sha256(Path(sys.modules[module].__file__ or "").read_bytes()).hexdigest()[:12]


def sources() -> dict[str, str]:
    """Hashes of the files that are loaded, by the names of the files."""
    loaded = [name for name in list(sys.modules) if name.startswith(PREFIX)]
    return {Path(sys.modules[name].__file__ or "").name: source_of(name) for name in loaded}


def load_plugins(files: Iterable[Path]) -> None:
    """Import each file once, under a module name of its own. UserError names the file and the line of the user's mistake."""
    for file in files:
        if not paths.is_file(file) or file.suffix != ".py":
            raise UserError(f"plugin {str(file)[:200]!r}: no such Python file")
        name = f"{PREFIX}{file.stem}_{hashlib.sha1(str(file.resolve()).encode()).hexdigest()[:8]}"
        if name in sys.modules:
            continue
        module_spec = importlib.util.spec_from_file_location(name, file)
        assert module_spec is not None
        assert module_spec.loader is not None
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[name] = module
        try:
            module_spec.loader.exec_module(module)
        except UserError:
            del sys.modules[name]
            raise
        except Exception as error:
            del sys.modules[name]
            # The last line of the user's own file: below it may lie a library's, and a file that does not parse has no frame.
            frames = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
            line = error.lineno if isinstance(error, SyntaxError) else frames[-1] if frames else 0
            raise UserError(
                f"plugin {str(file)!r}, line {line}: {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
