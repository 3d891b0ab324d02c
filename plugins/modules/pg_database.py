#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_database
short_description: Provide the PostgreSQL databases of a task, with any back end
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Makes or removes the PostgreSQL databases of a task, with the back end in O(backend).
  - Most options and all returned facts are the same for each back end. The option with the name of a back end contains
    the options for this back end only.
  - The call waits until the database answers a query at its address with the task's own password, see O(wait).
  - A database, server or container of another owner is neither used nor removed. Only processes that work in the task's
    own data directory are ended.
  - Everything is checked before anything is made. An incomplete database that a killed run left is dropped and made
    again. A complete database keeps its data.
  - If O(password_file) does not exist, the password is generated. Only its SCRAM verifier is sent to the server, and
    the password is in no result, log, label, variable or argument.
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
      - With V(embedded), the task gets its own server, which needs neither Docker nor root. It listens only on a
        loopback address, and continues to run after this call. After a reboot it does not start automatically; the same
        call starts it again with its data. C(initdb) runs once for each version of PostgreSQL and each O(user), and
        each cluster is a copy of its result, with shared blocks if the file system supports it.
      - With V(container), the task gets a server in its own Docker container. The first start of an image is done once,
        and its result is stored as a prepared image named C(parallel-worktrees-prepared), see O(container.prepared).
      - With V(shared), the task gets its own databases and role in a server that all tasks share. Only this role and
        superusers can connect to these databases. Comments on the role and on each database contain O(owner). Calls for
        the same O(user) wait for each other. If the server restarts during the call, the work starts again.
      - With V(branch), the task gets a branch on a DB host. First call this module with O(wait=false), which returns
        RV(verifier). Then make the branch with M(parallel.worktrees.pg_branch). Then call this module again and wait.
      - With V(none), the task has no database, and nothing is done. RV(database) then has all of its keys, each with
        the value V(none).
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
      - Name of the container or cluster, unique on the machine. It has at most 63 letters, digits, C(_), C(.) and C(-),
        and begins with a letter, a digit or C(_).
      - With O(backend=branch), the name of the branch and of the database.
      - With O(backend=shared), the name is only in the record of the task; the name of the role is O(user).
      - With O(backend=container) and O(backend=embedded), C(current_setting('parallel_worktrees.database')) returns it
        in the server.
    type: str
    required: true
  owner:
    description:
      - The owner of the database, such as V(shop/fix-login@9dda1566), from the workspace, the task and the registry.
      - It is stored in a label of the container, in C(cluster.json) next to the data of a cluster, and in comments on
        the databases and the role.
      - A database of this name with another owner, or without an owner, is refused.
    type: str
    required: true
  state:
    description:
      - With V(present), the database exists and its server runs. A server that was stopped or has crashed is started
        with its data. A cluster whose O(address), O(port) or O(settings) have changed is restarted. A container that
        was made with other parameters is refused, because its data would be lost.
      - With V(absent), the server, its data and its O(password_file) are removed. Resources that tasks share, such as
        an image, are kept. With O(backend=shared), the databases are dropped with their sessions and prepared
        transactions, and then the role, unless it owns other objects, see RV(left). A template database and a database
        that is replicated are refused.
    type: str
    choices:
      - present
      - absent
    default: present
  wait:
    description:
      - Whether to wait until the database answers.
      - With V(false), the server is only started. The database cannot be used before a call with V(true), which sets
        the password.
    type: bool
    default: true
  timeout:
    description:
      - Number of seconds to wait until the server starts and answers.
      - With O(backend=shared), also the number of seconds to wait for another call for the same O(user), and for the
        end of sessions. Copies and restores may take longer.
    type: float
    default: 120
  address:
    description:
      - The address at which clients on this machine reach the database. With O(backend=embedded), it is a loopback
        address or V(localhost). With O(backend=shared), it is the address of the server or the folder of its socket.
        With O(backend=branch), it is the address of the DB host.
    type: str
    default: 127.0.0.1
  port:
    description:
      - The port of the database.
      - Required with O(state=present), unless O(backend=none) or O(backend=branch).
    type: int
  ports:
    description:
      - The ports of the task, by name. If O(port) is missing, the message lists them.
    type: dict
    default: {}
  user:
    description:
      - Name of the superuser, which cannot be changed later. With O(backend=shared), the name of the task's own role,
        which owns its databases. A name of more than 63 bytes is shortened like the name of a database.
    type: str
    default: postgres
  database:
    description:
      - Name of the database. It defaults to O(user).
    type: str
  databases:
    description:
      - The databases, in the order in which they are made. Without this option, there is a single database with the
        name O(database).
      - With O(backend=container) and O(backend=embedded), the server then also has its own database, which is named
        O(user).
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description:
          - Key of the database in RV(databases). It defaults to O(databases[].name).
        type: str
      name:
        description:
          - Name of the database. A name of more than 63 bytes is shortened, and ends with a hash of the whole name.
        type: str
        required: true
      template:
        description:
          - The template database to copy. It must have no other sessions during the copy. A name of more than 63 bytes
            is shortened like the name of a database.
          - O(user) becomes the owner of schemas, tables, functions, types and similar objects in the copy, except
            members of extensions and objects of C(pg_database_owner). If all objects in the template belong to
            C(pg_database_owner), which always means the owner of the present database, no owner has to be changed, and
            large schemas are copied faster.
          - Without it, the database is a copy of C(template1).
        type: str
      dump:
        description:
          - A dump by C(pg_dump), in any of its formats. O(user) restores it, without owners and privileges.
          - C(pg_restore), or C(psql) for SQL text, must be installed on this machine and not be older than the server.
            SQL text must be the output of C(pg_dump --no-owner --no-privileges).
          - The dump is not restored again into a complete database.
        type: path
      extensions:
        description:
          - Extensions of the database. They are created in the schema C(public) before O(databases[].dump) is restored.
          - O(user) creates trusted extensions, and O(shared.admin_user) creates all others. The latter are refused if
            O(user) already has functions in the database, because the script of an extension might call them.
        type: list
        elements: str
        default: []
      connection_limit:
        description:
          - Maximum number of connections to the database. Without it, there is no limit.
        type: int
      golden:
        description:
          - The golden database that the database is copied from. It is built once.
          - It is identified by a hash of the content of all of its inputs, so a changed migration makes a new golden
            database. Existing databases of tasks are not changed.
          - With O(backend=shared), it is a template database in the server. With O(backend=container), it is in the
            prepared image. With O(backend=embedded), it is in a folder, which is copied with shared blocks if the file
            system supports it.
          - During the build, no other role is connected to it.
        type: dict
        suboptions:
          folder:
            description:
              - The folder that the following paths and patterns are relative to, and in which the commands run.
            type: path
            required: true
          dump:
            description:
              - A dump by C(pg_dump). It is restored first.
            type: path
          pull:
            description:
              - The database of another server to copy instead of a dump, as in O(databases[].pull).
              - The content of that database is not part of the hash, so it is pulled again only when another input has
                changed.
            type: dict
            suboptions:
              url_variable:
                description:
                  - See O(databases[].pull.url_variable).
                type: str
              url_file:
                description:
                  - See O(databases[].pull.url_file).
                type: path
              url_command:
                description:
                  - See O(databases[].pull.url_command).
                type: str
              tables:
                description:
                  - See O(databases[].pull.tables).
                type: list
                elements: str
                default: []
              exclude_tables:
                description:
                  - See O(databases[].pull.exclude_tables).
                type: list
                elements: str
                default: []
              exclude_data:
                description:
                  - See O(databases[].pull.exclude_data).
                type: list
                elements: str
                default: []
              mask:
                description:
                  - See O(databases[].pull.mask).
                type: path
              mask_verify:
                description:
                  - See O(databases[].pull.mask_verify).
                type: str
              exclude_kinds:
                description:
                  - See O(databases[].pull.exclude_kinds).
                type: list
                elements: str
              jobs:
                description:
                  - See O(databases[].pull.jobs).
                type: int
                default: 4
          files:
            description:
              - Patterns of files with SQL text, such as V(migrations/*.sql). C(psql) runs them next in
                O(databases[].golden.folder), sorted by name within a pattern. Files that they include with C(\i),
                C(\ir) and C(\copy) are part of the hash.
            type: list
            elements: str
            default: []
          transaction:
            description:
              - Whether each of O(databases[].golden.files) runs in one transaction. Statements that cannot run in a
                transaction, such as C(create index concurrently), need V(false).
            type: bool
            default: true
          commands:
            description:
              - Shell command lines, which run last, with the variables E(DATABASE_URL), E(PGHOST), E(PGPORT),
                E(PGUSER), E(PGPASSWORD) and E(PGDATABASE) of the golden database.
            type: list
            elements: str
            default: []
          inputs:
            description:
              - Patterns of the files that the commands read. A change of a file that is not listed here does not make a
                new golden database.
            type: list
            elements: str
            default: []
      strategy:
        description:
          - How the template is copied. With V(wal_log), through the write-ahead log, which is suitable for small
            templates. With V(file_copy), file by file between two checkpoints, from PostgreSQL 18 on with shared blocks
            if the file system supports it.
          - V(auto) means V(file_copy) for templates of 64 MB or more (32 MB or more with PostgreSQL 18), and on servers
            with V(fsync=off).
          - PostgreSQL 14 and older versions support only V(file_copy).
        type: str
        choices:
          - auto
          - wal_log
          - file_copy
        default: auto
      pull:
        description:
          - The database of another server to copy, such as the production database. C(pg_dump) reads it over several
            connections, and the copy is restored like O(databases[].dump).
          - The copy is built under another name, with a temporary role, and gets its final name after
            O(databases[].pull.mask) has run. Until then, O(user) cannot connect to it. If a pull fails, the existing
            database is not changed.
          - A database that is not empty is never pulled again, unless O(pull_again=true), so local data are kept. An
            empty database is pulled, even if it was made without this option.
          - The source, the version of C(pg_dump), the extensions and the tables are checked before anything is made,
            also in check mode. The PostgreSQL of the source must not be newer than the server.
          - If the module runs on the controller itself, it prints the progress on standard error every five seconds.
          - The module reports the host and the database of the source. The rest of its URL is in no result, argument or
            log.
          - Mutually exclusive with O(databases[].template) and O(databases[].dump).
          - Mutually exclusive with O(databases[].golden).
        type: dict
        suboptions:
          url_variable:
            description:
              - The environment variable that contains the URL.
              - Exactly one of O(databases[].pull.url_variable), O(databases[].pull.url_file) and
                O(databases[].pull.url_command) is required. The URL is a C(postgresql://) URL or a connection string,
                as C(psql) takes it.
            type: str
          url_file:
            description:
              - The file that contains the URL.
            type: path
          url_command:
            description:
              - A shell command line that prints the URL. It also runs in check mode.
            type: str
          tables:
            description:
              - Pull only these tables, as patterns of C(pg_dump --table), and the tables that inherit from them, such
                as partitions.
              - Each pattern must match a table. A name without a schema, such as V(log), is searched for in the search
                path of the URL's user. V(app.log) is a table in the schema C(app), and V(*.log) matches in any schema.
                The same applies to O(databases[].pull.exclude_tables) and O(databases[].pull.exclude_data).
              - The schemas of the tables are created. Other objects that the tables need, such as types and extensions,
                are not pulled.
            type: list
            elements: str
            default: []
          exclude_tables:
            description:
              - Do not pull these tables, as patterns of C(pg_dump --exclude-table), and the tables that inherit from
                them.
              - Each pattern must match a table that would be pulled.
            type: list
            elements: str
            default: []
          exclude_data:
            description:
              - Pull these tables without rows, as patterns of C(pg_dump --exclude-table-data), and the tables that
                inherit from them.
              - Each pattern must match a table that is pulled.
            type: list
            elements: str
            default: []
          mask:
            description:
              - An SQL file that C(psql) runs in one transaction before any user can connect, to make personal data
                unreadable. C(psql) runs in the folder of the file.
              - After that, materialized views that have rows are refreshed, sequences are set according to the rows
                that they number, and the planner statistics are collected again. If the task is a superuser of the
                server, the tables and the write-ahead log (WAL) are rewritten too.
              - The error of a failed mask contains no row, neither in the result nor, for a superuser, in the server
                log.
            type: path
          mask_verify:
            description:
              - A query, as SQL text, that must return no row after O(databases[].pull.mask). If it returns rows, the
                pulled data are dropped and the pull is refused, with the number of rows.
            type: str
          exclude_kinds:
            description:
              - Kinds of objects that are not pulled, named as in C(pg_restore --list), such as V(policy), V(trigger) or
                V(event trigger), and V(large object). The source must have at least one object of each kind.
              - With O(databases[].pull.mask), it defaults to V(comment), V(large object) and V(user mapping), since a
                mask of tables does not cover them. With an empty list, they are pulled too.
            type: list
            elements: str
          jobs:
            description:
              - Number of connections that read the source at the same time, in addition to one connection that
                coordinates them.
            type: int
            default: 4
  pull_again:
    description:
      - Whether to pull each database with O(databases[].pull) again. When the new database is complete, the existing
        database is removed with its sessions.
    type: bool
    default: false
  password_file:
    description:
      - The file that contains the password of O(user), with mode 0600. If the file was lost or changed, the server gets
        the new password.
      - It defaults to C(parallel-worktrees/secrets/OWNER/database) in E(XDG_STATE_HOME), or in C(~/.local/state) if
        that variable is not set. C(OWNER) stands for O(owner).
    type: path
  settings:
    description:
      - Settings of the server, in addition to V(fsync=off), V(synchronous_commit=off) and V(full_page_writes=off), and
        with O(backend=embedded) also to V(wal_level=minimal), V(max_wal_senders=0) and V(shared_buffers=32MB). These
        defaults are suitable for a database that can be lost in a crash of the machine. A container with
        O(container.volume) does not get these defaults.
      - With O(backend=container), all users who can list processes can read the settings.
      - With O(backend=shared), the settings of the server in O(shared.container), without these defaults.
    type: dict
    default: {}
  branch:
    description:
      - Options for O(backend=branch).
    type: dict
    suboptions:
      host:
        description:
          - The DB host, by its name in the inventory.
          - Required with O(backend=branch) and O(state=present).
        type: str
      source:
        description:
          - See O(parallel.worktrees.pg_branch#module:source).
        type: str
      parent:
        description:
          - See O(parallel.worktrees.pg_branch#module:parent).
        type: str
      expires:
        description:
          - See O(parallel.worktrees.pg_branch#module:expires).
        type: str
      protected:
        description:
          - See O(parallel.worktrees.pg_branch#module:protected).
        type: bool
        default: false
      unreachable:
        description:
          - If Ansible could not reach the DB host, the reason.
        type: str
  container:
    description:
      - Options for O(backend=container).
    type: dict
    suboptions:
      image:
        description:
          - The image to run. It must support the variables of the official C(postgres) image.
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
          - Memory limit of the container, such as V(512m). Without it, there is no limit.
        type: str
      shm_size:
        description:
          - Size of the container's shared memory.
        type: str
        default: 256m
      prepared:
        description:
          - Whether to start from a prepared image.
          - An image that does not support another C(PGDATA) is started unprepared, with a warning. Then each container
            does the first start of the image itself, which takes some seconds more.
          - Set V(false) if the first start must take place in each container.
        type: bool
        default: true
      volume:
        description:
          - Name of a Docker volume for the data, which are then kept after the removal of the container. The volume is
            created if it does not exist.
          - Data that are kept must survive a crash. Therefore the defaults of O(settings) that reduce durability are
            not set, and no prepared image is used.
        type: str
      environment:
        description:
          - Variables for the image's first start, such as C(POSTGRES_INITDB_ARGS).
          - All users who can use Docker can read them.
        type: dict
        default: {}
      docker_host:
        description:
          - URL of the Docker daemon, which must run on the machine of this task. It defaults to the environment
            variable E(DOCKER_HOST), or to Docker's default socket.
        type: str
  embedded:
    description:
      - Options for O(backend=embedded).
    type: dict
    suboptions:
      directory:
        description:
          - The folder of the clusters. It must be on a local file system.
          - It defaults to C(parallel-worktrees/clusters) in E(XDG_STATE_HOME), or in C(~/.local/state) if that variable
            is not set. For root it defaults to C(/var/lib/parallel-worktrees/clusters), which O(embedded.system_user)
            can access.
        type: path
      bin_directory:
        description:
          - The folder that contains C(postgres), C(initdb) and C(pg_controldata).
          - For an existing cluster, it defaults to the programs that the cluster already uses, or to others of the same
            major version. For a new cluster, it defaults to the output of C(pg_config --bindir), then to the newest of
            C(/usr/lib/postgresql/*/bin) and C(/usr/pgsql-*/bin), then to the folder of C(postgres) on the E(PATH).
          - A cluster of another major version is refused.
        type: path
      system_user:
        description:
          - The system user who runs the server and owns the data. Used only by root, because PostgreSQL refuses to run
            as root. The user must exist.
        type: str
        default: postgres
  shared:
    description:
      - Options for O(backend=shared).
    type: dict
    suboptions:
      admin_user:
        description:
          - The role that creates the databases. It is a superuser, or a role with C(CREATEDB) and C(CREATEROLE), which
            cannot create extensions that need a superuser.
        type: str
        default: postgres
      admin_password_file:
        description:
          - The file that contains the password of O(shared.admin_user). Without it, the server must accept that user
            without a password, or C(~/.pgpass) must contain the password.
          - With O(shared.container), the file is created if it does not exist. It then defaults to
            C(parallel-worktrees/servers/NAME) in E(XDG_STATE_HOME), or in C(~/.local/state) if that variable is not
            set.
        type: path
      maintenance_database:
        description:
          - The database that O(shared.admin_user) connects to.
        type: str
        default: postgres
      protected:
        description:
          - Databases that no task can use or drop, such as the main database of the project.
            O(shared.maintenance_database), C(postgres), C(template0) and C(template1) are always protected.
        type: list
        elements: str
        default: []
      container:
        description:
          - The container of the server. The first task starts it if it does not run. It is kept when tasks are torn
            down.
        type: dict
        suboptions:
          name:
            description:
              - Name of the container, unique on the machine.
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
              - Name of the Docker volume for its data. Required with O(state=present).
            type: str
          memory:
            description:
              - Memory limit of the container, such as V(2g).
            type: str
          shm_size:
            description:
              - Size of the container's shared memory.
            type: str
            default: 256m
          environment:
            description:
              - Variables for the image's first start. All users who can use Docker can read them.
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
- name: Start the task's own server, without Docker and root
  parallel.worktrees.pg_database:
    backend: embedded
    name: shop_fix_login
    owner: shop/fix-login
    port: 15433
    database: shop
    settings:
      shared_buffers: 256MB
      max_connections: 200

