# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names that follow from a task: derived here, and nowhere else.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import unicodedata

from ._errors import UserError

DEFAULT_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]*"
NAME_LENGTH = 100
SLUG_LENGTH = 40
LABEL_LENGTH = 63
MOST_TASKS = 999
NAMING = "git's rules for names: git help check-ref-format"


@dataclasses.dataclass(frozen=True)
class Identity:
    """The names of one task, frozen when it is first provisioned.

    :ivar name: as the user typed it.
    :ivar branch: the git branch.
    :ivar slug: safe inside a PostgreSQL identifier: at most 47 characters of ``a-z0-9_``, unique by its hash.
    :ivar subdomain: safe as a DNS label (RFC 1035).
    """

    name: str
    branch: str
    slug: str
    subdomain: str


def identify(name: str, branch: str | None = None) -> Identity:
    """Derive the identity of a task from its name and, where it has one of its own, its branch."""
    branch = branch or name
    words = _plain(branch.rpartition("/")[2])
    digest = hashlib.sha1(branch.encode(), usedforsecurity=False).hexdigest()[:6]
    return Identity(
        name=name,
        branch=branch,
        slug=f"{words[:SLUG_LENGTH].rstrip('_')}_{digest}",
        subdomain=words.replace("_", "-")[:LABEL_LENGTH].rstrip("-"),
    )


def distinct_subdomain(identity: Identity) -> Identity:
    """The same identity with a subdomain that no other branch has."""
    digest = identity.slug[-6:]
    return dataclasses.replace(identity, subdomain=f"{identity.subdomain[: LABEL_LENGTH - 7].rstrip('-')}-{digest}")


def _plain(text: str) -> str:
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", ascii_text).strip("_") or "task"


def expand(task: str, count: int | None = None) -> list[str]:
    """The tasks a user means: ``a``, ``a,b,c``, or ``agent`` with a count for agent-1 to agent-N.

    :raises UserError: nothing is named, or the count does not fit.
    """
    names = [part.strip() for part in task.split(",")]
    if not all(names):
        raise UserError(
            "no task is named" if len(names) == 1 else f"the list of tasks {task!r} has an empty name",
            hint="name one, or several with commas: -e task=fix-login",
        )
    if count is None:
        return list(dict.fromkeys(names))
    if len(names) > 1:
        raise UserError(
            f"count={count} goes with one name, and task={task} has {len(names)}",
            hint="leave count out, or name one: -e task=agent -e count=30",
        )
    if not 1 <= count <= MOST_TASKS:
        raise UserError(
            f"count={count} is not within 1 and {MOST_TASKS}",
            hint="-e task=agent -e count=30 means agent-1 to agent-30",
        )
    return [f"{names[0]}-{number}" for number in range(1, count + 1)]


def check_task(name: str, pattern: str = DEFAULT_PATTERN) -> None:
    """Refuse a task name that the workspace, git or a file system would not take.

    :arg pattern: the workspace's own rule, a regular expression for the whole name.
    :raises UserError: with the name and what is wrong.
    """
    shown = repr(name if len(name) <= NAME_LENGTH else name[:40] + "...")
    if len(name) > NAME_LENGTH:
        raise UserError(f"the task name {shown} is {len(name)} characters long", hint=f"use at most {NAME_LENGTH}")
    try:
        fits = re.fullmatch(pattern, name)
    except re.error as error:
        raise UserError(f"workspace_task_pattern {pattern!r} is not a regular expression: {error}") from error
    if not fits:
        rule = "letters, digits, hyphen and underscore, first a letter or digit"
        raise UserError(
            f"the task name {shown} is not allowed in this workspace",
            hint=f"use {rule}" if pattern == DEFAULT_PATTERN else f"names here match {pattern}",
        )
    fault = ref_fault(name)
    if fault:
        raise UserError(f"the task name {shown} cannot be used: {fault}", hint=NAMING)


def check_branch(branch: str) -> None:
    """Refuse what git would not take as a branch name.

    :raises UserError: with the name and what is wrong.
    """
    fault = ref_fault(branch)
    if fault:
        raise UserError(f"the branch name {branch!r} cannot be used: {fault}", hint=NAMING)


def ref_fault(name: str) -> str | None:
    """Why git refuses a branch name, or None where it takes it.

    The rules are those of git-check-ref-format(1) with ``--branch``.
    """
    if not name:
        return "it is empty"
    if name.startswith("-"):
        return "it begins with a hyphen"
    if name in ("@", "HEAD"):
        return "git means something else by it"
    if re.search(r"[\x00-\x20\x7f~^:?*\[\\]", name):
        return "it has a space, a control character or one of ~ ^ : ? * [ \\"
    for part in ("..", "@{", "//"):
        if part in name:
            return f"it has {part!r}"
    if name.startswith("/") or name.endswith(("/", ".")):
        return "it begins or ends with a slash, or ends with a dot"
    for component in name.split("/"):
        if component.startswith("."):
            return "a part of it begins with a dot"
        if component.endswith(".lock"):
            return "a part of it ends with .lock"
    return None
