#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_info
short_description: Tell how every task stands
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Tells of each task what the registry says, what is really there, and where the two disagree (RV(tasks[].drift)).
  - Tells what carries a mark of this project's ownership and belongs to no task (RV(orphans)).
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.looks
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: There is nothing that it changes.
  idempotent:
    support: full
options:
  workspace:
    description:
      - The workspace to tell of. It defaults to all that the registry knows.
    type: str
  task:
    description:
      - Name of a task, or several names with commas. It defaults to all.
      - A task that has no record is refused. Orphans are not looked for where it is given.
    type: str
  worktree:
    description:
      - Tell of the task that has this worktree, where no O(task) is named.
    type: path
  count:
    description:
      - With V(3), the tasks that O(task) names with V(-1), V(-2) and V(-3).
    type: int
  format:
    description:
      - Whether to make a RV(report), as a table for people or as JSON.
    type: str
    choices:
      - table
      - json
seealso:
  - module: parallel.worktrees.task_prune
  - module: parallel.worktrees.task_record
"""

EXAMPLES = r"""
- name: How all tasks of the workspace stand
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

- name: Refuse to go on where something is amiss
  ansible.builtin.assert:
    that: found.tasks[0].drift == []
"""

RETURN = r"""
actions:
  description: Empty, since nothing is ever changed.
  returned: success
  type: list
  elements: str
  sample: []
tasks:
  description: The tasks, by workspace and the oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The task's name.
      type: str
      sample: fix-login
    owner:
      description: The owner of all that is made for the task, as its mark names it.
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
      description: How far the task has come, one of V(provisioning), V(ready) and V(removing).
      type: str
      sample: ready
    busy:
      description: The run that is at work on it, in words; V(none) where there is none.
      type: str
      sample: process 4711 of alice
    slot:
      description: The slot it holds; V(none) where it holds none.
      type: int
      sample: 1
    ports:
      description: The ports that it holds, by their names.
      type: dict
      sample:
        database: 15433
    passed_over:
      description: The slots that were wanted first and not free when it was leased, each with C(slot) and C(reason).
      type: list
      elements: dict
    expires:
      description: When its lease ends unless it is used before, in seconds since the epoch; V(none) if never.
      type: float
    agent:
      description: Who works on it, as far as it was told; C(program), C(model) and C(description).
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
          description: Name of the container or the cluster; V(none) without a database.
          type: str
          sample: shop_fix_login
        state:
          description:
            - One of V(running), V(stopped), V(missing), V(incomplete) where a shared server lacks one of several,
              V(unknown) where Docker or a shared server does not answer, and V(none) for a task without a database.
          type: str
          sample: running
    created:
      description: When it was registered, in seconds since the epoch.
      type: float
      sample: 1767225600.25
    age:
      description: How long ago that is, in words.
      type: str
      sample: 3 h
    worktrees:
      description: The worktrees that its record names.
      type: list
      elements: dict
      contains:
        name:
          description: What the repository is called.
          type: str
          sample: backend
        path:
          description: The worktree's folder; V(none) where the task has its branch alone.
          type: str
          sample: /srv/shop/backend/.worktrees/fix-login
        branch:
          description: The branch it is on; V(none) where it is on none, or cannot be looked at.
          type: str
          sample: fix-login
        state:
          description:
            - V(clean), or V(dirty) where a file was edited or an operation such as a rebase is under way, in one of its
              submodules as well.
            - V(missing) if its folder is gone or git does not know it, V(moved) if git knows it at another place, which
              the drift names, V(half-made) if the run that made it was killed, and V(unknown) if it could not be looked
              at.
            - V(branch only) where the task has its branch, and no worktree.
          type: str
          sample: clean
        ahead:
          description: How many of its commits no other branch and no remote has, those of its submodules included.
          returned: for one that is V(clean), V(dirty) or V(branch only)
          type: int
          sample: 2
        submodules:
          description:
            - The worktrees of its submodules, each with C(name), C(path), C(branch), C(state) and C(ahead).
          returned: where it has submodules
          type: list
          elements: dict
    drift:
      description: Where the record and what is there disagree, in words. Empty for a task that is as it should be.
      type: list
      elements: str
      sample:
        - database shop_fix_login is stopped
    reservations:
      description: The paths that it has reserved, see M(parallel.worktrees.path_reservation).
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
          description: Why, in the words of whoever did.
          type: str
          sample: new login
        expires:
          description: When it ends, in seconds since the epoch.
          type: float
          sample: 1795283999.0
        told:
          description: All of it in words.
          type: str
          sample: "backend: src/**/*.py until 2026-11-21 17:19:59 (new login)"
    plan:
      description: What was ever planned for it, as O(parallel.worktrees.task_record#module:plan) got it.
      type: dict
      sample: {}
orphans:
  description:
    - What carries a mark of ownership whose task has no record. There may be further keys, which tell where it is.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description:
        - One of V(worktree), V(container), V(embedded), V(lease), and V(trash), what a removal left in a repository.
      type: str
      sample: worktree
    name:
      description: The folder of a worktree, the name of a database, or the slot of a lease.
      type: str
      sample: /srv/shop/backend/.worktrees/mend-cart
    owner:
      description: Its owner, from its mark; V(none) for a worktree whose making was killed before it got one.
      type: str
      sample: shop/mend-cart@9dda1566
    ours:
      description: Whether the mark is of this registry, or there is none. What another registry has may be in use.
      type: bool
      sample: true
    kept:
      description:
        - Whether it is a database that was kept when its task was torn down. The next task of this name uses it again.
      type: bool
      sample: false
silent:
  description: Why a Docker daemon or a shared server cannot be looked into. No orphans of it are known.
  returned: success
  type: list
  elements: str
report:
  description: All of it as O(format) says; V(none) without.
  returned: success
  type: str
  sample: |
    TASK       STATE  SLOT  PORTS           DATABASE                            AGE  GIT      DRIFT
    fix-login  ready  1     database:15433  shop_fix_login (embedded, running)  3 h  1 clean  -
failure:
  description:
    - V(user) for a task that has no record.
    - V(environment) for a registry that is damaged, cannot be read, or is of a newer version.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) where there is no telling. It ends C(msg) too.
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
