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
  - Tells of each branch its owner, what it is a copy of, how much of the pool it has for itself, how many sessions
    are in it, and when it expires. Changes nothing.
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
      - Only the branch of this name.
    type: str
  owner:
    description:
      - Only branches of this owner.
    type: str
  host_file:
    description:
      - The file that says what the host is made of.
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
- name: See what there is
  parallel.worktrees.pg_branch_info:
  become: true
  register: there

- name: The largest of them
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
      description: Name of the branch, by which PgBouncer knows it.
      type: str
    owner:
      description: Its owner, from its mark.
      type: str
    phase:
      description: V(ready), or what a run is at, or has left when it was killed.
      type: str
    source:
      description: The source whose data it has.
      type: str
    golden:
      description: The snapshot that its data go back to.
      type: str
    parent:
      description: The branch that it is a copy of, if it is one's.
      type: str
    database:
      description: Name of the database in its own server.
      type: str
    user:
      description: Name of its user.
      type: str
    admin:
      description: Name of the superuser, who comes in from the host itself only.
      type: str
    owner_role:
      description: The role that owns what is in the database.
      type: str
    host:
      description: Address of PgBouncer.
      type: str
    port:
      description: Port of PgBouncer.
      type: int
    branch_port:
      description: Port of its own server, on the loopback address of the host.
      type: int
    own_bytes:
      description: How much of the pool it has for itself alone.
      type: int
    full_bytes:
      description: How large it is with what it shares.
      type: int
    created:
      description: When it was made, or last reset, in seconds since 1970.
      type: float
    age:
      description: How long ago that was, in seconds.
      type: int
    data_at:
      description: When its data were those of the source.
      type: raw
    expires:
      description: After how many seconds without a session it goes; none if it stays.
      type: float
    protected:
      description: Whether it is neither removed nor reset without force.
      type: bool
    running:
      description: Whether its server runs.
      type: bool
    routed:
      description: Whether PgBouncer knows it.
      type: bool
    sessions:
      description: How many clients are in it; none where it does not run.
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
