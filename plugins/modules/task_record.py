#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_record
short_description: Keep the records of tasks in the registry
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Moves one task of a workspace, or several, to a state in the registry. Either all are moved or none.
  - The registry is one SQLite file per machine. It knows every task, its names, and what is made for it. A record is
    written before the first resource of its task exists and goes after the last one, so that a run that was killed
    can be completed or undone.
  - The names of a task (branch, slug, subdomain) are frozen with its first record.
  - A task that another living run is at work on is refused, see O(holder).
  - Nothing but the registry is touched.
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
      - The workspace's root folder, frozen with the record. It defaults to the working directory.
      - With O(state=provisioning), a task that was registered for another root is refused where O(root) is given; with
        O(state=removing), if that root is gone, as after the workspace folder was moved.
    type: path
  task:
    description:
      - Name of the task, or several names with commas.
      - Required unless O(all_tasks=true) or O(worktree).
      - A name of more than 100 characters, one that O(pattern) does not match, and one that git refuses as a branch are
        refused.
    type: str
  worktree:
    description:
      - Take the task that has this worktree, where no O(task) is named.
      - With O(state=provisioning), one that no task has yet makes a task with the name of O(branch), and the branch of
        a task that is registered is not looked at, since it may have been renamed.
    type: path
  repos:
    description:
      - The repositories of the workspace. A port that a task of another registry has, as its worktree in one of them
        says, is passed over.
      - With O(worktree) and these, O(worktree) has to be a linked worktree of one of them, and O(branch)
        is the one that is checked out there.
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
          - Its main working tree, absolute.
        type: path
        required: true
  count:
    description:
      - With V(3) and O(task=agent), the tasks are C(agent-1), C(agent-2) and C(agent-3).
      - From 1 to 999, and only with a single name in O(task).
    type: int
  all_tasks:
    description:
      - Take every task of the workspace in place of O(task).
    type: bool
    default: false
  state:
    description:
      - With V(provisioning), each task has a record. One that is new gets one; one that is registered is taken up, and
        stays ready if it was.
      - With V(ready), the record says that all of the task is there. A task without a record is refused, except in
        check mode, where the calls before this one made none.
      - With V(removing), the record says that the task is being torn down. A task that was forgotten before is told in
        RV(missing); a name that was never known is refused.
      - With V(absent), there is no record. No record at all is fine too.
    type: str
    choices:
      - provisioning
      - ready
      - removing
      - absent
    required: true
  branch:
    description:
      - Branch of a new task; it defaults to the task's name. Only with a single task.
      - A task that was registered for another branch is refused.
    type: str
  pattern:
    description:
      - A Python regular expression that the whole of each task name has to match.
    type: str
    default: "[A-Za-z0-9][A-Za-z0-9_-]*"
  lease:
    description:
      - What each of the tasks leases with O(state=provisioning), as M(parallel.worktrees.port_lease) takes it. Either
        all of them have a record and a lease, or none is touched.
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
      - What to do with O(state=provisioning) about a task that is ready.
      - With V(converge) it is taken up. With V(refuse) it is refused.
      - A task that is not ready is taken up either way, and so is every task where O(plan) is given.
    type: str
    choices:
      - converge
      - refuse
    default: converge
  plan:
    description:
      - What is about to be made for the task. Its keys are kept as they are; two of them are known.
      - C(worktrees) is a list of dictionaries with a C(path). What was once planned stays in the record, so that it is
        found when the task is torn down.
      - C(database) is a dictionary. Another C(backend) or C(name) than the recorded ones is refused.
    type: dict
  keep_planned:
    description:
      - With O(state=absent), keep the record of a task that has a O(plan), since something may have been made for it.
        Another one is forgotten as if it had never been.
    type: bool
    default: false
  planned_now:
    description:
      - With O(keep_planned), the O(plan) was noted by this run and nothing was made of it yet, so the record is removed
        all the same.
    type: bool
    default: false
  keep_database:
    description:
      - With O(state=absent), remember the database of the task, which stays, and the slot in O(facts). The next task of
        this name uses both again.
    type: bool
    default: false
  written:
    description:
      - With O(state=absent), what was written into databases that are gone, as
        RV(parallel.worktrees.pg_database#module:written) has it. RV(summary) has it too.
    type: list
    elements: dict
    default: []
  refusal:
    description:
      - The failed result of another task, as Ansible has it in C(ansible_failed_result). Once the records are moved,
        this call fails with the same message, RV(failure) and RV(hint).
      - For undoing a registration and still telling why.
    type: dict
  facts:
    description:
      - What there is to tell of the task in RV(summary), as M(parallel.worktrees.task_host) gives it in
        C(task_facts). With O(state=ready) it is kept in the record.
    type: dict
  variables:
    description:
      - The environment variables of the task's commands. With O(state=ready), what they hide of the files C(.env) and
        C(.env.local) in its worktrees draws a warning.
    type: dict
    default: {}
  format:
    description:
      - Whether RV(summary) is text for people or JSON.
    type: str
    choices:
      - text
      - json
    default: text
  holder:
    description:
      - The run that makes this call. The controller sets this option, so you do not need to set it.
      - It has the task from O(state=provisioning) or O(state=removing) on, until O(state=ready) or until it ends. Other
        runs are refused this task meanwhile.
      - A run on the same machine is asked after by its process. One elsewhere counts as ended when O(ended) names it,
        or when it has not touched the record for 900 seconds.
    type: dict
    suboptions: &process
      pid:
        description:
          - ID of a process that lives as long as the run.
        type: int
        required: true
      started:
        description:
          - When that process started, in clock ticks since the machine's start (field 22 of C(/proc/PID/stat)).
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
      - Runs that are known to have ended. The controller fills it in where the task lives on another machine, from
        which that cannot be seen.
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

- name: Note what is about to be made
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

- name: All of it is there
  parallel.worktrees.task_record:
    workspace: shop
    task: fix-login
    state: ready

- name: Forget every task of the workspace
  parallel.worktrees.task_record:
    workspace: shop
    all_tasks: true
    state: absent
"""

RETURN = r"""
actions:
  description: What was done to the records, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - register task fix-login
tasks:
  description: The tasks that have a record after the call, in the order they were named.
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
      description: What was ever planned for it; empty at first.
      type: dict
      sample: {}
    created:
      description: When it was registered, in seconds since the epoch.
      type: float
      sample: 1767225600.25
    busy:
      description: The run that is working on the task, in words; V(none) if there is none.
      type: str
      sample: process 4711 of alice
    former_state:
      description: The state before this call; V(null) where the task is new.
      type: str
summary:
  description:
    - What to tell a person, with the password masked. V(none) where there is nothing to tell, as with
      O(state=provisioning), and without O(facts).
    - With O(state=removing) it reports tasks that were torn down before.
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
    - The worktree of O(worktree), as M(parallel.worktrees.git_worktree_info) tells of it in
      RV(parallel.worktrees.git_worktree_info#module:worktree). V(none) without O(repos).
  returned: success
  type: dict
missing:
  description: Names that had no record, and need none for the state that was asked for.
  returned: success
  type: list
  elements: str
  sample: []
failure:
  description:
    - V(user) for a name that is not allowed or not known, a task that is registered already or belongs to another
      root or branch, a database that was planned otherwise, and a task that another run is at work on.
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
