# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the file of a workspace from the current folder, as git finds a repository.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import os
import pathlib
import typing as t

from ._errors import UserError

NAME = "workspace.yml"
ROOT = 0


def given(path: str) -> pathlib.Path:
    """The file that ``-e workspace_file=PATH`` names.

    :raises UserError: there is no such file.
    """
    file = pathlib.Path(path).expanduser().absolute()
    if not file.is_file():
        raise UserError(f"workspace_file={path}: {file} is not a file", hint=f"give the path of a {NAME}")
    return file


def nearest(folder: pathlib.Path) -> pathlib.Path | None:
    """The ``workspace.yml`` of a folder, or of the nearest folder above it; None where there is none.

    A linked worktree counts as its main tree: a workspace file that is itself in git exists in every task's worktree,
    and only that of the main tree lies where the paths in it start.

    :raises UserError: the file belongs to another user, who could have commands run through it; or it cannot be one,
        such as a link to a disk that is not mounted: the file of a folder above would be another workspace's.
    """
    for place in _upwards(_in_main_tree(folder)):
        file = place / NAME
        if file.is_file():
            _refuse_foreign(file)
            return file
        if os.path.lexists(file):
            what = f"leads to {file.readlink()}, which is no file" if file.is_symlink() else "is not a file"
            raise UserError(f"{file} {what}", hint="mend it or remove it, or give -e workspace_file=PATH")
    return None


def missing(folder: pathlib.Path, typed: t.Iterable[str]) -> UserError:
    """What to say where there is no workspace file.

    :arg typed: the values of ``-e``, as they were typed.
    """
    without_at = [text for text in typed if text.endswith((".yml", ".yaml")) and not text.startswith("@")]
    where = ", ".join(str(place) for place in _upwards(_in_main_tree(folder)))
    return UserError(
        f"there is no workspace file: no {NAME} in {where}",
        hint=f"read a file with -e @{without_at[0]}, with the @ before its name"
        if without_at
        else f"change to the folder of your workspace, give -e workspace_file=PATH, or write a {NAME} (see the README)",
    )


def _upwards(folder: pathlib.Path) -> t.Iterator[pathlib.Path]:
    yield folder
    yield from folder.parents


def _in_main_tree(folder: pathlib.Path) -> pathlib.Path:
    """The same folder in the main tree of its repository, where it lies in a linked worktree."""
    for top in _upwards(folder):
        main = _main_tree(top / ".git")
        if main is not None:
            return main / folder.relative_to(top)
    return folder


def _main_tree(dot_git: pathlib.Path) -> pathlib.Path | None:
    """The main tree of the linked worktree that has this ``.git`` file (gitrepository-layout(5), commondir)."""
    try:
        git_dir = dot_git.parent / dot_git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        common = git_dir / (git_dir / "commondir").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):  # a folder, a submodule's, or none
        return None
    common = pathlib.Path(os.path.normpath(common))
    return common.parent if common.name == ".git" else None


def _refuse_foreign(file: pathlib.Path) -> None:
    owner, user = file.stat().st_uid, os.geteuid()
    if owner not in (user, ROOT, int(os.environ.get("SUDO_UID", user))):
        raise UserError(
            f"{file} belongs to another user (uid {owner}), and a workspace file names commands to run",
            hint=f"if you trust it, name it: -e workspace_file={file}",
        )
