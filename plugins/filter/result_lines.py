# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible import context

from ..plugin_utils._typed import Typed

DOCUMENTATION = r"""
name: result_lines
version_added: 1.0.0
author: parallel.worktrees contributors (@parallel-worktrees)
short_description: What a run of a playbook of this collection has to say to people
description:
  - Collects RV(ignore:summary) and RV(ignore:report) of the results that hosts have registered.
  - Commands in it are written as the person typed this run, with its inventory and its workspace file.
positional: hostvars, names
options:
  _input:
    description: The hosts, in the order in which to report them.
    type: list
    elements: str
    required: true
  hostvars:
    description: Ansible's variable of this name.
    type: dict
    required: true
  names:
    description: The names under which the results are registered. A host may lack some.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Result
  ansible.builtin.debug:
    msg: "{{ groups.parallel_worktrees_tasks | parallel.worktrees.result_lines(hostvars, ['task__done']) }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""


def result_lines(
    hosts: t.Sequence[str], hostvars: c.Mapping[str, c.Mapping[str, t.Any]], names: t.Sequence[str]
) -> list[str]:
    typed = Typed(context.CLIARGS)
    results = (hostvars[host][name] for host in hosts for name in names if name in hostvars[host])
    texts = (text for result in results for text in _texts(result))
    return [line for text in texts for line in typed.commands(text).rstrip("\n").split("\n")]


def _texts(result: c.Mapping[str, t.Any]) -> c.Iterator[str]:
    """Those of a result and of the results in it, such as a loop's."""
    yield from (result[key] for key in ("summary", "report") if isinstance(result.get(key), str) and result[key])
    for inner in result.get("results") or ():
        yield from _texts(inner)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"result_lines": result_lines}
