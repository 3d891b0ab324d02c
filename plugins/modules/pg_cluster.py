#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_cluster
short_description: Give a task a PostgreSQL server of its own, with no root and no Docker
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Makes a data directory, starts a server in it, and waits until the database answers a query at its final address.
  - C(initdb) takes most of a second. It is done once for each version of PostgreSQL and each O(user) and kept as a
    template, so that a cluster is a copy of it; on a file system that can (XFS, Btrfs), one that shares its blocks.
  - The server listens on a loopback address only, outlives this call, and does not come back by itself after a reboot.
    The same call starts it again, with its data.
  - A cluster that belongs to someone else is neither used nor removed, and no process is ended that does not work in
    the cluster's own data directory.
  - The password is generated where O(password_file) does not exist. It is sent to the server as a SCRAM verifier only,
    and appears in no result, log or argument. Nobody can connect to the address before it is set.
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
      - Name of the cluster, and of its folder in O(directory).
      - Letters, digits, C(_), C(.) and C(-), 63 at most, beginning with none of the last two.
      - The server tells it too, as C(current_setting('parallel_worktrees.database')).
    type: str
    required: true
  owner:
    description:
      - To whom the cluster belongs, kept in C(cluster.json) beside the data.
      - A cluster of this name with another owner is refused.
    type: str
    required: true
  state:
    description:
      - With V(present), the cluster is there and its server runs. One that was stopped, or crashed, is started with its
        data. When O(address), O(port) or O(settings) have changed, the server is restarted.
      - With V(absent), the server is stopped, and the cluster, its data and its O(password_file) are removed. The
        template stays.
    type: str
    choices:
      - present
      - absent
    default: present
  wait:
    description:
      - Whether to wait until the database answers.
      - With V(false) the server is only started. Its database cannot be used before a call that waits, since that sets
        the password.
    type: bool
    default: true
  timeout:
    description:
      - How many seconds the server may take to start and to answer.
    type: float
    default: 60
  directory:
    description:
      - Where clusters lie. It has to be on a local file system.
      - It defaults to C(parallel-worktrees/clusters) in E(XDG_STATE_HOME), or in C(~/.local/state) where that is not
        set; for root to C(/var/lib/parallel-worktrees/clusters), which O(system_user) can reach.
    type: path
  bin_directory:
    description:
      - The folder of C(postgres), C(initdb) and C(pg_controldata).
      - Where it is not given, the programs of an existing cluster are used again, or others of the same major version.
        For a new one it is what C(pg_config --bindir) says, else the newest of C(/usr/lib/postgresql/*/bin) and
        C(/usr/pgsql-*/bin), else where C(postgres) is on the E(PATH).
      - A cluster that was made by another major version is refused.
    type: path
  address:
    description:
      - The loopback address to listen on, or V(localhost).
    type: str
    default: 127.0.0.1
  port:
    description:
      - The port to listen on.
      - Required with O(state=present).
    type: int
  user:
    description:
      - Name of the superuser. It cannot be changed later.
    type: str
    default: postgres
  database:
    description:
      - Name of the database, which is made where it is not there. It defaults to O(user).
    type: str
  password_file:
    description:
      - The file that keeps the password of O(user), of mode 0600. When it was lost or changed, the server is given the
        new one.
      - Required with O(state=present).
    type: path
  settings:
    description:
      - Settings of the server, added to V(fsync=off), V(synchronous_commit=off), V(full_page_writes=off),
        V(wal_level=minimal), V(max_wal_senders=0) and V(shared_buffers=32MB). These suit a database that can be thrown
        away; a crash of the machine may lose it.
    type: dict
    default: {}
  system_user:
    description:
      - For root only, because PostgreSQL refuses to run as root. The account that the server runs as and that the data
        belong to. It is not created.
    type: str
    default: postgres
requirements:
  - PostgreSQL 12 or newer
  - psycopg2 (Python)
  - Linux
seealso:
  - module: parallel.worktrees.pg_container
"""

EXAMPLES = r"""
- name: Give the task its database
  parallel.worktrees.pg_cluster:
    name: bautista_fix_login
    owner: bautista/fix-login
    port: 65433
    database: bautista
    password_file: "{{ ansible_facts.env.HOME }}/.local/state/parallel-worktrees/secrets/bautista/fix-login/database"

- name: Start it, and come back for it when the worktrees are there
  parallel.worktrees.pg_cluster:
    name: bautista_fix_login
    owner: bautista/fix-login
    port: 65433
    password_file: /srv/passwords/fix-login
    wait: false

- name: With another PostgreSQL and more memory
  parallel.worktrees.pg_cluster:
    name: bautista_fix_login
    owner: bautista/fix-login
    port: 65433
    password_file: /srv/passwords/fix-login
    bin_directory: /usr/lib/postgresql/17/bin
    settings:
      shared_buffers: 256MB
      max_connections: 200

- name: Take it back
  parallel.worktrees.pg_cluster:
    name: bautista_fix_login
    owner: bautista/fix-login
    password_file: /srv/passwords/fix-login
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample:
    - create cluster bautista_fix_login of PostgreSQL 15.18 in /srv/clusters/bautista_fix_login
    - start cluster bautista_fix_login on port 65433 of 127.0.0.1
    - give user postgres the password and database bautista
cluster:
  description: The cluster.
  returned: success and O(state=present)
  type: dict
  contains:
    name:
      description: Its name.
      type: str
    directory:
      description: Its folder, with C(data), C(server.log), C(server.conf) and C(cluster.json).
      type: str
    port:
      description: The port its server listens on.
      type: int
    running:
      description: Whether its server runs.
      type: bool
    version:
      description: The version of its PostgreSQL.
      type: str
      sample: "15.18"
    socket_directory:
      description: The folder of its socket, where the account of the server gets in without a password.
      type: str
database:
  description: How to reach the database, with a placeholder in the place of the password.
  returned: success and O(state=present)
  type: dict
  contains:
    backend:
      description: Always V(embedded).
      type: str
    cluster:
      description: Name of the cluster.
      type: str
    host:
      description: Address of the server.
      type: str
    port:
      description: Port of the server.
      type: int
    user:
      description: Name of the superuser.
      type: str
    name:
      description: Name of the database.
      type: str
    password:
      description: What stands for the password in values that other modules of this collection write.
      type: str
    password_file:
      description: The file that has the password.
      type: str
    url:
      description: All of it as a URL.
      type: str
failure:
  description:
    - V(user) if what was asked cannot be done as asked, for example because the cluster is another owner's.
    - V(environment) if the machine did not do its part, for example because the port is taken or the server ended; the
      message then has the last lines of its log.
  returned: failure
  type: str
  sample: environment
hint:
  description: The command or change that helps.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._clusters import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
