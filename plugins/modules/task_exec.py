#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_exec
short_description: Run a command in a task's worktree
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Runs a line of shell in a folder, with the environment of a task, and returns what it prints.
  - The password of the task's database is put into the command's environment only. Results and messages have a mask in
    its place.
  - Where M(parallel.worktrees.git_worktree) has put a guard of shared dependencies, it comes first on the PATH.
  - The command has nothing on its standard input, and no limit of time.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: partial
    details: The command is not run, so a failure of its own cannot be foreseen, nor one for want of O(password_file).
  diff_mode:
    support: none
    details: The changes that a command makes cannot be shown.
  idempotent:
    support: none
    details: The command is run at each call, and each call counts as a change.
options:
  command:
    description:
      - A command line for C(/bin/sh).
    type: str
    required: true
  folder:
    description:
      - The folder to run it in, such as the task's worktree. Without it, nothing is run; the task has none, which is
        refused.
    type: path
  variables:
    description:
      - Environment variables of the command, beside those of the caller, which one of them may replace. Those that lead
        git to another repository (C(git rev-parse --local-env-vars)) are not inherited, and a caller without a locale
        gives C(LC_ALL=C.UTF-8).
      - Where a value has the placeholder of the password, as has
        RV(parallel.worktrees.pg_database#module:database.url), the command gets the password. A variable with the value
        V(null) is not set. If an env file of the worktree (M(parallel.worktrees.env_file)) sets the same variable, the
        value in the env file is used.
    type: dict
    default: {}
  password_file:
    description:
      - The file that contains the password. Without it, placeholders are not replaced.
    type: path
  ready:
    description:
      - Whether all that the task is to have is there. If not, the command runs all the same, and a warning says so.
    type: bool
    default: true
  title:
    description:
      - What RV(summary) begins with, such as the task's name, so that the output of several tasks can be told apart.
    type: str
notes:
  - The shell runs O(command) as it is. A value from elsewhere needs the filter P(ansible.builtin.quote#filter).
seealso:
  - module: parallel.worktrees.pg_database
  - module: ansible.builtin.shell
"""

EXAMPLES = r"""
- name: Run the tests of a task
  parallel.worktrees.task_exec:
    command: pytest -q
    folder: "{{ task_facts.worktrees.backend }}"
    variables:
      DATABASE_URL: "{{ task_facts.database.url }}"
    password_file: "{{ task_facts.database.password_file }}"
    title: "{{ task_facts.name }}"

- name: See what git says
  parallel.worktrees.task_exec:
    command: git status --short
    folder: /srv/shop/backend/.worktrees/fix-login
  register: seen
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - run 'pytest -q' in /srv/shop/backend/.worktrees/fix-login
code:
  description: What the command ended with; negative for the signal that ended it.
  returned: when the command was run
  type: int
  sample: 0
stdout:
  description: What it printed on standard output, the password masked. Empty in check mode.
  returned: success, and when the command was run
  type: str
  sample: |
    12 passed in 0.34s
stderr:
  description: What it printed on standard error, the password masked. Empty in check mode.
  returned: success, and when the command was run
  type: str
  sample: ""
summary:
  description: What to tell a person, RV(stdout) and then RV(stderr) under the O(title).
  returned: success, but not in check mode
  type: str
  sample: |
    fix-login:
    12 passed in 0.34s
failure:
  description:
    - V(user) if the command ended with another code than 0. The message has its last 20 lines.
    - V(environment) if O(folder) or O(password_file) is not there, or cannot be used.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "run provision again: it makes what is missing"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._exec import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