- name: Start the task's own server in a container
  parallel.worktrees.pg_database:
    backend: container
    name: shop_fix_login
    owner: shop/fix-login
    port: 15433
    database: shop
    container:
      image: postgres:17
      memory: 512m

- name: Start the server, and wait for it in a later call
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

- name: Make two databases in a shared server, the first as a copy of a template
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

- name: Restore a dump in a shared server that the first task starts
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

- name: Pull a database from production, without large tables and personal data
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

- name: Get the verifier for a branch on a DB host
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

- name: Make the branch
  parallel.worktrees.pg_branch:
    name: shop_fix_login
    owner: shop/fix-login
    source: app
    user: shop_fix_login
    password: "{{ verifier.verifier }}"
  delegate_to: db
  become: true
  register: branched

- name: Return the facts of a task without a database
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
  description: The connection parameters of the database, with a placeholder instead of the password.
  returned: success, with O(state=present), or O(backend=none)
  type: dict
  contains:
    backend:
      description: The back end.
      type: str
      sample: embedded
    container:
      description: Name of the container.
      returned: with O(backend=container)
      type: str
      sample: shop_fix_login
    cluster:
      description: Name of the cluster.
      returned: with O(backend=embedded)
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
      description: The placeholder of the password in values for other modules of this collection.
      type: str
      sample: PARALLEL_WORKTREES_DATABASE_PASSWORD
    password_file:
      description: The file that contains the password.
      type: str
      sample: /home/alice/.local/state/parallel-worktrees/secrets/shop/fix-login/database
    url:
      description: The connection parameters as a URL.
      type: str
      sample: postgresql://postgres:PARALLEL_WORKTREES_DATABASE_PASSWORD@127.0.0.1:15433/shop
