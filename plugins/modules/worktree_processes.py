#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worktree_processes
short_description: End the processes that work inside worktrees
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Ends every process whose working directory is in one of the folders. Each process gets SIGTERM and, if it still runs
    after O(grace), SIGKILL. Processes that they start meanwhile are ended too.
  - The calling process and its parent processes are never ended, see O(caller).
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
      - The folders. A folder that does not exist is no error.
    type: list
    elements: path
    required: true
  state:
    description:
      - With V(absent), no process works in the folders.
    type: str
    choices:
      - absent
    default: absent
  caller:
    description:
      - What to do if the calling process, or one of its parent processes, works in the folders.
      - With V(refuse), the call is refused and no process is ended. With V(spare), all processes are ended except those
        of the caller's own run.
    type: str
    choices:
      - refuse
      - spare
    default: refuse
  grace:
    description:
      - Number of seconds to wait for all processes together to end after SIGTERM.
    type: float
    default: 2.0
notes:
  - The module reads C(/proc), so it needs Linux. Only root sees the processes of other users.
seealso:
  - module: parallel.worktrees.git_worktree
"""

EXAMPLES = r"""
- name: End the processes in a worktree before its removal
  parallel.worktrees.worktree_processes:
    paths:
      - "{{ workspace_root }}/backend/.worktrees/fix-login"
    grace: 5
"""

RETURN = r"""
actions:
  description: What was ended, or would be ended in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - end process 4711 (node)
processes:
  description: The processes that were ended, or would be ended in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    pid:
      description: ID of the process.
      type: int
      sample: 4711
    started:
      description: Start time of the process, in clock ticks since the boot of the machine.
      type: str
      sample: "1234567"
    command:
      description: Name of the process, without arguments.
      type: str
      sample: node
    folder:
      description: Working directory of the process.
      type: str
      sample: /srv/shop/backend/.worktrees/fix-login
failure:
  description:
    - V(user) if the calling process works inside one of the folders.
    - V(environment) if a process does not end even after SIGKILL.
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
