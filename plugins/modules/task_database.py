#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_database
short_description: Give a task its PostgreSQL, whatever the back end
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Gives a task a PostgreSQL of its own, or removes it, through the back end that O(backend) names.
  - The parameters and the facts are the same for each back end. What only one of them takes is in the option of its
    name.
  - It is done when the database answers a query at its address with the task's own password, see O(wait).
  - A database that belongs to someone else is neither used nor removed.
  - The password is generated where O(password_file) does not exist, and appears in no result, log or argument.
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
  backend:
    description:
      - With V(embedded), a server of the task's own that needs neither Docker nor root, see
        M(parallel.worktrees.pg_cluster).
      - With V(container), one in a Docker container of the task's own, see M(parallel.worktrees.pg_container).
      - With V(shared), databases and a role of the task's own in a server that all tasks share, see
        M(parallel.worktrees.pg_database).
      - With V(branch), a branch on a DB host, which M(parallel.worktrees.pg_branch) makes there, between a call with
        O(wait=false), which gives RV(verifier), and one that waits.
      - With V(none), there is no database, and nothing is done. RV(database) has all of its keys then, each V(none).
    type: str
    choices:
      - none
      - branch
      - container
      - embedded
      - shared
    required: true
  name:
    description:
      - Name of the container or the cluster, unique on the machine. Letters, digits, C(_), C(.) and C(-) are allowed.
      - With O(backend=branch), the name of the branch and of the database. With O(backend=shared), the name by which
        the task's databases are told.
    type: str
    required: true
  owner:
    description:
      - To whom the database belongs, as in V(shop/fix-login@9dda1566), the workspace, the task and the registry.
      - A database of this name with another owner is refused.
    type: str
    required: true
  state:
    description:
      - With V(present), the database is there and its server runs. One that was stopped is started with its data.
      - With V(absent), neither the server, its data nor its O(password_file) are there. What other tasks share, such as
        an image, stays.
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
    default: 120
  address:
    description:
      - The address of this machine on which the database is reached. With O(backend=embedded) it is a loopback address.
        With O(backend=shared) it is the server's, or the folder of its socket. With O(backend=branch), the DB host's.
    type: str
    default: 127.0.0.1
  port:
    description:
      - The port on which it is reached.
      - Required with O(state=present), unless O(backend=none) or O(backend=branch).
    type: int
  ports:
    description:
      - The ports that the task has, by their names. They are named where O(port) is missing.
    type: dict
    default: {}
  user:
    description:
      - Name of the superuser. With O(backend=shared), of the task's own role, which owns its databases.
    type: str
    default: postgres
  database:
    description:
      - Name of the database. It defaults to O(user).
    type: str
  databases:
    description:
      - The databases, where one of the name O(database) is not what is wanted.
      - With O(backend=container) and O(backend=embedded), the server then has its own database O(user) besides.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description:
          - The name by which it is told in RV(databases). It defaults to O(databases[].name).
        type: str
      name:
        description:
          - As in O(parallel.worktrees.pg_database#module:databases[].name).
        type: str
        required: true
      template:
        description:
          - As in O(parallel.worktrees.pg_database#module:databases[].template).
        type: str
      dump:
        description:
          - As in O(parallel.worktrees.pg_database#module:databases[].dump).
        type: path
      extensions:
        description:
          - As in O(parallel.worktrees.pg_database#module:databases[].extensions).
        type: list
        elements: str
        default: []
      connection_limit:
        description:
          - As in O(parallel.worktrees.pg_database#module:databases[].connection_limit).
        type: int
      golden:
        description:
          - What the database begins with, built once and then copied.
          - A hash of the content of all that it is built from tells one from another, so a changed migration makes a
            new one. What tasks have already stays as it is.
          - With O(backend=shared), it is a template in the server. With O(backend=container), it is in the prepared
            image, and with O(backend=embedded) in a folder, which is copied with shared blocks where the file system
            can.
          - It is built with none but the one who builds it connected.
        type: dict
        suboptions:
          folder:
            description:
              - Where the paths and patterns below begin, and where the commands run.
            type: path
            required: true
          dump:
            description:
              - A dump by C(pg_dump), which is restored first.
            type: path
          pull:
            description:
              - The database of another server, which it begins with in place of a dump, as in O(databases[].pull).
              - What is in that one is no part of the hash, so it is pulled again when something else of this has
                changed.
            type: dict
            suboptions:
              url_variable:
                description:
                  - As in O(parallel.worktrees.pg_database#module:databases[].pull.url_variable).
                type: str
              url_file:
                description:
                  - As in O(parallel.worktrees.pg_database#module:databases[].pull.url_file).
                type: path
              url_command:
                description:
                  - As in O(parallel.worktrees.pg_database#module:databases[].pull.url_command).
                type: str
              tables:
                description:
                  - As in O(parallel.worktrees.pg_database#module:databases[].pull.tables).
                type: list
                elements: str
                default: []
              exclude_tables:
                description:
                  - As in O(parallel.worktrees.pg_database#module:databases[].pull.exclude_tables).
                type: list
                elements: str
                default: []
              exclude_data:
                description:
                  - As in O(parallel.worktrees.pg_database#module:databases[].pull.exclude_data).
                type: list
                elements: str
                default: []
              mask:
                description:
                  - As in O(parallel.worktrees.pg_database#module:databases[].pull.mask).
                type: path
              mask_verify:
                description:
                  - As in O(parallel.worktrees.pg_database#module:databases[].pull.mask_verify).
                type: str
              exclude_kinds:
                description:
                  - As in O(parallel.worktrees.pg_database#module:databases[].pull.exclude_kinds).
                type: list
                elements: str
              jobs:
                description:
                  - As in O(parallel.worktrees.pg_database#module:databases[].pull.jobs).
                type: int
                default: 4
          files:
            description:
              - Patterns of files with SQL text, such as V(migrations/*.sql). They run next, sorted by name within a
                pattern, by C(psql) in O(databases[].golden.folder). The files that they bring with them by C(\i),
                C(\ir) and C(\copy) belong to what is hashed.
            type: list
            elements: str
            default: []
          transaction:
            description:
              - Whether each of O(databases[].golden.files) is one transaction. Statements that cannot run in one, such
                as C(create index concurrently), need V(false).
            type: bool
            default: true
          commands:
            description:
              - Lines for the shell, which run last, with E(DATABASE_URL), E(PGHOST), E(PGPORT), E(PGUSER),
                E(PGPASSWORD) and E(PGDATABASE) of the golden database.
            type: list
            elements: str
            default: []
          inputs:
            description:
              - Patterns of the files that the commands read. What they read and is not named here can change unnoticed.
            type: list
            elements: str
            default: []
      strategy:
        description:
          - As in O(parallel.worktrees.pg_database#module:databases[].strategy).
        type: str
        choices:
          - auto
          - wal_log
          - file_copy
        default: auto
      pull:
        description:
          - As in O(parallel.worktrees.pg_database#module:databases[].pull).
          - It does not go with O(databases[].golden).
        type: dict
        suboptions:
          url_variable:
            description:
              - As in O(parallel.worktrees.pg_database#module:databases[].pull.url_variable).
            type: str
          url_file:
            description:
              - As in O(parallel.worktrees.pg_database#module:databases[].pull.url_file).
            type: path
          url_command:
            description:
              - As in O(parallel.worktrees.pg_database#module:databases[].pull.url_command).
            type: str
          tables:
            description:
              - As in O(parallel.worktrees.pg_database#module:databases[].pull.tables).
            type: list
            elements: str
            default: []
          exclude_tables:
            description:
              - As in O(parallel.worktrees.pg_database#module:databases[].pull.exclude_tables).
            type: list
            elements: str
            default: []
          exclude_data:
            description:
              - As in O(parallel.worktrees.pg_database#module:databases[].pull.exclude_data).
            type: list
            elements: str
            default: []
          mask:
            description:
              - As in O(parallel.worktrees.pg_database#module:databases[].pull.mask).
            type: path
          mask_verify:
            description:
              - As in O(parallel.worktrees.pg_database#module:databases[].pull.mask_verify).
            type: str
          exclude_kinds:
            description:
              - As in O(parallel.worktrees.pg_database#module:databases[].pull.exclude_kinds).
            type: list
            elements: str
          jobs:
            description:
              - As in O(parallel.worktrees.pg_database#module:databases[].pull.jobs).
            type: int
            default: 4
  pull_again:
    description:
      - As in O(parallel.worktrees.pg_database#module:pull_again).
    type: bool
    default: false
  password_file:
    description:
      - The file that keeps the password of O(user), of mode 0600.
      - It defaults to C(parallel-worktrees/secrets/OWNER/database) in E(XDG_STATE_HOME) or, without that, in
        C(~/.local/state), where C(OWNER) stands for O(owner).
    type: path
  settings:
    description:
      - Settings of the server, added to ones that give up durability for speed. These suit a database that can be
        thrown away; a crash of the machine may lose it.
      - With O(backend=container), everybody who may list processes can read them.
      - With O(backend=shared), of the server in O(shared.container), which gets no others.
    type: dict
    default: {}
  branch:
    description:
      - What only O(backend=branch) takes.
    type: dict
    suboptions:
      host:
        description:
          - The DB host as the inventory calls it.
          - Required with O(backend=branch) and O(state=present).
        type: str
      source:
        description:
          - As in O(parallel.worktrees.pg_branch#module:source).
        type: str
      parent:
        description:
          - As in O(parallel.worktrees.pg_branch#module:parent).
        type: str
      expires:
        description:
          - As in O(parallel.worktrees.pg_branch#module:expires).
        type: str
      protected:
        description:
          - As in O(parallel.worktrees.pg_branch#module:protected).
        type: bool
        default: false
      unreachable:
        description:
          - Why Ansible did not get to the DB host, where it did not.
        type: str
  container:
    description:
      - What only O(backend=container) takes.
    type: dict
    suboptions:
      image:
        description:
          - The image to run. It takes the variables of the official C(postgres) image.
          - Required with O(backend=container) and O(state=present).
        type: str
      pull:
        description:
          - Whether to pull an image that Docker does not have.
        type: str
        choices:
          - missing
          - never
        default: missing
      memory:
        description:
          - How much memory the container may use, such as V(512m). There is no limit where it is not given.
        type: str
      shm_size:
        description:
          - Size of the container's shared memory.
        type: str
        default: 256m
      prepared:
        description:
          - Whether to start from an image that went through its first start once before.
          - An image that does not take another C(PGDATA) is started as it is, with a warning, for each container then
            does the first start of the image, which takes seconds more.
          - Give V(false) for a first start that must happen anew for each container.
        type: bool
        default: true
      volume:
        description:
          - As in O(parallel.worktrees.pg_container#module:volume).
        type: str
      environment:
        description:
          - Variables for the image's first start, such as C(POSTGRES_INITDB_ARGS).
          - Everybody who may use Docker can read them.
        type: dict
        default: {}
      docker_host:
        description:
          - URL of the Docker daemon, which runs on the machine of this task. It defaults to the environment variable
            E(DOCKER_HOST), or Docker's usual socket.
        type: str
  embedded:
    description:
      - What only O(backend=embedded) takes.
    type: dict
    suboptions:
      directory:
        description:
          - Where clusters lie. It has to be on a local file system.
          - It defaults to C(parallel-worktrees/clusters) in E(XDG_STATE_HOME), or in C(~/.local/state) where that is
            not set; for root to C(/var/lib/parallel-worktrees/clusters).
        type: path
      bin_directory:
        description:
          - The folder of C(postgres), C(initdb) and C(pg_controldata). Where it is not given, they are looked for as
            O(parallel.worktrees.pg_cluster#module:bin_directory) says.
        type: path
      system_user:
        description:
          - For root only, because PostgreSQL refuses to run as root. The account that the server runs as and that the
            data belong to. It is not created.
        type: str
        default: postgres
  shared:
    description:
      - What only O(backend=shared) takes.
    type: dict
    suboptions:
      admin_user:
        description:
          - Who makes the databases. A superuser, or a role with C(CREATEDB) and C(CREATEROLE).
        type: str
        default: postgres
      admin_password_file:
        description:
          - The file that has his password. For O(shared.container) it is made where it is not there, and defaults to
            C(parallel-worktrees/servers/NAME) in E(XDG_STATE_HOME) or, without that, in C(~/.local/state).
        type: path
      maintenance_database:
        description:
          - The database that he connects to.
        type: str
        default: postgres
      protected:
        description:
          - Databases that no task can have or drop.
        type: list
        elements: str
        default: []
      container:
        description:
          - The container of the server, if it is to be started by whoever comes first. It stays when tasks go.
        type: dict
        suboptions:
          name:
            description:
              - Its name, unique on the machine.
            type: str
            required: true
          image:
            description:
              - The image to run. Required with O(state=present).
            type: str
          pull:
            description:
              - Whether to pull an image that Docker does not have.
            type: str
            choices:
              - missing
              - never
            default: missing
          volume:
            description:
              - Name of the Docker volume that keeps its data. Required with O(state=present).
            type: str
          memory:
            description:
              - How much memory it may use, such as V(2g).
            type: str
          shm_size:
            description:
              - Size of its shared memory.
            type: str
            default: 256m
          environment:
            description:
              - Variables for the image's first start. Everybody who may use Docker can read them.
            type: dict
            default: {}
          docker_host:
            description:
              - URL of the Docker daemon.
            type: str
requirements:
  - psycopg2 (Python), unless O(backend=none)
  - docker >= 5.0 (Python), for O(backend=container)
  - PostgreSQL 12 or newer on Linux, for O(backend=embedded)
seealso:
  - module: parallel.worktrees.pg_branch
  - module: parallel.worktrees.pg_cluster
  - module: parallel.worktrees.pg_container
  - module: parallel.worktrees.pg_database
  - module: parallel.worktrees.task_record
"""

EXAMPLES = r"""
- name: Give the task its database, with neither Docker nor root
  parallel.worktrees.task_database:
    backend: embedded
    name: shop_fix_login
    owner: shop/fix-login
    port: 15433
    database: shop
  register: made

- name: The same in a container
  parallel.worktrees.task_database:
    backend: container
    name: shop_fix_login
    owner: shop/fix-login
    port: 15433
    database: shop
    container:
      image: postgres:17
      memory: 512m

- name: Two databases in a server that all tasks share
  parallel.worktrees.task_database:
    backend: shared
    name: carlo_oauth_v2_1f3a5c
    owner: carlo/oauth-v2
    user: carlo_oauth_v2_1f3a5c
    port: 5432
    databases:
      - key: carlo
        name: carlo_oauth_v2_1f3a5c
      - key: world
        name: world_oauth_v2_1f3a5c
    shared:
      container:
        name: carlo-postgres
        image: postgres:17
        volume: carlo-postgres

- name: Start it, and come back for it when the worktrees are there
  parallel.worktrees.task_database:
    backend: embedded
    name: shop_fix_login
    owner: shop/fix-login
    port: 15433
    wait: false

- name: Take it back
  parallel.worktrees.task_database:
    backend: embedded
    name: shop_fix_login
    owner: shop/fix-login
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample:
    - create cluster shop_fix_login of PostgreSQL 17.2 in /srv/clusters/shop_fix_login
    - start cluster shop_fix_login on port 15433 of 127.0.0.1
    - give user postgres the password and database shop
database:
  description: How to reach the database, with a placeholder in the place of the password.
  returned: success and O(state=present), or O(backend=none)
  type: dict
  contains:
    backend:
      description: The back end.
      type: str
      sample: embedded
    container:
      description: Name of the container.
      returned: O(backend=container)
      type: str
      sample: shop_fix_login
    cluster:
      description: Name of the cluster.
      returned: O(backend=embedded)
      type: str
      sample: shop_fix_login
    host:
      description: Address of the server.
      type: str
      sample: 127.0.0.1
    port:
      description: Port of the server.
      type: int
      sample: 15433
    user:
      description: Name of the superuser.
      type: str
      sample: postgres
    name:
      description: Name of the database.
      type: str
      sample: shop
    password:
      description: What stands for the password in values that other modules of this collection write.
      type: str
      sample: PARALLEL_WORKTREES_DATABASE_PASSWORD
    password_file:
      description: The file that has the password.
      type: str
      sample: /home/alice/.local/state/parallel-worktrees/secrets/shop/fix-login/database
    url:
      description: All of it as a URL.
      type: str
      sample: postgresql://postgres:PARALLEL_WORKTREES_DATABASE_PASSWORD@127.0.0.1:15433/shop
databases:
  description: Each of the task's databases by its O(databases[].key), with what RV(database) tells of the first.
  returned: success and O(state=present), or O(backend=none)
  type: dict
container:
  description: The container, as RV(parallel.worktrees.pg_container#module:container) tells it.
  returned: success, with O(state=present) and O(backend=container)
  type: dict
cluster:
  description: The cluster, as RV(parallel.worktrees.pg_cluster#module:cluster) tells it.
  returned: success, with O(state=present) and O(backend=embedded)
  type: dict
verifier:
  description:
    - The SCRAM verifier of the password, the same each time, for O(parallel.worktrees.pg_branch#module:password). It
      lets nobody in.
  returned: success, with O(state=present) and O(backend=branch), but not in check mode
  type: str
written:
  description:
    - The databases of the task into which something was written since they were made, beyond what they began with, and
      those of which nobody knows, for example because the server is stopped. What is written while it is looked at may
      be missing.
    - With O(backend=container) and O(backend=embedded), other databases of the same server are among them.
  returned: success and O(state=absent)
  type: list
  elements: dict
  contains:
    database:
      description: Name of the database.
      type: str
      sample: shop
    rows:
      description: How many rows were inserted, updated or deleted, in transactions that were rolled back as well.
      type: int
      sample: 12
    tables:
      description: In which tables, those with most of the rows first. Those in the schema C(public) are without it.
      type: list
      elements: str
      sample: [orders, audit.log]
    definitions:
      description: Whether tables, functions and the like were created, altered or dropped.
      type: bool
      sample: true
    unknown:
      description: Why it cannot be determined; V(none) where it can.
      type: str
      sample: null
warnings:
  description: An image that cannot be prepared, see O(container.prepared).
  returned: success, with O(state=present) and O(backend=container)
  type: list
  elements: str
plan:
  description:
    - What finds the database again, for C(database) in the option O(parallel.worktrees.task_record#module:plan). Empty
      with O(backend=none).
  returned: success
  type: dict
  contains:
    backend:
      description: The back end.
      type: str
      sample: embedded
    name:
      description: Name of the container or the cluster. O(address), O(port), O(user) and the like are there, too.
      type: str
      sample: shop_fix_login
    branch:
      description: The option O(branch), with its defaults.
      returned: O(backend=branch)
      type: dict
    container:
      description: The option O(container), with its defaults.
      returned: O(backend=container)
      type: dict
    embedded:
      description: The option O(embedded), with its defaults.
      returned: O(backend=embedded)
      type: dict
    shared:
      description: The option O(shared), with its defaults.
      returned: O(backend=shared)
      type: dict
failure:
  description:
    - V(user) if what was asked cannot be done as asked, for example because the database is another owner's, was made
      with other parameters, or has no port.
    - V(environment) if Docker, an image, PostgreSQL or the machine did not do its part, for example because the port is
      taken or the server ended; the message then has its last words.
  returned: failure
  type: str
  sample: environment
hint:
  description: The command or change that helps; V(none) where there is no telling. It ends C(msg) too.
  returned: failure
  type: str
  sample: "see which: ss -ltnp 'sport = :15433'"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._databases import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
