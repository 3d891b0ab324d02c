# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: machines
version_added: 1.0.0
author: parallel.worktrees contributors (@parallel-worktrees)
short_description: Return the hosts that a playbook of this collection works on
description:
  - Returns the hosts of the inventory that a variable names, for C(hosts) of a play. The variable is read from the
    command line, from the workspace file, or from the inventory variables of all hosts (C(group_vars/all.yml)).
  - It returns an empty list if M(parallel.worktrees.workspace_check) refuses the variable.
  - For V(tasks), it returns the hosts that M(parallel.worktrees.task_host) added for the tasks of this call.
  - C(--start-at-task) applies from the play for V(tasks) on. The plays for V(workspace_machine) before it always run
    from their beginning, as they add these hosts.
options:
  _terms:
    description:
      - Name of the variable, V(workspace_machine) with the default V(localhost), or V(db_host) with the default
        V(db_hosts), which is a group; or V(tasks).
    required: true
  refused:
    description:
      - Invert the result. The lookup then returns V(localhost) if the variable is refused or cannot be read yet, so
        that an Ansible task there can report it; otherwise it returns an empty list.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Work on the machine of the tasks
  hosts: "{{ query('parallel.worktrees.machines', 'workspace_machine') }}"

- name: Work on the tasks that this play has added
  hosts: "{{ query('parallel.worktrees.machines', 'tasks') }}"
"""

RETURN = r"""
_list:
  description: The names of the hosts.
  type: list
  elements: str
"""

import typing as t

from ansible.plugins.lookup import LookupBase

from ..module_utils._errors import UserError
from ..plugin_utils import _start_at
from ..plugin_utils._machines import TASKS, NotYet, machines

if t.TYPE_CHECKING:
    from ansible.parsing.dataloader import DataLoader
    from ansible.template import Templar


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        if terms[0] == "tasks":
            _start_at.release()
            return list((variables or {})["groups"].get(TASKS, ()))
        if terms[0] == "workspace_machine":
            _start_at.hold()
        is_refused = self.get_option("refused")
        loader, templar = t.cast("DataLoader", self._loader), t.cast("Templar", self._templar)
        try:
            found = machines(terms[0], variables or {}, loader=loader, template=templar.template)
        except (UserError, NotYet):
            return ["localhost"] if is_refused else []
        return [] if is_refused else found
