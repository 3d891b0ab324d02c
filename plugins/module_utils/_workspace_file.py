# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the file of a workspace from the current folder, as git finds a repository.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import stat
import typing as t

from ._errors import UserError

NAME = "workspace.yml"
ROOT = 0


def given(path: str) -> pathlib.Path:
    """The file that ``-e workspace_file=PATH`` names.

    Its owner does not matter: the user trusts it by its name.

    :raises UserError: there is no such file, or it cannot be read.
    """
    file = pathlib.Path(path).expanduser().absolute()
    cannot = f"cannot read the workspace file {file}, which workspace_file={path} names"
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        raise UserError(f"{cannot}: there is no such file", hint=_other_than(file)) from None
    except OSError as error:
        raise UserError(
            f"{cannot}: {error.strerror}", hint=f"see which folder is in the way: namei -l {_quoted(file)}"
        ) from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{cannot}: it is a folder", hint=_other_than(file))
    if not stat.S_ISREG(mode):
        raise UserError(f"{cannot}: it is not a file", hint=_other_than(file))
    _refuse_unreadable(file, cannot)
    return file


def _other_than(file: pathlib.Path) -> str:
    """Which option finds a workspace file in the place of this one."""
    for place in (file, pathlib.Path.cwd()):
        with contextlib.suppress(UserError, OSError):
            if found := nearest(place):
                return f"give the path of a {NAME}, such as -e workspace_file={_quoted(found)}"
    return f"give the path of a {NAME}, or look for it: find ~ -name {NAME}"


def _refuse_unreadable(file: pathlib.Path, cannot: str) -> None:
    if not os.access(file, os.R_OK):
        is_own = file.stat().st_uid == os.geteuid()
        command = f"chmod u+r {_quoted(file)}" if is_own else f"ls -l {_quoted(file)}"
        raise UserError(
            f"{cannot}: permission denied",
            hint=f"make it readable: {command}" if is_own else f"see who may read it: {command}",
        )


def _quoted(file: pathlib.Path) -> str:
    return shlex.quote(str(file))


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
            _refuse_unreadable(file, f"cannot read the workspace file {file}")
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
            hint=f"if you trust it, name it: -e workspace_file={_quoted(file)}",
        )
