#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_database
short_description: Give a task databases of its own in a PostgreSQL server that others use as well
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Makes one or several databases, empty, as copies of a template, from a dump, or pulled from another server, and the
    role that owns them. Nobody but this role and superusers can connect to them.
  - Comments on the role and on each database say whose they are. What another owner, or no task at all, has made is
    neither used nor dropped.
  - Everything is looked at before anything is made. A database that a killed run left half made is dropped and made
    anew; one that is complete keeps its data.
  - The password is generated where O(password_file) does not exist. It is sent to the server as a SCRAM verifier only,
    and appears in no result, log or argument.
  - Runs for the same O(role) wait for each other. Where the server restarts meanwhile, the work is begun once more.
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
  databases:
    description:
      - The databases, in the order in which they are made.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the database. One of more than 63 bytes keeps its start and gets a hash of the whole.
        type: str
        required: true
      template:
        description:
          - The database that it is a copy of. Nobody may be connected to that one. A name of more than 63 bytes is
            shortened as that of a database.
          - Schemas, tables, functions, types and the like that others own in the copy are given to O(role), but for
            members of extensions and for what belongs to C(pg_database_owner). Where all belongs to that role, which
            means the owner of each copy, nothing has to change hands and large schemas are copied faster.
          - Without it, the database is a copy of C(template1).
        type: str
      dump:
        description:
          - What C(pg_dump) has written, in any of its formats. It is restored by O(role), without owners and rights.
          - C(pg_restore), or C(psql) for SQL text, has to be on this machine and not older than the server. SQL text
            has to come from C(pg_dump --no-owner --no-privileges).
          - A database that is complete is never restored again.
        type: path
      extensions:
        description:
          - Extensions that the database has, made in the schema C(public) before the O(databases[].dump) is restored.
          - Those that PostgreSQL calls trusted are made by O(role), all others by O(admin_user). The latter are refused
            where O(role) has functions in the database already, for the script of an extension might call them.
        type: list
        elements: str
        default: []
      connection_limit:
        description:
          - How many connections it takes. Without it there is no limit.
        type: int
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
            O(databases[].pull.mask) has run. Until then O(role) cannot connect to it. A pull that breaks leaves what
            was there.
          - A database in which anybody has made anything is never pulled again, unless O(pull_again) says so. So local
            data stay. One that is empty is pulled, also where it was made without this.
          - The source, the version of C(pg_dump), the extensions and the tables are looked at before anything is made,
            in check mode, too. The source's PostgreSQL may not be newer than the server.
          - How far it is, is told on standard error every five seconds, where this runs on the controller itself.
          - Host and database of the source are told, the rest of its URL is not, and is in no argument or log.
          - It goes with neither O(databases[].template) nor O(databases[].dump).
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
              - Tables that stay empty, as patterns of C(pg_dump --exclude-table-data), and the tables that inherit
                from them.
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
  owner:
    description:
      - To whom the databases belong, kept in their comments.
    type: str
    required: true
  role:
    description:
      - The task's own role, which owns its databases. One of more than 63 bytes is shortened as the databases are.
    type: str
    required: true
  password_file:
    description:
      - The file that keeps the password of O(role), of mode 0600. When it was lost or changed, the server is given the
        new one.
      - Required with O(state=present).
    type: path
  state:
    description:
      - With V(present), the databases are there and let the role in.
      - With V(absent), they are dropped with the sessions and prepared transactions in them. Then the role, unless it
        owns more, and O(password_file) are removed. A template and a database that is replicated are refused.
    type: str
    choices:
      - present
      - absent
    default: present
  protected:
    description:
      - Databases that no task can have or drop, such as the one that its workspace works on without tasks. The
        O(maintenance_database), C(postgres), C(template0) and C(template1) are protected always.
    type: list
    elements: str
    default: []
  host:
    description:
      - Where the server listens, or the folder of its socket. The task is told the same.
    type: str
    default: 127.0.0.1
  port:
    description:
      - The port that it listens on.
    type: int
    default: 5432
  admin_user:
    description:
      - Who makes the databases. A superuser, or a role with C(CREATEDB) and C(CREATEROLE), which can do without
        extensions that need a superuser.
    type: str
    default: postgres
  admin_password_file:
    description:
      - The file that has his password. Without it, the server has to let him in without one, or C(~/.pgpass) has it.
    type: path
  maintenance_database:
    description:
      - The database that he connects to.
    type: str
    default: postgres
  timeout:
    description:
      - How many seconds to wait for a server that is about to start, for another run on the same O(role), and for
        sessions that are to end. Copies and restores may take longer.
    type: float
    default: 60
