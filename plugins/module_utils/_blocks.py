# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files in worktrees of which this project writes a block, and whose other text is somebody else's.

Private to this collection: may change without notice.

A file that git tracks is never touched, nor one that is a symbolic link: both may be shared with other worktrees.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import typing as t

from . import _files, _git
from ._manifest import Manifest, text_signature
from ._placing import inside, keep_out_of_git

BEGIN = "parallel.worktrees: begin"
END = "parallel.worktrees: end"
MARKDOWN = (".md", ".mdc", ".markdown", ".html")


@dataclasses.dataclass(frozen=True)
class Managed:
    """A file as it is and as it is to be.

    :ivar left: why it is left alone; None where it is not.
    :ivar is_foreign: whether somebody else's text is in it.
    """

    worktree: str
    place: str
    before: str | None
    after: str
    mode: int
    left: str | None
    is_foreign: bool

    @property
    def differs(self) -> bool:
        if self.left is not None:
            return False
        return self.before != self.after or stat.S_IMODE(os.stat(self.place).st_mode) != self.mode

    def write(self) -> None:
        """Write it; it is noted before it is there."""
        manifest = Manifest.around(self.place)
        if manifest:
            if self.is_foreign:
                manifest.note_block(self.place)
            else:
                manifest.note(self.place, text_signature(_bytes(self.after)))
            manifest.save()
        os.makedirs(os.path.dirname(self.place), exist_ok=True)
        _files.write(self.place, _bytes(self.after), mode=self.mode)


def managed(worktree: str, path: str, text: str, *, whole: bool = False, mode: int = 0o644) -> Managed:
    """What is to be done about a file.

    :arg text: that of our block; with ``whole``, of the file, which then has to be ours alone.
    :raises UserError: the path leads out of the worktree.
    """
    place = inside(worktree, path)
    text = text if text.endswith("\n") else f"{text}\n"
    if os.path.islink(place) or os.path.isdir(place):
        kind = "a symbolic link" if os.path.islink(place) else "a folder"
        return Managed(worktree, place, None, "", mode, f"it is {kind}", is_foreign=True)
    if not os.path.lexists(place):
        return Managed(worktree, place, None, text if whole else _block(text, place), mode, None, is_foreign=False)
    before = _read(place)
    manifest = Manifest.around(place)
    is_ours = manifest is not None and manifest.is_ours(place)
    if _is_tracked(place):
        return Managed(worktree, place, before, "", mode, "git tracks it", is_foreign=True)
    if whole:
        left = None if is_ours or before == text else "somebody wrote or edited it"
        return Managed(worktree, place, before, text, mode, left, is_foreign=False)
    head, tail = _around_block(before)
    is_foreign = not is_ours and bool((head + tail).strip())
    if is_foreign:
        mode = stat.S_IMODE(os.stat(place).st_mode)
    if "\r\n" in before:
        text = text.replace("\n", "\r\n")
    return Managed(worktree, place, before, head + _block(text, place) + tail, mode, None, is_foreign)


def write(files: t.Sequence[Managed]) -> None:
    """Write them; each is kept out of git, and noted, before it is there."""
    keep_out_of_git((file.worktree, file.place) for file in files)
    for file in files:
        file.write()


def take_out(place: str) -> None:
    """Take our block out of a file, and the file away where it has nothing else."""
    with contextlib.suppress(FileNotFoundError):
        before = _read(place)
        rest = "".join(_around_block(before))
        if not rest.strip():
            os.unlink(place)
        elif rest != before:
            _files.write(place, _bytes(rest), mode=stat.S_IMODE(os.stat(place).st_mode))


def _block(text: str, place: str) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    before, after = ("<!-- ", " -->") if place.endswith(MARKDOWN) else ("# ", "")
    return f"{before}{BEGIN}{after}{newline}{text}{before}{END}{after}{newline}"


def _around_block(text: str) -> tuple[str, str]:
    """What stands before our block and after it; where there is none, the place for it is the end."""
    lines = text.splitlines(keepends=True)
    begin = next((number for number, line in enumerate(lines) if BEGIN in line), None)
    end = next((number for number, line in enumerate(lines) if END in line and number > (begin or 0)), None)
    if begin is None or end is None:
        newline = "\r\n" if "\r\n" in text else "\n"
        gap = "" if not text.strip() else newline if text.endswith("\n") else newline * 2
        return text + gap, ""
    return "".join(lines[:begin]), "".join(lines[end + 1 :])


def _is_tracked(place: str) -> bool:
    folder, name = os.path.split(place)
    return _git.git(folder, "--literal-pathspecs", "ls-files", "--error-unmatch", "--", name).ok


def _read(place: str) -> str:
    with open(place, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
