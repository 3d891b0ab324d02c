# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which URLs a pull takes, what it tells of them, and what it refuses before it begins."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import types
import typing as t
import urllib.parse

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils import _pg_pull, _pg_server, _pull_source
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError, WorktreesError

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


def pull(**more: t.Any) -> _pg_pull.Pull:
    checked = ArgumentSpecValidator({"pull": _pg_pull.OPTION}).validate({"pull": {"url_variable": "URL", **more}})
    assert not checked.error_messages
    return _pg_pull.Pull.of(checked.validated_parameters["pull"])


def source(**more: t.Any) -> _pg_pull.Source:
    return _pg_pull.Source(pull(), {}, "db.example/carlo", 15, "pg_dump", **more)


# The URL


@given(TEXTS, TEXTS, TEXTS)
def test_a_url_has_what_was_put_into_it(user, password, database):
    database = database.replace("@", "a")
    parts = [urllib.parse.quote(text, safe="") for text in (user, password, database)]
    assert _pg_pull.parse("postgresql://{}:{}@db.example:5433/{}".format(*parts), "x") == {
        "user": user,
        "password": password,
        "host": "db.example",
        "port": "5433",
        "dbname": database,
    }


def test_a_connection_string_is_as_good():
    assert _pg_pull.parse("host=/run/postgresql dbname=carlo", "x") == {"host": "/run/postgresql", "dbname": "carlo"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:se/cret@db.example/carlo",
        "postgresql://app:12/cret@db.example/carlo",
        "postgresql://app:se@cret@db.example/carlo",
        "postgresql://app:se%cret@db.example/carlo",
        "postgresql://app:secret@db.example/carlo?schema=secret",
        "mysql://app:secret@db.example/carlo",
        "secret",
        "",
    ],
)
def test_what_is_no_url_is_told_without_a_word_of_it(url):
    with pytest.raises(UserError) as caught:
        _pg_pull.parse(url, "the file x")
    assert "what is in the file x is no URL" in caught.value.message
    assert "cret" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (
            'FATAL:  password authentication failed for user "app"',
            'FATAL:  password authentication failed for user "***"',
        ),
        (
            'no entry for host "1.2.3.4", user "app", database "app"',
            'no entry for host "1.2.3.4", user "***", database "app"',
        ),
        ('role "app" does not exist', 'role "***" does not exist'),
        ("got postgres://app:s@c@ret@db.example/x", "got postgres://***@db.example/x"),
        ("PGPASSWORD=abc password = 'a b'", "PGPASSWORD=*** password = ***"),
        ("said s3cret of it, as an app does", "said *** of it, as an app does"),
    ],
)
def test_users_and_passwords_are_hidden(text, hidden):
    told = _pg_pull.hide(text, {"user": "app", "password": "s3cret"})
    assert told.replace("********", "***") == hidden


@pytest.mark.parametrize(
    "line", ["exit 3; echo postgresql://app:s3cret@db/x", "export PGPASSWORD=s3cret; echo nothing"]
)
def test_a_command_is_told_without_what_it_has_in_it(line):
    with pytest.raises(WorktreesError) as refusal:
        dataclasses.replace(pull(), way="url_command", asked=line).look()
    assert "s3cret" not in refusal.value.message
    assert "the command" in refusal.value.message


def test_a_source_does_not_show_its_parameters():
    assert "s3cret" not in repr(_pg_pull.Source(pull(), {"password": "s3cret"}, "db.example/carlo", 15, "pg_dump"))


# What is asked, and told


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"url_file": "/x"}, "mutually exclusive"),
        ({"url_variable": None}, "one of the following is required"),
    ],
)
def test_there_is_exactly_one_way_to_the_url(given, words):
    given = {key: value for key, value in {"url_variable": "URL", **given}.items() if value is not None}
    (message,) = ArgumentSpecValidator({"pull": _pg_pull.OPTION}).validate({"pull": given}).error_messages
    assert words in message


@pytest.mark.parametrize(
    ("count", "size", "told"),
    [
        (1, 0, "pull 1 table, 0 bytes, from db.example/carlo into database x"),
        (12, 110_100_200, "pull 12 tables, 110 MB, from db.example/carlo into database x"),
        (2, 999_999, "pull 2 tables, 1000 kB, from db.example/carlo into database x"),
        (2, 4_200_000_000_000, "pull 2 tables, 4.2 TB, from db.example/carlo into database x"),
    ],
)
def test_sizes_are_told(count, size, told):
    assert source(count=count, size=size).action("x") == told
    sorting = source(count=count, size=size, collation="de_DE.UTF-8").action("x", server(15))
    assert sorting == f"{told}, sorted by C.UTF-8, not by de_DE.UTF-8 as there"


