# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tries the templates of a workspace with the facts of a task, before anything is made for the task.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import collections.abc as c
import re
import typing as t

from ansible.errors import AnsibleError

from ..module_utils._errors import UserError
from ..module_utils._options import meant

if t.TYPE_CHECKING:
    from ansible.template import Templar

TRIED = ("worktrees_repos", "env_files", "agents_files", "task_variables")
"""The variables with values that follow from the facts of a task."""
IS_TEMPLATE = re.compile(r"{{|{%")
HAS_EFFECTS = re.compile(r"\b(lookup|query|q)\s*\(")
"""A lookup may take long or write files, and is called once, where its value is used."""
FACT = re.compile(r"\btask_facts((?:\.[A-Za-z_]\w*)+)")
ORIGIN = re.compile(r"Origin: (?P<file>.*?):(?P<line>\d+)(:\d+)?$", re.MULTILINE)


def refuse_faulty(variables: c.Mapping[str, t.Any], facts: c.Mapping[str, t.Any], templar: Templar) -> None:
    """Refuse the workspace where a template has no value for this task.

    :arg variables: of the host of the task, as templates.
    :arg facts: what is planned for the task.
    :raises UserError: a template has no value; the error names its entry, its file and line, and the facts that exist.
    """
    tried = templar.copy_with_new_env(available_variables={**variables, "task_facts": facts})
    for name in TRIED:
        for entry, text in _templates(variables.get(name), name, facts):
            try:
                tried.template(text)
            except AnsibleError as error:
                raise _fault(entry, text, facts, error) from error


def _templates(value: t.Any, entry: str, facts: c.Mapping[str, t.Any]) -> c.Iterator[tuple[str, str]]:
    """Each template below a value, and its entry, such as ``env_files[2].values.PORT``."""
    if isinstance(value, str):
        if IS_TEMPLATE.search(value) and not HAS_EFFECTS.search(value) and not _waits(value, facts):
            yield entry, value
    elif isinstance(value, c.Mapping):
        for key, inner in value.items():
            yield from _templates(inner, f"{entry}.{key}", facts)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            if _is_of_task(inner, entry, facts):
                yield from _templates(inner, f"{entry}[{number}]", facts)


def _waits(text: str, facts: c.Mapping[str, t.Any]) -> bool:
    """Whether the DB host, which has not made the branch yet, says the value."""
    return "task_facts.database" in text and facts["database"].get("port") is None


def _is_of_task(value: t.Any, entry: str, facts: c.Mapping[str, t.Any]) -> bool:
    """Whether an entry is about a worktree of the task: others may name what the task does not have."""
    repo = value.get("name" if entry == "worktrees_repos" else "repo") if isinstance(value, c.Mapping) else None
    return not isinstance(repo, str) or bool(IS_TEMPLATE.search(repo)) or repo in facts["worktrees"]


def _fault(entry: str, text: str, facts: c.Mapping[str, t.Any], error: AnsibleError) -> UserError:
    context = getattr(error, "formatted_source_context", None) or getattr(error, "_formatted_source_context", None)
    place = ORIGIN.search(context or "")
    where = f" ({place['file']}, line {place['line']})" if place else ""
    for path in FACT.findall(text):
        names = path[1:].split(".")
        known: t.Any = facts
        for number, name in enumerate(names):
            if not isinstance(known, c.Mapping):
                break
            if name not in known:
                fact = ".".join(["task_facts", *names[:number]])
                return UserError(
                    f"{entry}{where}: {fact} has no {name}{meant(name, known)}",
                    hint=f"{fact} has: {', '.join(known) or 'nothing'}",
                )
            known = known[name]
    return UserError(f"{entry}{where}: {error.message}", hint="see the facts of a task: docs/workspace-file.md")
