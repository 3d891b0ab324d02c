# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading ideas with their bytecode kept, as Python does everywhere but in collections.

Private to this collection: may change without notice.

Ansible's own loader compiles the files of a collection anew in every run, which takes some 0.1 s for those that a
provision needs.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import typing as t

PACKAGE = __name__.rsplit(".", 2)[0] + ".module_utils"


class _Finder(importlib.abc.MetaPathFinder):
    """Finds this collection's ideas and nothing else, in the folders where Ansible finds them."""

    def find_spec(
        self, fullname: str, path: t.Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is None or not fullname.startswith(f"{PACKAGE}."):
            return None
        suffixes = (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES)
        found = (importlib.machinery.FileFinder(folder, suffixes).find_spec(fullname, target) for folder in path)
        return next(filter(None, found), None)


def idea(name: str) -> types.ModuleType:
    """The module of an idea, loaded with all that it imports."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(f"{PACKAGE}.{name}")
    finally:
        sys.meta_path.remove(finder)
