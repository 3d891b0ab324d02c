#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_database
short_description: Provide the PostgreSQL databases of a task, whatever the back end
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Makes the PostgreSQL databases of a task, or removes them, through the back end that O(backend) names.
  - The parameters and the facts are the same for each back end. What only one back end takes is in the option of its
    name.
  - The call ends when the database answers a query at its address with the task's own password, see O(wait).
  - A database, server or container of another owner is neither used nor removed, and no process is ended that does not
    work in the task's own data directory.
  - Everything is checked before anything is made. A database that a killed run left half made is dropped and made anew.
    A complete database keeps its data.
  - The password is generated where O(password_file) does not exist. It is sent to the server as a SCRAM verifier only,
    and appears in no result, log, label, variable or argument.
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
      - With V(embedded), a server of the task's own that needs neither Docker nor root. It listens on a loopback
        address only, outlives this call, and does not come back by itself after a reboot; the same call starts it
        again, with its data. C(initdb) runs once for each version of PostgreSQL and each O(user), and a cluster is a
        copy of what it made, with shared blocks where the file system can.
      - With V(container), a server in a Docker container of the task's own. What an image does at its first start is
        done once and kept as a prepared image named C(parallel-worktrees-prepared), see O(container.prepared).
      - With V(shared), databases and a role of the task's own in a server that all tasks share. Only this role and
        superusers can connect to them. Comments on the role and on each database keep O(owner). Calls for the same
        O(user) wait for each other. Where the server restarts meanwhile, the work begins once more.
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
      - Name of the container or the cluster, unique on the machine. Letters, digits, C(_), C(.) and C(-), 63 at most,
        beginning with a letter, a digit or C(_).
      - With O(backend=branch), the name of the branch and of the database.
      - With O(backend=shared), only the record of the task has it; the role is O(user).
      - With O(backend=container) and O(backend=embedded), the server has it as
        C(current_setting('parallel_worktrees.database')).
    type: str
    required: true
  owner:
    description:
      - The owner of the database, as in V(shop/fix-login@9dda1566), the workspace, the task and the registry.
      - It is kept in a label of the container, in C(cluster.json) beside the data of a cluster, and in comments on
        databases and role.
      - A database of this name with another owner, or with none, is refused.
    type: str
    required: true
  state:
    description:
      - With V(present), the database is there and its server runs. A server that was stopped, or crashed, is started
        with its data. A cluster whose O(address), O(port) or O(settings) have changed is restarted. A container that
        was made with other parameters is refused, because its data would be lost.
      - With V(absent), the server, its data and its O(password_file) are removed. What other tasks share, such as an
        image, stays. With O(backend=shared), the databases are dropped with the sessions and prepared transactions in
        them, then the role, unless it owns more, see RV(left). A template and a database that is replicated are
        refused.
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
      - With O(backend=shared), also how many seconds to wait for another call for the same O(user), and for sessions
        that are to end. Copies and restores may take longer.
    type: float
    default: 120
  address:
    description:
      - The address of this machine on which the database is reached. With O(backend=embedded) it is a loopback address,
        or V(localhost). With O(backend=shared) it is the server's, or the folder of its socket. With O(backend=branch),
        the DB host's.
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
      - Name of the superuser, which cannot be changed later. With O(backend=shared), of the task's own role, which owns
        its databases; a name of more than 63 bytes is shortened as those of the databases are.
    type: str
    default: postgres
  database:
    description:
      - Name of the database. It defaults to O(user).
    type: str
  databases:
    description:
      - The databases, in the order in which they are made, where one of the name O(database) is not what is wanted.
      - With O(backend=container) and O(backend=embedded), the server then has its own database O(user) besides.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description:
          - Its key in RV(databases). It defaults to O(databases[].name).
        type: str
      name:
        description:
          - Name of the database. One of more than 63 bytes keeps its start and gets a hash of the whole.
        type: str
        required: true
      template:
        description:
          - The database that it is a copy of. Nobody may be connected to that one. A name of more than 63 bytes is
            shortened as that of a database.
          - Schemas, tables, functions, types and the like that others own in the copy are given to O(user), but for
            members of extensions and for what belongs to C(pg_database_owner). Where all belongs to that role, which
            means the owner of each copy, nothing has to change hands and large schemas are copied faster.
          - Without it, the database is a copy of C(template1).
        type: str
      dump:
        description:
          - What C(pg_dump) has written, in any of its formats. It is restored by O(user), without owners and rights.
          - C(pg_restore), or C(psql) for SQL text, has to be on this machine and not older than the server. SQL text
            has to come from C(pg_dump --no-owner --no-privileges).
          - A database that is complete is never restored again.
        type: path
      extensions:
        description:
          - Extensions that the database has, made in the schema C(public) before the O(databases[].dump) is restored.
          - Those that PostgreSQL calls trusted are made by O(user), all others by O(shared.admin_user). The latter are
            refused where O(user) has functions in the database already, for the script of an extension might call them.
        type: list
        elements: str
        default: []
      connection_limit:
        description:
          - How many connections it takes. Without it there is no limit.
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
                  - As in O(databases[].pull.url_variable).
                type: str
              url_file:
                description:
                  - As in O(databases[].pull.url_file).
                type: path
              url_command:
                description:
                  - As in O(databases[].pull.url_command).
                type: str
              tables:
                description:
                  - As in O(databases[].pull.tables).
                type: list
                elements: str
                default: []
              exclude_tables:
                description:
                  - As in O(databases[].pull.exclude_tables).
                type: list
                elements: str
                default: []
              exclude_data:
                description:
                  - As in O(databases[].pull.exclude_data).
                type: list
                elements: str
                default: []
              mask:
                description:
                  - As in O(databases[].pull.mask).
                type: path
              mask_verify:
                description:
                  - As in O(databases[].pull.mask_verify).
                type: str
              exclude_kinds:
                description:
                  - As in O(databases[].pull.exclude_kinds).
                type: list
                elements: str
              jobs:
                description:
                  - As in O(databases[].pull.jobs).
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
          - How the template is copied. With V(wal_log), through the server's log, which suits small ones. With
            V(file_copy), file by file between two checkpoints, from PostgreSQL 18 on with shared blocks where the file
            system has these.
          - With V(auto), it is V(file_copy) from 64 MB on, from 32 MB on with PostgreSQL 18, and where the server has
            V(fsync=off).
          - PostgreSQL 14 and older know V(file_copy) only.
        type: str
        choices:
          - auto
          - wal_log
          - file_copy
        default: auto
      pull:
        description:
          - The database of another server, such as production's, that it begins with. C(pg_dump) reads it over several
            connections, and the copy is restored as a O(databases[].dump) is.
          - It is built under another name, with a role that lives as long as the pull, and gets its own name when
            O(databases[].pull.mask) has run. Until then O(user) cannot connect to it. A pull that breaks leaves what
            was there.
          - A database in which anybody has made anything is never pulled again, unless O(pull_again) says so. So local
            data stay. One that is empty is pulled, also where it was made without this.
          - The source, the version of C(pg_dump), the extensions and the tables are looked at before anything is made,
            in check mode, too. The source's PostgreSQL may not be newer than the server.
          - How far it is, is told on standard error every five seconds, where this runs on the controller itself.
          - Host and database of the source are told, the rest of its URL is not, and is in no argument or log.
          - It goes with neither O(databases[].template) nor O(databases[].dump).
          - It does not go with O(databases[].golden).
        type: dict
        suboptions:
          url_variable:
            description:
              - The environment variable that has the URL.
              - Exactly one of O(databases[].pull.url_variable), O(databases[].pull.url_file) and
                O(databases[].pull.url_command) is needed. It is a C(postgresql://) URL, or a connection string, as
                C(psql) takes it.
            type: str
          url_file:
            description:
              - The file that has the URL.
            type: path
          url_command:
            description:
              - A line for the shell that prints the URL. It runs in check mode, too.
            type: str
          tables:
            description:
              - Only these tables, as patterns of C(pg_dump --table), with the tables that inherit from them, such as
                partitions.
              - Each pattern has to match a table. A name alone, such as V(log), is looked for in the search path of the
                URL's user; a table of another schema is V(app.log), and V(*.log) in any. The same holds for
                O(databases[].pull.exclude_tables) and O(databases[].pull.exclude_data).
              - Schemas are made for them. Nothing else that they need comes with them, such as types and extensions.
            type: list
            elements: str
            default: []
          exclude_tables:
            description:
              - All but these tables, as patterns of C(pg_dump --exclude-table), and the tables that inherit from them.
              - Each pattern has to match a table that would come.
            type: list
            elements: str
            default: []
          exclude_data:
            description:
              - Tables that stay empty, as patterns of C(pg_dump --exclude-table-data), and the tables that inherit from
                them.
              - Each pattern has to match a table that comes.
            type: list
            elements: str
            default: []
          mask:
            description:
              - A file of SQL text that C(psql) runs in one transaction before anybody can connect, to make personal
                data unreadable. C(psql) runs in the folder of the file.
              - Materialized views that have rows are refreshed then, sequences set to the rows that they number, and
                the planner's statistics made anew. Where the task is a superuser of the server, its tables and its log
                (WAL) are written anew as well.
              - A failure quotes no row, neither in the result nor in a superuser's server log.
            type: path
          mask_verify:
            description:
              - A query, as SQL text, that must return no row after O(databases[].pull.mask). If it does, what was
                pulled is dropped and the pull refused, with the number of rows.
            type: str
          exclude_kinds:
            description:
              - Kinds of objects that do not come, in the words of C(pg_restore --list), such as V(policy), V(trigger)
                or V(event trigger); and V(large object). There has to be such an object.
              - With O(databases[].pull.mask) it is V(comment), V(large object) and V(user mapping) if not given, which
                a mask of tables does not reach. An empty list takes them as well.
            type: list
            elements: str
          jobs:
            description:
              - How many connections to the source read at once, besides one that leads them.
            type: int
            default: 4
  pull_again:
    description:
      - Whether to pull anew each database that has O(databases[].pull), in the place of what is there. What is there
        goes, with its sessions, when the new one is complete.
    type: bool
    default: false
  password_file:
    description:
      - The file that keeps the password of O(user), of mode 0600. When it was lost or changed, the server gets the new
        one.
      - It defaults to C(parallel-worktrees/secrets/OWNER/database) in E(XDG_STATE_HOME) or, without that, in
        C(~/.local/state), where C(OWNER) stands for O(owner).
    type: path
  settings:
    description:
      - Settings of the server, added to V(fsync=off), V(synchronous_commit=off) and V(full_page_writes=off), and with
        O(backend=embedded) also to V(wal_level=minimal), V(max_wal_senders=0) and V(shared_buffers=32MB). These suit a
        database that can be thrown away; a crash of the machine may lose it. A container with O(container.volume) gets
        none of them.
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
          - Whether to start from a prepared image.
          - An image that does not take another C(PGDATA) is started as it is, with a warning, for each container then
            does the first start of the image, which takes seconds more.
          - Give V(false) for a first start that must happen anew for each container.
        type: bool
        default: true
      volume:
        description:
          - Name of a Docker volume for the data, which then outlive the container. It is made where it is not there.
          - What is kept is to survive a crash, so the settings that give up durability are not added then, and there is
            no prepared image.
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
            not set; for root to C(/var/lib/parallel-worktrees/clusters), which O(embedded.system_user) can reach.
        type: path
      bin_directory:
        description:
          - The folder of C(postgres), C(initdb) and C(pg_controldata).
          - Where it is not given, the programs of an existing cluster are used again, or others of the same major
            version. For a new one it is what C(pg_config --bindir) says, else the newest of
            C(/usr/lib/postgresql/*/bin) and C(/usr/pgsql-*/bin), else where C(postgres) is on the E(PATH).
          - A cluster that was made by another major version is refused.
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
          - Who makes the databases. A superuser, or a role with C(CREATEDB) and C(CREATEROLE), which cannot make
            extensions that need a superuser.
        type: str
        default: postgres
      admin_password_file:
        description:
          - The file that has the password of O(shared.admin_user). Without it, the server has to take that user without
            a password, or C(~/.pgpass) has it.
          - For O(shared.container) it is made where it is not there, and defaults to C(parallel-worktrees/servers/NAME)
            in E(XDG_STATE_HOME) or, without that, in C(~/.local/state).
        type: path
      maintenance_database:
        description:
          - The database that O(shared.admin_user) connects to.
        type: str
        default: postgres
      protected:
        description:
          - Databases that no task can have or drop, such as the one that the workspace works on without tasks.
            O(shared.maintenance_database), C(postgres), C(template0) and C(template1) are protected always.
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
  - docker >= 5.0 (Python), for O(backend=container) and for O(shared.container)
  - PostgreSQL 12 or newer, on Linux
seealso:
  - module: parallel.worktrees.pg_branch
  - module: parallel.worktrees.pg_database_info
  - module: parallel.worktrees.task_record
"""

EXAMPLES = r"""
- name: A server of the task's own, with neither Docker nor root
  parallel.worktrees.pg_database:
    backend: embedded
    name: shop_fix_login
    owner: shop/fix-login
    port: 15433
    database: shop
    settings:
      shared_buffers: 256MB
      max_connections: 200

- name: A server of the task's own in a container
  parallel.worktrees.pg_database:
    backend: container
    name: shop_fix_login
    owner: shop/fix-login
    port: 15433
    database: shop
    container:
      image: postgres:17
      memory: 512m

- name: Start it, and wait for it later, when the worktrees are there
  parallel.worktrees.pg_database:
    backend: container
    name: shop_fix_login
    owner: shop/fix-login
    port: 15433
    database: shop
    container:
      image: postgres:17
      memory: 512m
    wait: false

- name: Two databases in a server that all tasks share, one of them a copy
  parallel.worktrees.pg_database:
    backend: shared
    name: carlo_oauth_v2_1f3a5c
    owner: carlo/oauth-v2
    user: carlo_oauth_v2_1f3a5c
    port: 5432
    databases:
      - key: carlo
        name: carlo_oauth_v2_1f3a5c
        template: carlo_golden
      - key: world
        name: world_oauth_v2_1f3a5c
        extensions: [postgis]
        connection_limit: 20
    shared:
      admin_password_file: /srv/passwords/postgres
      protected: [carlo, world]

- name: A database from a dump, in a shared server that the first task starts
  parallel.worktrees.pg_database:
    backend: shared
    name: carlo_oauth_v2_1f3a5c
    owner: carlo/oauth-v2
    user: carlo_oauth_v2_1f3a5c
    port: 5432
    databases:
      - name: carlo_oauth_v2_1f3a5c
        dump: /srv/dumps/carlo.dump
    shared:
      container:
        name: carlo-postgres
        image: postgres:17
        volume: carlo-postgres

- name: A database pulled from production, without what is large or personal
  parallel.worktrees.pg_database:
    backend: embedded
    name: carlo_oauth_v2
    owner: carlo/oauth-v2
    port: 15434
    databases:
      - name: carlo
        pull:
          url_command: pass show carlo/production-url
          exclude_data: [audit_log, "events_*"]
          mask: /srv/carlo/db/mask.sql

- name: The verifier for a branch on a DB host, which pg_branch makes there
  parallel.worktrees.pg_database:
    backend: branch
    name: shop_fix_login
    owner: shop/fix-login
    user: shop_fix_login
    branch:
      host: db
      source: app
    wait: false
  register: verifier

- name: The branch of the database
  parallel.worktrees.pg_branch:
    name: shop_fix_login
    owner: shop/fix-login
    source: app
    user: shop_fix_login
    password: "{{ verifier.verifier }}"
  delegate_to: db
  become: true
  register: branched

- name: No database, with all of the facts
  parallel.worktrees.pg_database:
    backend: none
    name: shop_fix_login
    owner: shop/fix-login

- name: Remove the server of the task
  parallel.worktrees.pg_database:
    backend: embedded
    name: shop_fix_login
    owner: shop/fix-login
    state: absent

- name: Remove the task's databases from the shared server
  parallel.worktrees.pg_database:
    backend: shared
    name: carlo_oauth_v2_1f3a5c
    owner: carlo/oauth-v2
    user: carlo_oauth_v2_1f3a5c
    port: 5432
    databases:
      - name: carlo_oauth_v2_1f3a5c
      - name: world_oauth_v2_1f3a5c
    shared:
      admin_password_file: /srv/passwords/postgres
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
  description: Each of the task's databases by its O(databases[].key), each as RV(database).
  returned: success and O(state=present), or O(backend=none)
  type: dict
container:
  description: The container.
  returned: success, with O(state=present) and O(backend=container)
  type: dict
  contains:
    name:
      description: Its name.
      type: str
    id:
      description: Its id; V(none) in check mode where it is not there yet.
      type: str
    image:
      description: The image it was asked to run.
      type: str
    port:
      description: The port of this machine on which it is published.
      type: int
    running:
      description: Whether it runs.
      type: bool
cluster:
  description: The cluster.
  returned: success, with O(state=present) and O(backend=embedded)
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
statements:
  description: The SQL that ran, without passwords. In check mode what would run, but for what depends on the template.
  returned: success, with O(backend=shared) where its server answers
  type: list
  elements: str
  sample:
    - create role "carlo_oauth_v2_1f3a5c" login password '********'
left:
  description: Why the role was not dropped, and how an administrator does so. It can no longer log in.
  returned: success, with O(state=absent) and O(backend=shared)
  type: list
  elements: str
  sample:
    - 'role carlo_oauth_v2_1f3a5c at 127.0.0.1:5432 stays, without a login: it has database reports; an administrator
      removes them there: drop owned by "carlo_oauth_v2_1f3a5c"; then the role: drop role "carlo_oauth_v2_1f3a5c"'
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
  description: An image that cannot be prepared, see O(container.prepared), and RV(left).
  returned: success, with O(backend=container) or O(backend=shared)
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
    - V(user) if the request is refused, for example because the database is another owner's, was made with other
      parameters, or has no port.
    - V(environment) if Docker, an image, PostgreSQL or the machine did not do its part, for example because the port is
      taken, the server ended, a template is in use, or too few connections are left. The message then has the last
      lines of the server's log, or says who holds the connections.
    - V(partial) if some of the databases were made and one was not. The same call again makes the rest.
  returned: failure
  type: str
  sample: environment
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
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
