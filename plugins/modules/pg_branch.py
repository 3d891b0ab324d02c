#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_branch
short_description: Provide a task with a copy-on-write branch of a large database
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Runs on a DB host, which the playbook C(parallel.worktrees.db_host) sets up. It makes a writable copy of the newest
    golden of a source, or of another branch, and starts a PostgreSQL server on the copy. The copy shares its blocks
    with the original, so the time and space that it takes hardly depend on the size of the database.
  - Clients reach all branches at the address and port of PgBouncer. The name of the branch is the name of the database.
    Adding or removing a branch does not disturb sessions in other branches.
  - A branch has one user, who acts as the owner of all objects in the database. Roles that were copied with the data
    cannot log in. The server archives nothing, replicates nothing, and has no primary, so it never touches its source.
  - The mark of its volume names the owner of a branch. A volume of another owner, or without a mark, is neither used
    nor removed.
  - The next run finishes the work of a run that was killed. Runs for the same branch wait for each other.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - O(state=reset) resets the branch at each call.
options:
  name:
    description:
      - Name of the branch, which clients use as the name of the database. Letters, digits, C(_) and C(-) are allowed. A
        name of more than 63 bytes is shortened, and ends with a hash of the whole name.
    type: str
    required: true
  owner:
    description:
      - The owner of the branch, as in V(shop/fix-login@9dda1566), kept in its mark.
    type: str
    required: true
  state:
    description:
      - With V(present), the branch exists, its server runs, and clients reach it through PgBouncer.
      - With V(absent), the branch is removed, and its sessions end. A branch that other branches depend on is refused.
      - With V(reset), the branch gets the data that it started with. They are built in a new volume, which replaces the
        old volume when its server works. Sessions end, and clients that connect meanwhile wait. A branch that other
        branches depend on is refused.
    type: str
    choices:
      - present
      - absent
      - reset
    default: present
  source:
    description:
      - The source that the branch is made from. It is not required if the host has only one source.
    type: str
  parent:
    description:
      - The branch to copy, in its present state. Its server is stopped during the copy, so its sessions end, and
        clients that connect to it meanwhile wait.
      - Mutually exclusive with O(source). A parent cannot be removed or reset before the branches that depend on it are
        removed.
    type: str
  user:
    description:
      - Name of the user, unique on the host. It defaults to O(name).
    type: str
  password:
    description:
      - The user's password, or preferably its SCRAM verifier, in the format of C(pg_authid). With a verifier, the
        password itself is not sent to the host.
      - Required for a new branch. An existing branch keeps its password if this option is not set.
    type: str
  expires:
    description:
      - The time without a session after which the host's timer removes the branch, such as V(12h) or V(7d). Time in
        which the host is off, and changes of its clock, do not count. It defaults to the value of the source in the
        host file; without that, the branch never expires.
    type: str
  protected:
    description:
      - Whether the branch never expires, and can be removed or reset only with O(force=true).
    type: bool
    default: false
  force:
    description:
      - Whether to remove or reset the branch although it is protected.
    type: bool
    default: false
  leaving:
    description:
      - With O(state=absent), the names of the branches that the same run removes. The module waits at most O(timeout)
        seconds until those that depend on this branch are removed. In check mode they count as removed, unless their
        removal would be refused.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Number of seconds to wait for a server to answer.
    type: float
    default: 60
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
  - module: parallel.worktrees.pg_branch_info
  - module: parallel.worktrees.pg_database
"""

EXAMPLES = r"""
- name: Make a branch for the task
  parallel.worktrees.pg_branch:
    name: shop_fix_login_1f3a5c
    owner: shop/fix-login
    source: shop
    password: "{{ verifier }}"
    expires: 7d
  delegate_to: db.example.com
  become: true

- name: Make a branch of that branch
  parallel.worktrees.pg_branch:
    name: shop_fix_login_2_9a8b7c
    owner: shop/fix-login-2
    parent: shop_fix_login_1f3a5c
    password: "{{ verifier }}"
  delegate_to: db.example.com
  become: true

- name: Reset the branch to the data that it started with
  parallel.worktrees.pg_branch:
    name: shop_fix_login_1f3a5c
    owner: shop/fix-login
    state: reset
  delegate_to: db.example.com
  become: true

- name: Remove the branch
  parallel.worktrees.pg_branch:
    name: shop_fix_login_1f3a5c
    owner: shop/fix-login
    state: absent
  delegate_to: db.example.com
  become: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample:
    - make branch shop_fix_login_1f3a5c of goldens/shop/20261121T180000Z
name:
  description: Name of the branch, shortened if necessary. Clients use it as the name of the database.
  returned: success, except with O(state=absent)
  type: str
host:
  description: Address of PgBouncer.
  returned: success, except with O(state=absent)
  type: str
port:
  description: Port of PgBouncer.
  returned: success, except with O(state=absent)
  type: int
user:
  description: Name of the user of the branch.
  returned: success, except with O(state=absent)
  type: str
branch_port:
  description: Port of the server of the branch, on the loopback address of the host.
  returned: success, except with O(state=absent)
  type: int
source:
  description: The source of its data.
  returned: success, except with O(state=absent)
  type: str
golden:
  description: The snapshot that its data come from.
  returned: success, except with O(state=absent)
  type: str
parent:
  description: The branch that it was copied from, if it was not made from a golden.
  returned: success, except with O(state=absent)
  type: str
data_at:
  description: The time at which the source had these data.
  returned: success, except with O(state=absent)
  type: raw
created:
  description: When the branch was created or last reset, in seconds since the epoch.
  returned: success, except with O(state=absent)
  type: float
failure:
  description:
    - V(user) if the request is refused, for example because the branch belongs to another owner.
    - V(environment) if an operation on the host fails, for example because its pool is nearly full, or PgBouncer does
      not answer.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._branches import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
