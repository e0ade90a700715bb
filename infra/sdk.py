"""The part of Pulumi's AWS SDK that a program uses, without the rest of it.

A service of `pulumi_aws` is a package that imports each of its modules, with their hundreds of classes: over 900 for
the services used here, of which the program needs a tenth. With `load_what_is_used` a module of a service is imported
when a name of it is asked for. That is for recording a graph, where imports were most of the time; `pulumi up`
imports as ever.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any, Final

_SHARED: Final = ("_inputs", "_enums")
"""Modules of a service that hold the nested types of all its resources."""


def load_what_is_used() -> None:
    """From now on. What was imported before stays as it is; a second call changes nothing."""
    if not any(isinstance(one, _Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root, *parts = fullname.split(".")
        if root != "pulumi_aws" or not parts:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        if len(parts) == 1 and spec.submodule_search_locations:
            spec.loader = _Service(spec.loader)
        elif len(parts) == 2 and parts[1] == "outputs":
            spec.loader = LazyLoader(spec.loader)
        return spec


class _Service(Loader):
    """Loads a service without its modules, and those one by one."""

    def __init__(self, whole: Loader) -> None:
        self.whole = whole

    def exec_module(self, module: ModuleType) -> None:
        def found(name: str) -> Any:
            if name.startswith("__") or name in (*_SHARED, "outputs"):
                # The import system asks whether it is there before it imports it.
                raise AttributeError(f"module {module.__name__} has no attribute {name}")
            for part in (_file(name), f"{_file(name)}_", *_SHARED):
                loaded = _imported(f"{module.__name__}.{part}")
                if hasattr(loaded, name):
                    setattr(module, name, getattr(loaded, name))
                    return getattr(module, name)
            # Named otherwise than its file: all of the service, as without this.
            del module.__dict__["__getattr__"]
            self.whole.exec_module(module)
            return getattr(module, name)

        module.__dict__["__getattr__"] = found


def _file(name: str) -> str:
    """The module of a class, of its arguments, or of a function: `nat_gateway` for `NatGateway`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name.removesuffix("Args")).lower()


def _imported(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
