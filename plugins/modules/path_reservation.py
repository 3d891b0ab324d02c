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
  - Reserves globs of paths for one task of a workspace, for a limited time. If one glob overlaps with a reservation of
    another task, all of them are refused. It does not matter whether matching files exist.
  - A reservation ends when its time is over or the record of its task is removed.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: A second run of the same call extends the reservations, which counts as a change.
options:
  registry:
    description:
      - The registry file. It defaults to the registry of the user.
    type: path
  workspace:
    description:
      - The workspace of the task.
    type: str
    required: true
  task:
    description:
      - Name of the task, which must have a record.
    type: str
    required: true
  repos:
    description:
      - The names of the repositories that contain the paths.
    type: list
    elements: str
    required: true
  paths:
    description:
      - The globs, relative to the top folder of the repository. C(*) and C(?) match characters within a single name,
        C([...]) matches one character of a name, C(**) matches any number of folders.
      - A glob that matches a folder also reserves everything in the folder.
      - Required with O(state=present). With O(state=absent), it defaults to all reservations of the task.
    type: list
    elements: str
  state:
    description:
      - With V(present), the paths are reserved. With V(absent), they are released.
    type: str
    choices:
      - present
      - absent
    default: present
  reason:
    description:
      - The reason, which is shown to a task that is refused.
    type: str
    default: ""
  seconds:
    description:
      - The duration of the reservation, in seconds. An existing reservation that lasts longer is not changed.
      - Setting the clock of the machine forwards or backwards does not change this time.
    type: int
    default: 7200
seealso:
  - module: parallel.worktrees.worktree_hooks
  - module: parallel.worktrees.task_info
"""

EXAMPLES = r"""
- name: Reserve the parser for a task
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
  description: All reservations of the task after the call.
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
      description: The reason.
      type: str
      sample: new parser
    expires:
      description: When the reservation ends, in seconds since the epoch.
      type: float
      sample: 1795283999.0
summary:
  description: The result as a text for people.
  returned: success
  type: str
  sample: |
    fix-login: has reserved
      backend: src/parser/** until 2026-11-21 17:19:59 (new parser)
failure:
  description:
    - V(user) for an overlap, an invalid glob, an invalid duration, or a task without a record.
    - V(environment) for a registry that is damaged, cannot be written, or has a newer version.
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