requirements:
  - PostgreSQL 12 or newer
  - psycopg2 (Python)
  - Linux
seealso:
  - module: parallel.worktrees.pg_cluster
  - module: parallel.worktrees.pg_container
"""

EXAMPLES = r"""
- name: Give the task two databases
  parallel.worktrees.pg_database:
    databases:
      - name: carlo_oauth_v2_1f3a5c
        template: carlo_golden
      - name: world_oauth_v2_1f3a5c
        extensions: [postgis]
        connection_limit: 20
    owner: carlo/oauth-v2
    role: carlo_oauth_v2_1f3a5c
    password_file: "{{ ansible_facts.env.HOME }}/.local/state/parallel-worktrees/secrets/carlo/oauth-v2/database"
    admin_password_file: /srv/passwords/postgres
    protected: [carlo, world]

- name: From a dump, in a server that is reached by its socket
  parallel.worktrees.pg_database:
    databases:
      - name: carlo_oauth_v2_1f3a5c
        dump: /srv/dumps/carlo.dump
    owner: carlo/oauth-v2
    role: carlo_oauth_v2_1f3a5c
    password_file: /srv/passwords/oauth-v2
    host: /var/run/postgresql

- name: From production, without what is large or personal
  parallel.worktrees.pg_database:
    databases:
      - name: carlo_oauth_v2_1f3a5c
        pull:
          url_command: pass show carlo/production-url
          exclude_data: [audit_log, "events_*"]
          mask: /srv/carlo/db/mask.sql
    owner: carlo/oauth-v2
    role: carlo_oauth_v2_1f3a5c
    password_file: /srv/passwords/oauth-v2
    admin_password_file: /srv/passwords/postgres

- name: Take them back
  parallel.worktrees.pg_database:
    databases:
      - name: carlo_oauth_v2_1f3a5c
      - name: world_oauth_v2_1f3a5c
    owner: carlo/oauth-v2
    role: carlo_oauth_v2_1f3a5c
    password_file: /srv/passwords/oauth-v2
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
    - create role carlo_oauth_v2_1f3a5c
    - create database carlo_oauth_v2_1f3a5c as a copy of carlo_golden
statements:
  description: The SQL that ran, without passwords. In check mode what would run, but for what depends on the template.
  returned: success
  type: list
  elements: str
  sample:
    - create role "carlo_oauth_v2_1f3a5c" login password '********'
database:
  description: How to reach the first of the databases, with a placeholder in the place of the password.
  returned: success and O(state=present)
  type: dict
  contains:
    backend:
      description: Always V(shared).
      type: str
    host:
      description: Address of the server, or the folder of its socket.
      type: str
    port:
      description: Port of the server.
      type: int
    user:
      description: Name of the role.
      type: str
    name:
      description: Name of the database, as it fitted.
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
databases:
  description: The same of each database, by the name that it was asked for with.
  returned: success and O(state=present)
  type: dict
left:
  description: Why the role was not dropped, and how an administrator does so. It can no longer log in.
  returned: success and O(state=absent)
  type: list
  elements: str
  sample:
    - 'role carlo_oauth_v2_1f3a5c at 127.0.0.1:5432 stays, without a login: it has database reports; an administrator
      removes them there: drop owned by "carlo_oauth_v2_1f3a5c"; then the role: drop role "carlo_oauth_v2_1f3a5c"'
failure:
  description:
    - V(user) if what was asked cannot be done as asked, for example because a database is another owner's.
    - V(environment) if a machine did not do its part, for example because the server is down, a template is in use, or
      too few connections are left; the message then says who holds them.
    - V(partial) if some of the databases were made and one was not. The same call again makes the rest.
  returned: failure
  type: str
  sample: environment
hint:
  description: The command or change that helps.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._pg_databases import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
