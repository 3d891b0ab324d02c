# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one family of errors that a user reads.

Private to this collection: may change without notice.

An error says what was being done, to which named thing, and why it did not work; its hint is the
command or the change that helps. What nobody foresaw is left to crash loudly.
"""

from __future__ import annotations

import contextlib
import errno
import os
import typing as t

DISK = {
    os.strerror(errno.ENOSPC): "free some space, or some inodes: df -h, df -i",
    os.strerror(errno.EDQUOT): "free some of this user's quota: quota -s",
    os.strerror(errno.EROFS): "see why it is mounted read-only: findmnt, dmesg | tail",
    os.strerror(errno.EIO): "look at the disk: dmesg | tail",
}
"""What helps where a disk is the reason, by the words that the system has for it: ours, and those of every program."""


class WorktreesError(Exception):
    """Base of all expected failures; never raised itself.

    :arg message: one line: what was wrong, with which value.
    :arg hint: the command or change that helps; where it is left out and a disk is the reason, what helps there.
    :arg details: further keys of the module's result, such as ``files`` or ``stderr``.
    """

    failure: t.ClassVar[str]

    def __init__(self, message: str, *, hint: str | None = None, **details: t.Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or next((text for words, text in DISK.items() if words in message), None)
        self.details = details

    def as_result(self) -> dict[str, t.Any]:
        """The failed result of a module."""
        text = self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"
        return {
            **self.details,
            "failed": True,
            "changed": bool(self.details.get("changed", False)),
            "msg": text,
            "failure": self.failure,
            "hint": self.hint,
        }


class UserError(WorktreesError):
    """What was asked cannot be done as asked: a wrong name, a refusal, a collision."""

    failure = "user"


class EnvironmentFailure(WorktreesError):
    """The machine did not do its part: a program failed, a file is missing, a server is down."""

    failure = "environment"


class PartialFailure(WorktreesError):
    """Some members of a set were done and at least one was not; a second run resumes."""

    failure = "partial"


@contextlib.contextmanager
def disk_expected() -> t.Iterator[None]:
    """Turn the failure of a disk that is full, read-only or broken, wherever it shows, into one that a user reads."""
    try:
        yield
    except OSError as error:
        if error.strerror not in DISK:
            raise
        raise EnvironmentFailure(f"cannot write {error.filename or 'to the disk'}: {error.strerror}") from error
