#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: path_reservation
short_description: Reserve paths for a task
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Keeps globs of paths for one task of a workspace, for a time. They are refused, all of them, where one overlaps
    with what another task has, whatever files there are today.
  - A reservation ends with its time or with the record of its task.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: The same again lets them last longer, which counts as a change.
options:
  registry:
    description:
      - The file of the registry. It defaults to the user's own.
    type: path
  workspace:
    description:
      - The workspace of the task.
    type: str
    required: true
  task:
    description:
      - The task, which has to have a record.
    type: str
    required: true
  repos:
    description:
      - The repositories that the paths are in, by their names.
    type: list
    elements: str
    required: true
  paths:
    description:
      - The globs, from the top of the repository. C(*) and C(?) stand for characters of one name, C([...]) for one
        character of it, C(**) for any number of folders.
      - What matches a folder holds for all that is in it.
      - Required to reserve. With O(state=absent), it defaults to all.
    type: list
    elements: str
  state:
    description:
      - With V(absent), they are released.
    type: str
    choices:
      - present
      - absent
    default: present
  reason:
    description:
      - Why, for whoever is refused.
    type: str
    default: ""
  seconds:
    description:
      - For how long, in seconds. One that lasts longer by now stays as it is.
      - Setting the clock of the machine forwards or backwards does not change this time.
    type: int
    default: 7200
seealso:
  - module: parallel.worktrees.worktree_hooks
  - module: parallel.worktrees.task_info
"""

EXAMPLES = r"""
- name: Let nobody else touch the parser
  parallel.worktrees.path_reservation:
    workspace: shop
    task: fix-login
    repos: [backend]
    paths:
      - src/parser/**
      - "test/**/*_parser_test.py"
    reason: new parser
    seconds: 3600
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - "reserve backend: src/parser/** until 2026-11-21 17:19:59 (new parser) for fix-login"
reservations:
  description: All that the task has reserved now.
  returned: success
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
      sample: src/parser/**
    task:
      description: The task.
      type: str
      sample: fix-login
    reason:
      description: Why.
      type: str
      sample: new parser
    expires:
      description: When it ends, in seconds since the epoch.
      type: float
      sample: 1795283999.0
summary:
  description: The same for people.
  returned: success
  type: str
  sample: |
    fix-login: has reserved
      backend: src/parser/** until 2026-11-21 17:19:59 (new parser)
failure:
  description:
    - V(user) for an overlap, a glob that is none, a time that is none, or a task that is not there.
    - V(environment) for a registry that is damaged, cannot be written, or is of a newer version.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "wait, choose other paths, or ask that task to release them"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._reservations import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