def server(version: int) -> t.Any:
    makeable = {_pg_pull.MAKEABLE: [("pg_trgm",)], _pg_pull.ENCODING: [("UTF8", "C.UTF-8")], _pg_pull.ROLES: [("web",)]}
    return types.SimpleNamespace(
        version=version * 10000,
        major=version,
        where="here:5432",
        rows=makeable.__getitem__,
        check_extensions=lambda names: _pg_server.Server.check_extensions(
            t.cast("t.Any", types.SimpleNamespace(where="here:5432", rows=lambda _sql: [("pg_trgm",), ("postgis",)])),
            names,
        ),
    )


LISTING = """;
; Archive created at 2026-11-29
213; 1259 16390 TABLE app person the_owner
3345; 3466 16700 EVENT TRIGGER - no_drops the_owner
3346; 0 0 COMMENT - EVENT TRIGGER no_drops the_owner
3212; 3256 16401 POLICY app person own_rows the_owner
3213; 0 0 COMMENT app POLICY own_rows ON person the_owner
3214; 0 0 ROW SECURITY app person the_owner
3215; 0 16391 MATERIALIZED VIEW DATA app shown the_owner
3216; 1259 16391 MATERIALIZED VIEW app shown the_owner
"""


def test_kinds_of_objects_are_those_of_a_list():
    assert {*_pull_source.kinds(LISTING)} == {
        *("table", "event trigger", "comment", "policy", "row security"),
        *("materialized view data", "materialized view"),
    }


def test_objects_of_a_kind_are_left_out_with_their_comments():
    kept = _pull_source.without_kinds(LISTING, {"event trigger", "policy", "materialized view"})
    assert [line.split(" ", 3)[3] for line in kept.splitlines() if line[0].isdigit()] == [
        "TABLE app person the_owner",
        "ROW SECURITY app person the_owner",
        "MATERIALIZED VIEW DATA app shown the_owner",
    ]


TRIGGER = {"contents": _pull_source.Contents(listing=LISTING)}
POLICY = {"policies": {"own on person": ["web", "authenticated"]}}
TOLD = [
    (TRIGGER, {}, "has event triggers, which only a superuser can make: no_drops"),
    (TRIGGER, {"exclude_kinds": ["event  TRIGGER"]}, None),
    (POLICY, {}, "name roles that the server at here:5432 does not have: authenticated (policy own on person)"),
    ({"encoding": "SQL_ASCII"}, {}, "has the encoding SQL_ASCII"),
    ({"encoding": "LATIN1"}, {}, None),
]


@pytest.mark.parametrize(("about", "asked", "told"), TOLD)
def test_what_only_an_administrator_could_make_is_refused_at_the_start(about, asked, told):
    pulled = dataclasses.replace(source(**about), pull=pull(**asked))
    refusal = pytest.raises(UserError, match=re.escape(told)) if told else contextlib.nullcontext()
    with refusal:
        pulled.check_fits(server(15), [], as_superuser=False)


@pytest.mark.parametrize(
    ("version", "extensions", "asked", "as_superuser", "told"),
    [
        (15, ["pg_trgm"], [], False, None),
        (18, ["pg_trgm", "postgis"], ["postgis"], False, None),
        (18, ["pg_trgm", "postgis"], [], True, None),
        (14, [], [], True, "db.example/carlo is PostgreSQL 15, and the server at here:5432 is 14"),
        (15, ["cloud"], ["cloud"], True, "the server at here:5432 has no extension cloud"),
        (15, ["pg_trgm", "postgis"], [], False, "extensions that only a superuser can make: postgis"),
    ],
)
def test_what_would_fail_in_the_end_is_refused_at_the_start(version, extensions, asked, as_superuser, told):
    pulled = source(extensions=tuple(extensions))
    if told is None:
        pulled.check_fits(server(version), asked, as_superuser=as_superuser)
        return
    with pytest.raises(UserError) as caught:
        pulled.check_fits(server(version), asked, as_superuser=as_superuser)
    assert told in caught.value.message