databases:
  description: The task's databases by O(databases[].key), each with the same keys as RV(database).
  returned: success, with O(state=present), or O(backend=none)
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
      description: ID of the container; V(none) in check mode if the container does not exist.
      type: str
    image:
      description: The image of the container, as given.
      type: str
    port:
      description: The port of this machine on which the server is published.
      type: int
    running:
      description: Whether the container runs.
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
      description: The folder of the cluster, with C(data), C(server.log), C(server.conf) and C(cluster.json).
      type: str
    port:
      description: The port that its server listens on.
      type: int
    running:
      description: Whether its server runs.
      type: bool
    version:
      description: The version of its PostgreSQL.
      type: str
      sample: "15.18"
    socket_directory:
      description: The folder of its socket, where the system user of the server can connect without a password.
      type: str
statements:
  description:
    - The SQL statements that ran, without passwords. In check mode, the statements that would run, except those that
      depend on the template.
  returned: success, with O(backend=shared), if the server answers
  type: list
  elements: str
  sample:
    - create role "carlo_oauth_v2_1f3a5c" login password '********'
left:
  description:
    - The reason why the role was not dropped, and the statements with which an administrator drops it. The role can no
      longer log in.
  returned: success, with O(state=absent) and O(backend=shared)
  type: list
  elements: str
  sample:
    - 'role carlo_oauth_v2_1f3a5c at 127.0.0.1:5432 stays, without a login: it has database reports; an administrator
      removes them there: drop owned by "carlo_oauth_v2_1f3a5c"; then the role: drop role "carlo_oauth_v2_1f3a5c"'
