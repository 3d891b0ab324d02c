#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_branch
short_description: Give a task a branch of a big database, in a moment
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Runs on a DB host, which the playbook C(parallel.worktrees.db_host) sets up. It makes a writable copy of the newest
    golden of a source, or of another branch, that shares its blocks with it, and starts a PostgreSQL server on it. What
    that takes hardly depends on the size of the database.
  - Clients reach all branches at one address and port, those of PgBouncer, each under the name of the branch. When a
    name comes or goes, nobody who is connected to another notices.
  - A branch has one user, who acts as the owner of all that is in the database. Roles that came with the data cannot
    log in. The server archives nothing, replicates nothing, and knows no primary, so it never touches its source.
  - The mark of its volume names the owner of a branch. What another owner, or nobody, has made is neither used nor
    destroyed.
  - A run that was killed is finished by the next one. Runs for one branch wait for each other.
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
      - O(state=reset) resets each time.
options:
  name:
    description:
      - Name of the branch, by which clients reach it as a database. Letters, digits, C(_) and C(-) are allowed. One of
        more than 63 bytes keeps its start and gets a hash of the whole.
    type: str
    required: true
  owner:
    description:
      - The owner of the branch, as in V(shop/fix-login@9dda1566), kept in its mark.
    type: str
    required: true
  state:
    description:
      - With V(present), the branch is there, its server runs, and PgBouncer leads to it.
      - With V(absent), it is gone with the sessions in it. One on which others stand is refused.
      - With V(reset), it has again the data that it began with. They are built beside it, and take its place when they
        are seen to work. Sessions end, and who connects meanwhile waits. One on which others stand is refused.
    type: str
    choices:
      - present
      - absent
      - reset
    default: present
  source:
    description:
      - The source of which it is a branch. Not needed where the host has one only.
    type: str
  parent:
    description:
      - The branch that it is a copy of, as that is now. Its server stops for this moment, so that sessions in it end,
        and who connects to it waits.
      - It goes with no O(source). A parent can be neither removed nor reset before those that stand on it.
    type: str
  user:
    description:
      - Name of the user, unique on the host. It defaults to O(name).
    type: str
  password:
    description:
      - The user's password, or better its SCRAM verifier as C(pg_authid) has it, so that the password stays where it
        is.
      - Required for a new branch. One that is there keeps its own where it is not given.
    type: str
  expires:
    description:
      - After how long without a session it is removed by the host's timer, such as V(12h) or V(7d). Time in which the
        host is off, and by which its clock is set, does not count. By default what the host says of the source, or
        never.
    type: str
  protected:
    description:
      - Whether it is neither removed nor reset, unless O(force) says so, and never expires.
    type: bool
    default: false
  force:
    description:
      - Whether to remove or to reset one that is protected.
    type: bool
    default: false
  leaving:
    description:
      - With O(state=absent), branches that the same run removes. Those that stand on this one are waited for,
        O(timeout) seconds at most; in check mode they count as removed unless they cannot be.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - How many seconds a server may take to answer.
    type: float
    default: 60
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
  - module: parallel.worktrees.pg_branch_info
  - module: parallel.worktrees.pg_database
"""

EXAMPLES = r"""
- name: Give the task a branch
  parallel.worktrees.pg_branch:
    name: shop_fix_login_1f3a5c
    owner: shop/fix-login
    source: shop
    password: "{{ verifier }}"
    expires: 7d
  delegate_to: db.example.com
  become: true

- name: A branch of that branch
  parallel.worktrees.pg_branch:
    name: shop_fix_login_2_9a8b7c
    owner: shop/fix-login-2
    parent: shop_fix_login_1f3a5c
    password: "{{ verifier }}"
  delegate_to: db.example.com
  become: true

- name: Begin again with the data of the first day
  parallel.worktrees.pg_branch:
    name: shop_fix_login_1f3a5c
    owner: shop/fix-login
    state: reset
  delegate_to: db.example.com
  become: true

- name: Take it back
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
  description: Name of the branch, as it fitted, and of the database that clients ask for.
  returned: success, but for O(state=absent)
  type: str
host:
  description: Address of PgBouncer.
  returned: success, but for O(state=absent)
  type: str
port:
  description: Port of PgBouncer.
  returned: success, but for O(state=absent)
  type: int
user:
  description: Name of its user.
  returned: success, but for O(state=absent)
  type: str
branch_port:
  description: Port of its own server, on the loopback address of the host.
  returned: success, but for O(state=absent)
  type: int
source:
  description: The source whose data it has.
  returned: success, but for O(state=absent)
  type: str
golden:
  description: The snapshot that its data go back to.
  returned: success, but for O(state=absent)
  type: str
parent:
  description: The branch that it is a copy of, if it is one's.
  returned: success, but for O(state=absent)
  type: str
data_at:
  description: When its data were those of the source.
  returned: success, but for O(state=absent)
  type: raw
created:
  description: When it was made, or last reset, in seconds since 1970.
  returned: success, but for O(state=absent)
  type: float
failure:
  description:
    - V(user) if what was asked cannot be done as asked, for example because the branch is another owner's.
    - V(environment) if the host did not do its part, for example because its pool is nearly full, or PgBouncer does not
      answer.
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
