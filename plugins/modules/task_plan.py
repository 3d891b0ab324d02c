#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_plan
short_description: Plan the resources of a task, or check that a teardown loses no work
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - With O(state=present), checks git and the database at the same time, as M(parallel.worktrees.git_worktree) and
    M(parallel.worktrees.pg_database) do in check mode. Then it writes the plan into the record of the task before any
    resource exists, so that a run that is killed can be completed or undone. If a part of the plan is refused, nothing
    is recorded.
  - With O(state=absent), gives the verdict before a teardown. It checks the processes, the worktrees and the databases
    that will be removed, and refuses if work would be lost. It changes nothing.
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.run
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) makes the plan of a provision. V(absent) gives the verdict before a teardown.
    type: str
    choices: [present, absent]
    default: present
  registry:
    description:
      - The registry file, see O(parallel.worktrees.task_record#module:registry).
    type: path
  workspace:
    description:
      - Name of the workspace that the task belongs to. Required with O(state=present).
    type: str
  task:
    description:
      - Name of the task, which must be registered, except in check mode. Required with O(state=present).
    type: str
  pattern:
    description:
      - A Python regular expression that the whole name of the task must match.
    type: str
    default: "[A-Za-z0-9][A-Za-z0-9_-]*"
  processes:
    description:
      - With O(state=absent), the arguments of M(parallel.worktrees.worktree_processes) for this task.
    type: dict
  worktrees:
    description:
      - The arguments of M(parallel.worktrees.git_worktree) for this task.
    type: dict
    required: true
  database:
    description:
      - The arguments of M(parallel.worktrees.pg_database) for this task. With O(state=absent), an empty dictionary if
        no database will be removed.
    type: dict
    required: true
  agent:
    description:
      - The agent that works on the task, for the record.
    type: dict
    default: {}
  facts:
    description:
      - The facts of the task so far, as in C(task_facts) of M(parallel.worktrees.task_host). Required with
        O(state=present).
      - A host that M(parallel.worktrees.task_host) has added gets RV(facts) in the variable C(task_facts), and
        RV(planned) in the variable C(task_planned).
    type: dict
seealso:
  - module: parallel.worktrees.task_record
"""

EXAMPLES = r"""
- name: Plan the resources of a task
  parallel.worktrees.task_plan:
    workspace: shop
    task: fix-login
    facts: "{{ task_facts }}"
    worktrees:
      owner: "{{ task_facts.owner }}"
      worktrees:
        - name: backend
          repo: "{{ workspace_root }}/backend"
          path: .worktrees/fix-login
          branch: fix-login
    database:
      backend: embedded
      owner: "{{ task_facts.owner }}"
      name: shop_fix_login
      port: "{{ task_facts.ports.database }}"

- name: Check that a teardown loses no work
  parallel.worktrees.task_plan:
    state: absent
    processes:
      paths: "{{ task_record.plan.worktrees | map(attribute='path') }}"
    worktrees:
      owner: "{{ task_facts.owner }}"
      worktrees: "{{ task_record.plan.worktrees }}"
    database: {}
"""

RETURN = r"""
actions:
  description: What was recorded, or would be recorded in check mode; empty with O(state=absent).
  returned: success
  type: list
  elements: str
  sample:
    - note what is made for task fix-login
facts:
  description: O(facts) with the planned worktrees and the planned database. They contain no password.
  returned: success, with O(state=present)
  type: dict
  contains:
    worktrees:
      description: The folder of each worktree, by the name of its repository.
      type: dict
      sample:
        backend: /srv/shop/backend/.worktrees/fix-login
    branches:
      description: The branch of each repository, by its name.
      type: dict
      sample:
        backend: fix-login
    taken_up:
      description: Of each repository whose branch existed before the task, the commit that the branch was at.
      type: dict
      sample:
        backend: 5f2c1d9 Fix the login (2026-03-01)
    database:
      description: The task's database, as M(parallel.worktrees.pg_database) returns it.
      type: dict
    databases:
      description: All databases of the task, by key.
      type: dict
planned:
  description: O(worktrees) and O(database), for the later calls that make the planned resources.
  returned: success, with O(state=present)
  type: dict
written:
  description:
    - The changes in the databases that will be removed, as in RV(parallel.worktrees.pg_database#module:written).
  returned: success, with O(state=absent)
  type: list
  elements: dict
failure:
  description:
    - The failure of the part that was refused; V(user) for arguments that a module does not accept.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "what it takes: ansible-doc parallel.worktrees.git_worktree"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._plan import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
