#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_branch_info
short_description: List the branches of a DB host
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Reports for each branch its owner, what it was copied from, the space in the pool that it alone uses, its number of
    sessions, and when it expires. It changes nothing.
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
  name:
    description:
      - Report only the branch of this name.
    type: str
  owner:
    description:
      - Report only the branches of this owner.
    type: str
  host_file:
    description:
      - The host file, which the role C(db_host) writes.
    type: path
    default: /etc/parallel-worktrees/db_host.json
requirements:
  - A DB host
  - psycopg2 (Python)
  - root
seealso:
  - module: parallel.worktrees.pg_branch
"""

EXAMPLES = r"""
- name: Report the branches
  parallel.worktrees.pg_branch_info:
  become: true
  register: there

- name: Print the name of the largest branch
  ansible.builtin.debug:
    var: (there.branches | sort(attribute='own_bytes') | last).name
"""

RETURN = r"""
branches:
  description: The branches, sorted by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the branch, which is also its database name in PgBouncer.
      type: str
    owner:
      description: The owner in the mark of the branch.
      type: str
    phase:
      description: V(ready), or the phase that a run is in, or that a killed run left.
      type: str
    source:
      description: The source of its data.
      type: str
    golden:
      description: The snapshot that its data come from.
      type: str
    parent:
      description: The branch that it was copied from, if it was not made from a golden.
      type: str
    database:
      description: Name of the database in the server of the branch.
      type: str
    user:
      description: Name of the user of the branch.
      type: str
    admin:
      description: Name of the superuser, who can connect only from the host itself.
      type: str
    owner_role:
      description: The role that owns the objects in the database.
      type: str
    host:
      description: Address of PgBouncer.
      type: str
    port:
      description: Port of PgBouncer.
      type: int
    branch_port:
      description: Port of the server of the branch, on the loopback address of the host.
      type: int
    own_bytes:
      description: Space in the pool that only this branch uses, in bytes.
      type: int
    full_bytes:
      description: Size of the branch with the blocks that it shares, in bytes.
      type: int
    created:
      description: When the branch was created or last reset, in seconds since the epoch.
      type: float
    age:
      description: Time since then, in seconds.
      type: int
    data_at:
      description: The time at which the source had these data.
      type: raw
    expires:
      description: Number of seconds without a session after which the branch is removed; none if it is never removed.
      type: float
    protected:
      description: Whether the branch can be removed or reset only with force.
      type: bool
    running:
      description: Whether the server of the branch runs.
      type: bool
    routed:
      description: Whether PgBouncer has an entry for the branch.
      type: bool
    sessions:
      description: Number of client sessions; none if the server does not run.
      type: int
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

from ..module_utils._branches import INFO_SPEC as ARGUMENT_SPEC
from ..module_utils._branches import info as operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
