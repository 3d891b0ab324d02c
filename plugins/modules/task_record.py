#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_record
short_description: Manage the records of tasks in the registry
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Sets the state of one or several tasks of a workspace in the registry. Either all of them are changed or none.
  - The registry is one SQLite file per machine. It contains every task, its names, and the resources that are made for
    it. A record is written before the first resource of its task exists, and is removed after the last resource, so
    that a run that was killed can be completed or undone.
  - The names of a task (branch, slug, subdomain) are frozen when it is first registered.
  - A task that another active run is working on is refused, see O(holder).
  - The module changes only the registry.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  registry:
    description:
      - The registry file. It is created if it does not exist.
      - It defaults to C(parallel-worktrees/registry.sqlite3) in E(XDG_STATE_HOME), or in C(~/.local/state) if that
        variable is not set.
    type: path
  workspace:
    description:
      - Name of the workspace that the tasks belong to.
    type: str
    required: true
  root:
    description:
      - The root folder of the workspace, which is frozen in the record. It defaults to the working directory.
      - If O(root) is set, a task that was registered for another root is refused with O(state=provisioning). With
        O(state=removing), it is refused if the registered root does not exist, for example because the workspace folder
        was moved.
    type: path
  task:
    description:
      - Name of the task, or several names separated by commas.
      - Required unless O(all_tasks=true) or O(worktree).
      - A name is refused if it has more than 100 characters, if O(pattern) does not match it, or if git refuses it as
        the name of a branch.
    type: str
  worktree:
    description:
      - Select the task that has this worktree. Used only without O(task).
      - With O(state=provisioning), a worktree that belongs to no task is registered as a task with the name of
        O(branch). For a registered task, the branch is not compared, since it may have been renamed.
    type: path
  repos:
    description:
      - The repositories of the workspace. A port is skipped if the mark of a worktree in one of these repositories
        shows that a task of another registry uses this port.
      - With O(worktree), the worktree must be a linked worktree of one of these repositories, and O(branch) is the
        branch that is checked out there.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the repository, for messages.
        type: str
        required: true
      repo:
        description:
          - The main working tree of the repository, as an absolute path.
        type: path
        required: true
  count:
    description:
      - With V(3) and O(task=agent), the tasks are C(agent-1), C(agent-2) and C(agent-3).
      - From 1 to 999, and only with a single name in O(task).
    type: int
  all_tasks:
    description:
      - Whether to select every task of the workspace, instead of O(task).
    type: bool
    default: false
  state:
    description:
      - With V(provisioning), each task has a record. A new task is registered. A registered task is taken up again, and
        stays ready if it was ready.
      - With V(ready), the record says that the task is completely provisioned. A task without a record is refused,
        except in check mode, where the earlier calls did not write a record.
      - With V(removing), the record says that the task is being torn down. A task whose record was already removed is
        listed in RV(missing). A name that was never registered is refused.
      - With V(absent), the records are removed. A task without a record is no error.
    type: str
    choices:
      - provisioning
      - ready
      - removing
      - absent
    required: true
  branch:
    description:
      - Branch of a new task. It defaults to the task's name, and can be set only for a single task.
      - A task that was registered for another branch is refused.
    type: str
  pattern:
    description:
      - A Python regular expression that the whole name of each task must match.
    type: str
    default: "[A-Za-z0-9][A-Za-z0-9_-]*"
  lease:
    description:
      - The options of the lease that each task gets with O(state=provisioning), as in M(parallel.worktrees.port_lease).
        Either all tasks get a record and a lease, or nothing is changed.
    type: dict
    suboptions:
      ports:
        description:
          - See O(parallel.worktrees.port_lease#module:ports).
        type: dict
        default: {}
      slots:
        description:
          - See O(parallel.worktrees.port_lease#module:slots).
        type: dict
        default: {}
        suboptions:
          first:
            description:
              - The lowest slot, 0 or more.
            type: int
            default: 1
          last:
            description:
              - The highest slot.
            type: int
            default: 99
          strategy:
            description:
              - How a slot is chosen.
            type: str
            choices:
              - lowest
              - hash
              - fixed
            default: lowest
      slot:
        description:
          - See O(parallel.worktrees.port_lease#module:slot).
        type: int
      expires_after:
        description:
          - See O(parallel.worktrees.port_lease#module:expires_after).
        type: int
  existing:
    description:
      - With O(state=provisioning), what to do with a task that is ready.
      - With V(converge), the task is taken up again. With V(refuse), it is refused.
      - A task that is not ready is taken up again in both cases. With O(plan), every task is.
    type: str
    choices:
      - converge
      - refuse
    default: converge
  plan:
    description:
      - The resources that will be made for the task. All keys are stored unchanged, and two of them have a meaning for
        this module.
      - C(worktrees) is a list of dictionaries with a C(path). Worktrees that were ever planned stay in the record, so
        that a teardown finds them.
      - C(database) is a dictionary. A C(backend) or C(name) that differs from the record is refused.
    type: dict
  keep_planned:
    description:
      - With O(state=absent), keep the record of a task that has a O(plan), since resources may exist for it. The record
        of any other task is removed as if the task had never been registered.
    type: bool
    default: false
  planned_now:
    description:
      - With O(keep_planned), states that this run wrote the O(plan) and has made nothing of it yet, so the record is
        removed anyway.
    type: bool
    default: false
  keep_database:
    description:
      - With O(state=absent), the database of the task is kept, and the registry stores its name and the slot from
        O(facts). The next task of this name uses both again.
    type: bool
    default: false
  written:
    description:
      - With O(state=absent), the changes in the databases that were removed, as in
        RV(parallel.worktrees.pg_database#module:written). RV(summary) contains them.
    type: list
    elements: dict
    default: []
  refusal:
    description:
      - The failed result of another Ansible task, as in C(ansible_failed_result). After the records are changed, this
        call fails with the same message, RV(failure) and RV(hint).
      - Use it to undo a registration and to report the reason.
    type: dict
  facts:
    description:
      - The facts of the task for RV(summary), as in C(task_facts) of M(parallel.worktrees.task_host). With
        O(state=ready), they are stored in the record.
    type: dict
  variables:
    description:
      - The environment variables of the task's commands. With O(state=ready), a variable that hides a variable of the
        files C(.env) and C(.env.local) in its worktrees causes a warning.
    type: dict
    default: {}
  format:
    description:
      - Format of RV(summary), which is text for people or JSON.
    type: str
    choices:
      - text
      - json
    default: text
  holder:
    description:
      - The run that makes this call. The controller sets this option, so you do not need to set it.
      - The run holds the task from O(state=provisioning) or O(state=removing) until O(state=ready), or until the run
        ends. Meanwhile, other runs are refused this task.
      - A run on the same machine has ended when its process has ended. A run on another machine counts as ended if
        O(ended) names it, or if it has not updated the record for 900 seconds.
    type: dict
    suboptions: &process
      pid:
        description:
          - ID of a process that lives as long as the run.
        type: int
        required: true
      started:
        description:
          - Start time of that process, in clock ticks since the machine's start (field 22 of C(/proc/PID/stat)).
        type: int
        required: true
      machine:
        description:
          - The machine's boot id and the process namespace, as in C(BOOT_ID/pid:[4026531836]).
        type: str
        required: true
      user:
        description:
          - The user who started the run. Messages to other runs name this user.
        type: str
        required: true
  ended:
    description:
      - Runs that are known to have ended. The controller sets this option if the machine of the task is another
        machine, which cannot see the processes of the controller.
    type: list
    elements: dict
    default: []
    suboptions: *process
seealso:
  - module: parallel.worktrees.port_lease
  - module: parallel.worktrees.git_worktree
"""

EXAMPLES = r"""
- name: Register a task before anything is made for it
  parallel.worktrees.task_record:
    workspace: shop
    root: "{{ workspace_root }}"
    task: fix-login
    state: provisioning
  register: records

- name: Register agent-1 to agent-30
  parallel.worktrees.task_record:
    workspace: shop
    root: "{{ workspace_root }}"
    task: agent
    count: 30
    state: provisioning

- name: Register a task together with its slot and its ports
  parallel.worktrees.task_record:
    workspace: shop
    root: "{{ workspace_root }}"
    task: fix-login
    state: provisioning
    lease:
      ports:
        database: {base: 15432}

- name: Record the resources that will be made
  parallel.worktrees.task_record:
    workspace: shop
    task: fix-login
    state: provisioning
    plan:
      worktrees:
        - name: backend
          repo: "{{ workspace_root }}/backend"
          path: "{{ workspace_root }}/backend/.worktrees/fix-login"
          branch: fix-login

- name: Set the task ready
  parallel.worktrees.task_record:
    workspace: shop
    task: fix-login
    state: ready

- name: Remove the records of all tasks of the workspace
  parallel.worktrees.task_record:
    workspace: shop
    all_tasks: true
    state: absent
"""

RETURN = r"""
actions:
  description: What was done to the records, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - register task fix-login
tasks:
  description: The tasks that have a record after the call, in the given order.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The task's name.
      type: str
      sample: fix-login
    branch:
      description: Its branch.
      type: str
      sample: fix-login
    slug:
      description: A name for use in SQL. It has at most 47 characters of C(a-z), C(0-9) and C(_), and is unique.
      type: str
      sample: fix_login_9f1c2e
    subdomain:
      description: A name for use as a DNS label, unique in the workspace.
      type: str
      sample: fix-login
    workspace:
      description: The workspace.
      type: str
      sample: shop
    root:
      description: The workspace's root folder, without symbolic links.
      type: str
      sample: /srv/shop
    state:
      description: State of the task, one of V(provisioning), V(ready) and V(removing).
      type: str
      sample: provisioning
    plan:
      description: Everything that was ever planned for the task; empty at first.
      type: dict
      sample: {}
    created:
      description: When the task was registered, in seconds since the epoch.
      type: float
      sample: 1767225600.25
    busy:
      description: The run that is working on the task, in words; V(none) if there is none.
      type: str
      sample: process 4711 of alice
    former_state:
      description: The state before this call; V(null) if the task is new.
      type: str
summary:
  description:
    - The text for people, with the password masked. V(none) if there is no such text, as with O(state=provisioning),
      and without O(facts).
    - With O(state=removing), it reports tasks that were already torn down.
  returned: success
  type: str
  sample: |
    fix-login: ready
      branch     fix-login
      slot       1 (database 15433)
leases:
  description: The lease of each task, as M(parallel.worktrees.port_lease) returns it.
  returned: success, with O(lease)
  type: list
  elements: dict
adopted:
  description:
    - The worktree of O(worktree), as M(parallel.worktrees.git_worktree_info) returns it in
      RV(parallel.worktrees.git_worktree_info#module:worktree). V(none) without O(repos).
  returned: success
  type: dict
missing:
  description: Names without a record that need no record for the requested state.
  returned: success
  type: list
  elements: str
  sample: []
failure:
  description:
    - V(user) for a name that is not allowed or not registered, a task that is already registered or belongs to another
      root or branch, a database that differs from the plan, and a task that another run is working on.
    - V(environment) for a registry that is damaged, read-only, on a full disk, locked for over 60 seconds, or of a
      newer version.
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
from ..module_utils._records import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
