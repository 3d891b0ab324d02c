# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one family of errors that a user reads.

Private to this collection: may change without notice.

An error says what was being done, to which named thing, and why it did not work; its hint is the
command or the change that helps. What nobody foresaw is left to crash loudly.
"""

from __future__ import annotations

import typing as t


class WorktreesError(Exception):
    """Base of all expected failures; never raised itself.

    :arg message: one line: what was wrong, with which value.
    :arg hint: the command or change that helps.
    :arg details: further keys of the module's result, such as ``files`` or ``stderr``.
    """

    failure: t.ClassVar[str]

    def __init__(self, message: str, *, hint: str | None = None, **details: t.Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
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
