#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_host_info
short_description: Report the state of a DB host
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Reports the free space of the pool, the lag of each source, the age of its goldens, all branches, and the problems
    that need attention. It changes nothing.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
options:
  format:
    description:
      - Format of RV(report). Without it, there is no report.
    type: str
    choices:
      - text
      - json
  host_file:
    description:
      - The host file, which the role C(db_host) writes.
    type: path
    default: /etc/parallel-worktrees/db_host.json
requirements:
  - psycopg2 (Python)
  - root
seealso:
  - module: parallel.worktrees.pg_branch_info
"""

EXAMPLES = r"""
- name: Report the state of the DB host
  parallel.worktrees.db_host_info:
    format: text
  become: true
"""

RETURN = r"""
space:
  description: The pool, in bytes and percent.
  returned: success
  type: dict
  contains:
    root:
      description: Mount point of the pool.
      type: str
    total:
      description: Size of the pool, in bytes.
      type: int
    free:
      description: Free space, in bytes.
      type: int
    free_percent:
      description: Free space, in percent.
      type: float
    reserve_percent:
      description:
        - Percentage of the pool that must stay free. With less free space, new branches and goldens are refused.
      type: float
sources:
  description: The sources, each as M(parallel.worktrees.db_source_info) reports it.
  returned: success
  type: list
  elements: dict
branches:
  description: The branches, each as M(parallel.worktrees.pg_branch_info) reports it.
  returned: success
  type: list
  elements: dict
problems:
  description: The problems that need attention, one line each.
  returned: success
  type: list
  elements: str
report:
  description:
    - The whole result in the format of O(format). The callback P(parallel.worktrees.steps#callback) prints it
      unchanged.
  returned: success
  type: str
actions:
  description: Always empty.
  returned: success
  type: list
  elements: str
failure:
  description:
    - V(user) if this machine is no DB host.
    - V(environment) if its pool does not answer.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._db_host_info import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
