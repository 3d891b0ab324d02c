#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_info
short_description: Report the state of every task
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Reports for each task what the registry records, what really exists, and the differences between them
    (RV(tasks[].drift)).
  - Reports resources that carry an ownership mark of this collection but belong to no task (RV(orphans)).
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.looks
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The module changes nothing.
  idempotent:
    support: full
options:
  workspace:
    description:
      - The workspace to report. It defaults to all workspaces in the registry.
    type: str
  task:
    description:
      - Name of a task, or several names separated by commas. It defaults to all tasks.
      - A task without a record is refused. With this option, the module does not search for orphans.
    type: str
  worktree:
    description:
      - Report the task that has this worktree. Used only without O(task).
    type: path
  count:
    description:
      - With V(3), the tasks that O(task) names with V(-1), V(-2) and V(-3).
    type: int
  format:
    description:
      - Format of RV(report), a table for people or JSON. Without it, there is no report.
    type: str
    choices:
      - table
      - json
seealso:
  - module: parallel.worktrees.task_prune
  - module: parallel.worktrees.task_record
"""

EXAMPLES = r"""
- name: Report all tasks of the workspace
  parallel.worktrees.task_info:
    workspace: shop
    repos:
      - name: backend
        repo: "{{ workspace_root }}/backend"
    backend: embedded
    format: table
  register: status

- name: Look up one task
  parallel.worktrees.task_info:
    workspace: shop
    task: fix-login
  register: found

- name: Stop if the task is not as recorded
  ansible.builtin.assert:
    that: found.tasks[0].drift == []
"""

RETURN = r"""
actions:
  description: Always empty, since the module changes nothing.
  returned: success
  type: list
  elements: str
  sample: []
tasks:
  description: The tasks, sorted by workspace, the oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The task's name.
      type: str
      sample: fix-login
    owner:
      description: The owner in the marks of everything that is made for the task.
      type: str
      sample: shop/fix-login@9dda1566
    workspace:
      description: The workspace.
      type: str
      sample: shop
    root:
      description: The workspace's root folder.
      type: str
      sample: /srv/shop
    branch:
      description: Its branch.
      type: str
      sample: fix-login
    slug:
      description: Its name for use in SQL.
      type: str
      sample: fix_login_9f1c2e
    subdomain:
      description: Its name for use as a DNS label.
      type: str
      sample: fix-login
    state:
      description: State of the task, one of V(provisioning), V(ready) and V(removing).
      type: str
      sample: ready
    busy:
      description: The run that is working on the task, in words; V(none) if there is none.
      type: str
      sample: process 4711 of alice
    slot:
      description: The slot that the task holds; V(none) if it holds no slot.
      type: int
      sample: 1
    ports:
      description: The ports that the task holds, by name.
      type: dict
      sample:
        database: 15433
    passed_over:
      description:
        - The slots that were tried first but were not free when the slot was leased, each with C(slot) and C(reason).
      type: list
      elements: dict
    expires:
      description: When the lease ends unless it is used before, in seconds since the epoch; V(none) if it never ends.
      type: float
    agent:
      description: The agent that works on the task, if it was given, with C(program), C(model) and C(description).
      type: dict
      sample:
        program: claude
        description: mend the login
    database:
      description: Its database.
      type: dict
      contains:
        backend:
          description: The back end, one of V(container), V(embedded) and V(none).
          type: str
          sample: embedded
        name:
          description: Name of the container or cluster; V(none) without a database.
          type: str
          sample: shop_fix_login
        state:
          description:
            - One of V(running), V(stopped), V(missing), V(incomplete) if a shared server lacks at least one of the
              databases, V(unknown) if Docker or a shared server does not answer, and V(none) for a task without a
              database.
          type: str
          sample: running
    created:
      description: When the task was registered, in seconds since the epoch.
      type: float
      sample: 1767225600.25
    age:
      description: How long ago the task was registered, in words.
      type: str
      sample: 3 h
    worktrees:
      description: The worktrees in the record of the task.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the repository.
          type: str
          sample: backend
        path:
          description: The worktree's folder; V(none) if the task has only a branch.
          type: str
          sample: /srv/shop/backend/.worktrees/fix-login
        branch:
          description:
            - The branch that is checked out; V(none) if no branch is checked out, or if it cannot be determined.
          type: str
          sample: fix-login
        state:
          description:
            - V(clean), or V(dirty) if a file was edited or an operation such as a rebase is in progress, in the
              worktree or in one of its submodules.
            - V(missing) if its folder does not exist or git does not list it, V(moved) if git lists it at another
              place, which RV(tasks[].drift) names, V(half-made) if the run that made it was killed, and V(unknown) if
              its state cannot be determined.
            - V(branch only) if the task has only a branch and no worktree.
          type: str
          sample: clean
        ahead:
          description:
            - Number of its commits that are on no other branch and no remote, including those of its submodules.
          returned: if the state is V(clean), V(dirty) or V(branch only)
          type: int
          sample: 2
        submodules:
          description:
            - The worktrees of its submodules, each with C(name), C(path), C(branch), C(state) and C(ahead).
          returned: if the worktree has submodules
          type: list
          elements: dict
    drift:
      description: The differences between the record and what exists, in words. Empty if there are none.
      type: list
      elements: str
      sample:
        - database shop_fix_login is stopped
    reservations:
      description: The paths that the task has reserved, see M(parallel.worktrees.path_reservation).
      type: list
      elements: dict
      contains:
        repo:
          description: The repository.
          type: str
          sample: backend
        glob:
          description: The paths.
          type: str
          sample: src/**/*.py
        task:
          description: The task.
          type: str
          sample: fix-login
        reason:
          description: The reason, as it was given with the reservation.
          type: str
          sample: new login
        expires:
          description: When the reservation ends, in seconds since the epoch.
          type: float
          sample: 1795283999.0
        told:
          description: The whole reservation in words.
          type: str
          sample: "backend: src/**/*.py until 2026-11-21 17:19:59 (new login)"
    plan:
      description:
        - Everything that was ever planned for the task, as given in O(parallel.worktrees.task_record#module:plan).
      type: dict
      sample: {}
orphans:
  description:
    - Resources with an ownership mark whose task has no record. Further keys may describe the place of a resource.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description:
        - One of V(worktree), V(container), V(embedded), V(lease), and V(trash), which is what a removal left in a
          repository.
      type: str
      sample: worktree
    name:
      description: The folder of a worktree, the name of a database, or the slot of a lease.
      type: str
      sample: /srv/shop/backend/.worktrees/mend-cart
    owner:
      description:
        - The owner in its mark; V(none) for a worktree if the run that made it was killed before the worktree got a
          mark.
      type: str
      sample: shop/mend-cart@9dda1566
    ours:
      description:
        - Whether the mark belongs to this registry, or there is no mark. A resource of another registry may be in use.
      type: bool
      sample: true
    kept:
      description:
        - Whether it is a database that was kept when its task was torn down. The next task of the same name uses it
          again.
      type: bool
      sample: false
silent:
  description: Docker daemons and shared servers that do not answer, with the reason. Their orphans are not reported.
  returned: success
  type: list
  elements: str
report:
  description: The whole result in the format of O(format); V(none) without O(format).
  returned: success
  type: str
  sample: |
    TASK       STATE  SLOT  PORTS           DATABASE                            AGE  GIT      DRIFT
    fix-login  ready  1     database:15433  shop_fix_login (embedded, running)  3 h  1 clean  -
failure:
  description:
    - V(user) for a task that has no record.
    - V(environment) for a registry that is damaged, cannot be read, or has a newer version.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "did you mean fix-login?"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._status import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
