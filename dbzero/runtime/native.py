"""The C extension module ``_persistent``, found by the file of ``dbzero._engine``: one shared object carries both (csrc/pytypes*.c)."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType


def _load() -> ModuleType:
    name = "_persistent"
    loaded = sys.modules.get("dbzero." + name)
    if loaded is not None:
        return loaded
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = os.path.join(package, f"_engine{suffix}")
        if os.path.exists(path):
            break
    else:
        raise ImportError(
            f"dbzero's engine is not built: no _engine extension in {package}; install the package with pip"
        )
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules["dbzero." + name] = module
    return module


persistent = _load()

__all__ = ["persistent"]