verifier:
  description:
    - The SCRAM verifier of the password, the same each time, for O(parallel.worktrees.pg_branch#module:password). It
      does not allow a login.
  returned: success, with O(state=present) and O(backend=branch), but not in check mode
  type: str
written:
  description:
    - The databases of the task that were changed since they were made, not counting their initial content. Databases
      for which this cannot be determined, for example because the server is stopped, are listed too. Changes during the
      check may be missing.
    - With O(backend=container) and O(backend=embedded), other databases of the same server are listed too.
  returned: success, with O(state=absent)
  type: list
  elements: dict
  contains:
    database:
      description: Name of the database.
      type: str
      sample: shop
    rows:
      description: Number of rows that were inserted, updated or deleted, including transactions that were rolled back.
      type: int
      sample: 12
    tables:
      description:
        - The changed tables, the tables with the most changed rows first. Tables in the schema C(public) are named
          without the schema.
      type: list
      elements: str
      sample: [orders, audit.log]
    definitions:
      description: Whether tables, functions or similar objects were created, altered or dropped.
      type: bool
      sample: true
    unknown:
      description: The reason why the changes cannot be determined; V(none) if they can.
      type: str
      sample: null
warnings:
  description: A warning about an image that cannot be prepared, see O(container.prepared), and the lines of RV(left).
  returned: success, with O(backend=container) or O(backend=shared)
  type: list
  elements: str
plan:
  description:
    - The parameters that identify the database, for C(database) in the option
      O(parallel.worktrees.task_record#module:plan). Empty with O(backend=none).
  returned: success
  type: dict
  contains:
    backend:
      description: The back end.
      type: str
      sample: embedded
    name:
      description:
        - Name of the container or cluster. The plan also contains O(address), O(port), O(user) and similar options.
      type: str
      sample: shop_fix_login
    branch:
      description: The option O(branch), with its defaults.
      returned: with O(backend=branch)
      type: dict
    container:
      description: The option O(container), with its defaults.
      returned: with O(backend=container)
      type: dict
    embedded:
      description: The option O(embedded), with its defaults.
      returned: with O(backend=embedded)
      type: dict
    shared:
      description: The option O(shared), with its defaults.
      returned: with O(backend=shared)
      type: dict
failure:
  description:
    - V(user) if the request is refused, for example because the database belongs to another owner, was made with other
      parameters, or has no port.
    - V(environment) if an operation of Docker, an image, PostgreSQL or the machine fails, for example because the port
      is in use, the server ended, a template is in use, or too few connections are left. The message then contains the
      last lines of the server log, or names the sessions that hold the connections.
    - V(partial) if some of the databases were made and another failed. A second run of the same call makes the rest.
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
