#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worktree_processes
short_description: End the processes at work inside worktrees
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Ends every process whose working directory is one of the folders or below. Each gets SIGTERM, then the time of
    O(grace), then SIGKILL. Processes that these start meanwhile are ended too.
  - The caller, and what it descends from, is never ended, see O(caller).
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
  paths:
    description:
      - The folders. One that does not exist is fine.
    type: list
    elements: path
    required: true
  state:
    description:
      - With V(absent), no process is at work there.
    type: str
    choices:
      - absent
    default: absent
  caller:
    description:
      - What to do where the caller, or what it descends from, is in there.
      - With V(refuse), nothing is ended. With V(spare), all others are, but for the rest of the caller's own run.
    type: str
    choices:
      - refuse
      - spare
    default: refuse
  grace:
    description:
      - How many seconds the processes have to end on their own, all of them together.
    type: float
    default: 2.0
notes:
  - It reads C(/proc), so it needs Linux. Processes of other users are seen only by root.
seealso:
  - module: parallel.worktrees.git_worktree
"""

EXAMPLES = r"""
- name: End what runs in the worktree, before it is removed
  parallel.worktrees.worktree_processes:
    paths:
      - "{{ workspace_root }}/backend/.worktrees/fix-login"
    grace: 5
"""

RETURN = r"""
actions:
  description: What was ended, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - end process 4711 (node)
processes:
  description: The processes that were ended, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    pid:
      description: Id of the process.
      type: int
      sample: 4711
    started:
      description: When it started, in clock ticks since the machine's start.
      type: str
      sample: "1234567"
    command:
      description: Its name, without arguments.
      type: str
      sample: node
    folder:
      description: Its working directory.
      type: str
      sample: /srv/shop/backend/.worktrees/fix-login
failure:
  description:
    - V(user) if the call comes from inside one of the folders.
    - V(environment) if a process does not end even so.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "change to another folder first: cd"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._processes import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
