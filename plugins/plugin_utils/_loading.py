# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports modules and module_utils of this collection with their bytecode kept.

Private to this collection: may change without notice.

Ansible's own loader compiles the files of a collection anew in every run, which takes some 0.1 s for those that a
provision needs.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import pathlib
import sys
import types
import typing as t

PLUGINS = __name__.rsplit(".", 2)[0]
PACKAGES = (f"{PLUGINS}.modules.", f"{PLUGINS}.module_utils.")
DRIVERS = ("docker", "psycopg2")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds only the modules and module_utils of this collection, in the folders where Ansible finds them."""

    def find_spec(
        self, fullname: str, path: t.Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is None or not fullname.startswith(PACKAGES):
            return None
        suffixes = (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES)
        found = (importlib.machinery.FileFinder(folder, suffixes).find_spec(fullname, target) for folder in path)
        return next(filter(None, found), None)


def load(module: str) -> types.ModuleType:
    """The file of a module, such as ``git_worktree``, imported with all of module_utils that it needs."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(f"{PLUGINS}.modules.{module}")
    finally:
        sys.meta_path.remove(finder)


def preload() -> None:
    """Import every module, and the libraries that they need, into this process.

    Ansible forks a worker for every task and host. What its main process has imported by then, no worker has to import.
    """
    for path in pathlib.Path(__file__).parents[1].joinpath("modules").glob("[!_]*.py"):
        load(path.stem)
    for driver in DRIVERS:
        with contextlib.suppress(ImportError):
            importlib.import_module(driver)
