# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of dependencies that lead back to the main tree, and what makes them the worktree's.

Private to this collection: may change without notice.

In a workspace of npm, pnpm or yarn, ``node_modules`` has links to the project's own packages. A link to such a folder
would give a worktree the packages of the main tree, so its entries are linked one by one: the project's packages to
those of the worktree, all else to the main tree's. A virtual environment has its own path in many of its files; in a
copy these are changed.
"""

from __future__ import annotations

import glob
import os
import shutil
import typing as t

from . import _files
from ._errors import UserError
from ._main_paths import Moves

MODULES = "node_modules"
SHARED = ".parallel-worktrees-shared"
"""The file in a folder whose entries are linked one by one: it says whose they are."""

OWN = {".cache", ".vite", ".vite-temp", SHARED}
"""What tools keep there for one tree."""

Layout = dict[str, tuple[str, str]]
"""By the path in a folder, ``link`` and its target, or ``file`` and what it is a copy of."""


# Entries one by one


def layout(source: str, main: str) -> Layout | None:
    """The entries of a ``node_modules`` as a worktree has them; None where none leads to the project's own packages.

    :arg main: the main tree that it belongs to.
    """
    if os.path.basename(source) != MODULES or not os.path.isdir(source):
        return None
    found: Layout = {}
    packages = 0
    for path in _entries(source):
        place = os.path.join(source, path)
        if path.startswith(".bin/"):
            found[path] = ("link", os.readlink(place)) if os.path.islink(place) else ("file", place)
        elif (package := _package(place, main)) is not None:
            packages += 1
            found[path] = ("link", package)
        elif os.path.isfile(place) and not os.path.islink(place):
            found[path] = ("file", place)
        else:
            found[path] = ("link", place)
    return found if packages else None


def _entries(source: str) -> t.Iterator[str]:
    """The packages of a ``node_modules``, those of scopes too, its programs, and its own files."""
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        if entry.name in OWN:
            continue
        if entry.is_dir(follow_symlinks=False) and (entry.name.startswith("@") or entry.name == ".bin"):
            yield from (f"{entry.name}/{name}" for name in sorted(os.listdir(entry.path)))
        else:
            yield entry.name


def _package(place: str, main: str) -> str | None:
    """Where a link to a package of the project leads from its own folder; None for anything else."""
    if not os.path.islink(place):
        return None
    folder = os.path.dirname(place)
    target = os.path.normpath(os.path.join(folder, os.readlink(place)))
    if not target.startswith(os.path.normpath(main) + os.sep):
        return None
    inner = os.path.relpath(target, main).split(os.sep)
    return None if MODULES in inner else os.path.relpath(target, folder)


def is_shared(place: str) -> bool:
    """Whether a folder has entries that were linked one by one."""
    return not os.path.islink(place) and os.path.isfile(os.path.join(place, SHARED))


def fits(place: str, wanted: Layout) -> bool:
    """Whether a folder has all of these entries."""
    return is_shared(place) and not any(_lacks(os.path.join(place, path), *about) for path, about in wanted.items())


def _lacks(place: str, kind: str, target: str) -> bool:
    if kind == "file":
        return not os.path.lexists(place)
    # What somebody has put in the place of a link is theirs.
    return not os.path.lexists(place) or (os.path.islink(place) and os.readlink(place) != target)


def build(place: str, source: str, wanted: Layout) -> None:
    """Give a folder, which may be there, the entries that it lacks."""
    os.makedirs(place, exist_ok=True)
    _files.write(os.path.join(place, SHARED), os.fsencode(source) + b"\n", mode=0o644)
    for path, (kind, target) in wanted.items():
        entry = os.path.join(place, path)
        if not _lacks(entry, kind, target):
            continue
        os.makedirs(os.path.dirname(entry), exist_ok=True)
        if kind == "file":
            shutil.copy2(target, entry)
            continue
        if os.path.islink(entry):
            os.unlink(entry)
        os.symlink(target, entry)


# What leads back to the main tree


def warnings(source: str, place: str, main: str) -> list[str]:
    """What a link to a folder of dependencies brings from the main tree besides, with the way out: a line each."""
    way_out = "use how: copy (or install) for it under dependencies"
    if os.path.exists(os.path.join(source, "composer", "autoload_real.php")):
        return [f"{place} is a link, and its autoloader loads the project's own classes from {main}: {way_out}"]
    if not os.path.isfile(os.path.join(source, "pyvenv.cfg")):
        return []
    files = [os.path.basename(path) for path in _of_packages(source) if main in _files.read(path)]
    return [f"{place} is a link, and packages are installed in it from {main} ({files[0]}): {way_out}"] if files else []


def refuse_copy(source: str) -> None:
    """Refuse an environment of which a copy would not work, nor can be repaired.

    :raises UserError: it is one of conda's.
    """
    if os.path.isdir(os.path.join(source, "conda-meta")):
        raise UserError(
            f"{source} is an environment of conda, whose programs have its path built in, so it cannot be copied",
            hint="use how: install, with a command that makes it, under dependencies",
        )


def repair(copied: str, *, source: str, place: str, main: str, tree: str) -> int:
    """Have a copied environment name its own place instead of the original's, and return how many files that were.

    :arg copied: where the copy lies by now.
    :arg place: where it is going to be, in the worktree ``tree``.
    """
    moves = Moves({os.path.realpath(main): tree, main: tree, os.path.realpath(source): place, source: place})
    changed = 0
    for path in _naming_places(copied):
        text = _files.read(path)
        if "\0" not in text and (moved := moves(text)) != text:
            _files.rewrite(path, moved)
            changed += 1
    return changed


def _naming_places(folder: str) -> list[str]:
    """The files of an environment that name where it lies."""
    found = glob.glob(os.path.join(glob.escape(folder), ".bin", "*"))  # as pnpm writes them
    if os.path.isfile(os.path.join(folder, "pyvenv.cfg")):
        found = [os.path.join(folder, "pyvenv.cfg"), *glob.glob(os.path.join(glob.escape(folder), "bin", "*"))]
        found += _of_packages(folder)
    return [path for path in found if os.path.isfile(path) and not os.path.islink(path)]


def _of_packages(environment: str) -> list[str]:
    """The files by which the packages of a virtual environment lie elsewhere."""
    site = os.path.join(glob.escape(environment), "lib", "python*", "site-packages")
    names = ("*.pth", "*.egg-link", "__editable__*.py", os.path.join("*.dist-info", "direct_url.json"))
    return [path for name in names for path in sorted(glob.glob(os.path.join(site, name)))]
