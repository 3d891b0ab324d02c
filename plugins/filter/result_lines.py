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
short_description: Collect the texts for people of a playbook run
description:
  - Collects RV(ignore:summary) and RV(ignore:report) of the results that are registered on hosts.
  - Commands in the texts are adapted to the command line of this run, with its inventory and its workspace file.
positional: hostvars, names
options:
  _input:
    description: The hosts, in the order in which to report them.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable C(hostvars) of Ansible.
    type: dict
    required: true
  names:
    description:
      - The names of the variables in which the results are registered. A variable that a host does not have is skipped.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Print the result
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
