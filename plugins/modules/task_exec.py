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
  - Runs a shell command line in a folder, with the environment of a task, and returns its output.
  - The password of the task's database is only in the environment of the command. Results and messages have a mask in
    its place.
  - If M(parallel.worktrees.git_worktree) has placed a guard of shared dependencies, the guard is first on the E(PATH).
  - The standard input of the command is empty, and the command has no time limit.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: partial
    details:
      The command is not run, so its failure cannot be predicted, nor a failure because O(password_file) is missing.
  diff_mode:
    support: none
    details: The changes that a command makes cannot be shown.
  idempotent:
    support: none
    details: Each call runs the command, and counts as a change.
options:
  command:
    description:
      - A command line for C(/bin/sh).
    type: str
    required: true
  folder:
    description:
      - The folder in which to run the command, such as the task's worktree. Without it, the call is refused, since the
        task has no worktree.
    type: path
  variables:
    description:
      - Environment variables of the command, in addition to the variables of the caller, which they may replace.
        Variables that direct git to another repository (C(git rev-parse --local-env-vars)) are not inherited. If the
        caller has no locale, C(LC_ALL=C.UTF-8) is set.
      - If a value contains the placeholder of the password, as RV(parallel.worktrees.pg_database#module:database.url)
        does, the command gets the password. A variable with the value V(null) is not set. If an env file of the
        worktree (M(parallel.worktrees.env_file)) sets the same variable, the value in the env file is used.
    type: dict
    default: {}
  password_file:
    description:
      - The file that contains the password. Without it, placeholders are not replaced.
    type: path
  ready:
    description:
      - Whether the task is completely provisioned. If not, the command still runs, with a warning.
    type: bool
    default: true
  title:
    description:
      - The first line of RV(summary), such as the task's name, which distinguishes the output of several tasks.
    type: str
notes:
  - The shell runs O(command) unchanged. Quote a value from another source with the filter
    P(ansible.builtin.quote#filter).
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

- name: Show the git status
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
  description: Exit code of the command; the negative number of the signal if a signal ended it.
  returned: if the command was run
  type: int
  sample: 0
stdout:
  description: Standard output of the command, with the password masked. Empty in check mode.
  returned: success, or if the command was run
  type: str
  sample: |
    12 passed in 0.34s
stderr:
  description: Standard error of the command, with the password masked. Empty in check mode.
  returned: success, or if the command was run
  type: str
  sample: ""
summary:
  description: The text for people, which is RV(stdout) and then RV(stderr) under O(title).
  returned: success, but not in check mode
  type: str
  sample: |
    fix-login:
    12 passed in 0.34s
failure:
  description:
    - V(user) if the command exited with a code other than 0. The message contains the last 20 lines of its output.
    - V(environment) if O(folder) or O(password_file) does not exist or cannot be used.
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
