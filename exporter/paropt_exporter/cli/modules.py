"""Look whether the module of a call is here, without importing anything: that would run the code of the project."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_DYNAMIC = (b"__path__", b"sys.modules")  # in a package's source: its modules may lie anywhere, or be made at import
_LARGEST_SOURCE_BYTES = 1_000_000


def call_fault(target: str, root: Path) -> Iterator[str]:
    """Yield that the module of a call is missing, looked up as a run would: in the config's folder first."""
    module = target.partition(":")[0]
    if module in sys.modules:
        return  # os.path has no package to look in
    importlib.invalidate_caches()
    folders: Sequence[str] = [str(root), *sys.path]
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = _in_folders(name, folders) or _elsewhere(name)
        if spec is None:
            yield f"there is no module {name!r} for {target}: correct the name, or install it"
            return
        if _is_dynamic(spec):
            return  # it may find the rest by itself
        folders = spec.submodule_search_locations or ()


def _in_folders(name: str, folders: Sequence[str]) -> ModuleSpec | None:
    """Return the first module or package of that name, or one made of all folders of that name (a namespace)."""
    portions: list[str] = []
    for folder in folders:
        finder = pkgutil.get_importer(folder)
        spec = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec.submodule_search_locations or ()) if spec is not None else ()
    if not portions:
        return None
    namespace = ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace


def _elsewhere(name: str) -> ModuleSpec | None:
    """Return a module that is built in, or that an installed package's own finder knows."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None) if finder is not PathFinder else None
        if spec is not None:
            return spec
    return None


def _is_dynamic(spec: ModuleSpec) -> bool:
    if spec.submodule_search_locations is None or spec.origin is None:
        return False
    try:
        with Path(spec.origin).open("rb") as file:
            source = file.read(_LARGEST_SOURCE_BYTES)
    except OSError:
        return False
    return any(word in source for word in _DYNAMIC)
