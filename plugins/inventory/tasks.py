# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: tasks
version_added: 1.0.0
author: parallel.worktrees contributors (@parallel-worktrees)
short_description: List the tasks of this machine as hosts
description:
  - Every task of the registry is a host with the name of the task. If two workspaces have a task of the same name, both
    hosts are named C(TASK@WORKSPACE).
  - A host has the variable C(task_facts), as it is available in the workspace file, and the variable C(task_state).
  - The groups are C(worktree_tasks) with all tasks, and C(workspace_NAME), C(machine_NAME), C(backend_NAME) and
    C(state_NAME). A character that Ansible does not allow in the name of a group becomes an underscore.
  - Modules run on this machine, in the first worktree of the task, with P(parallel.worktrees.worktree#connection).
  - The inventory does not query git, Docker or a server, so it takes milliseconds. The playbook
    C(parallel.worktrees.status) reports what really exists.
notes:
  - The playbooks of this collection take the task from C(-e task=NAME). They do not need this inventory.
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices:
      - parallel.worktrees.tasks
  registry:
    description:
      - The registry file.
      - It defaults to C(parallel-worktrees/registry.sqlite3) in E(XDG_STATE_HOME), or in C(~/.local/state) if that
        variable is not set.
    type: path
  workspaces:
    description: List only the tasks of these workspaces. It defaults to all workspaces.
    type: list
    elements: str
  machine:
    description: The name of this machine, which is used in the name of its group.
    type: str
    default: localhost
"""

EXAMPLES = r"""
# tasks.yml. List the tasks with: ansible-inventory -i tasks.yml --graph
# Run a command in the worktree of a task with: ansible fix-login -i tasks.yml -m command -a 'git status --short'
plugin: parallel.worktrees.tasks

---
# The tasks of one workspace, with a group for each branch.
plugin: parallel.worktrees.tasks
workspaces: [shop]
keyed_groups:
  - key: task_facts.branch
    prefix: branch
"""

import sys
import typing as t

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ..module_utils import _inventory
from ..module_utils._errors import WorktreesError

if t.TYPE_CHECKING:
    from ansible.inventory.data import InventoryData


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "parallel.worktrees.tasks"
    inventory: InventoryData

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        for task in self._tasks(path, cache):
            self._add(task)

    def _tasks(self, path: str, cache: bool) -> list[dict[str, t.Any]]:
        """What the cache has where that is wanted, else what the registry has now."""
        key = self.get_cache_key(path)
        is_cached = self.get_option("cache")
        if cache and is_cached:
            try:
                return t.cast("list[dict[str, t.Any]]", self._cache[key])
            except KeyError:
                pass
        try:
            found = _inventory.tasks(self.get_option("registry"), self.get_option("workspaces"))
        except WorktreesError as error:
            raise AnsibleParserError(error.as_result()["msg"]) from None
        if is_cached:
            self._cache[key] = found
        return found

    def _add(self, task: dict[str, t.Any]) -> None:
        host = self.inventory.add_host(task["host"])
        variables = {
            "task_facts": task["facts"],
            "task_state": task["state"],
            "ansible_connection": "parallel.worktrees.worktree",
            "ansible_worktree": task["folder"],
            "ansible_python_interpreter": sys.executable,
        }
        for name, value in variables.items():
            self.inventory.set_variable(host, name, value)
        names = {key: task[key] for key in ("workspace", "backend", "state")} | {"machine": self.get_option("machine")}
        for group in ("worktree_tasks", *(f"{kind}_{name}" for kind, name in names.items())):
            self.inventory.add_child(self.inventory.add_group(self._sanitize_group_name(group)), host)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict=strict)
