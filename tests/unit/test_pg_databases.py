# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task may ask for, whose a database is, and which way and which program are taken for it."""

from __future__ import annotations

import json
import types
import typing as t

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _pg_databases,
    _pg_dumps,
    _pg_programs,
    _pg_server,
    _postgres,
)
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import EnvironmentFailure, UserError

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
LONG = 64


def asked(*names: str, **more: t.Any) -> _pg_databases.Task:
    given = {"databases": [{"name": name} for name in names], "owner": "w/t", "role": "task", "password_file": "/p"}
    checked = ArgumentSpecValidator(_pg_databases.ARGUMENT_SPEC).validate({**given, **more})
    assert not checked.error_messages
    return _pg_databases.Task.of(checked.validated_parameters)


# Names


@given(NAMES)
def test_every_name_fits_and_keeps_its_start(name):
    fitted = _postgres.fit_name(name)
    assert len(fitted.encode()) <= 63
    assert fitted[:10] == name[:10]
    assert _postgres.fit_name(fitted) == fitted
    assert (fitted == name) == (len(name.encode()) <= 63)


@given(NAMES, NAMES, NAMES)
def test_names_that_differ_anywhere_stay_different(start, one, other):
    one, other = (start * LONG + end for end in (one, other))
    assert (_postgres.fit_name(one) == _postgres.fit_name(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "fitted"),
    [
        ("x" * 63, "x" * 63),
        ("x" * 64, "x" * 54 + "_bb2fa3ee"),
        ("a" + "ñ" * 32, "a" + "ñ" * 26 + "_56a09519"),
        ('"; drop database postgres; --', '"; drop database postgres; --'),
    ],
)
def test_names_are_the_same_tomorrow(name, fitted):
    """Another hash would lose every database that has a long name."""
    assert _postgres.fit_name(name) == fitted


@given(st.lists(NAMES, min_size=1, unique=True))
def test_each_database_is_told_by_the_name_it_was_asked_for_with(names):
    names = [name for name in names if _postgres.fit_name(name) not in _pg_databases.PROTECTED]
    if names:
        task = asked(*names)
        assert [wish.asked for wish in task.wishes] == names
        assert task.names == [_postgres.fit_name(name) for name in names]


@pytest.mark.parametrize(
    ("names", "more", "words"),
    [
        (["a", "b", "a"], {}, "database a is named twice"),
        (["x" * 64, _postgres.fit_name("x" * 64)], {}, "is named twice"),
        ([""], {}, "the database '' is not a PostgreSQL name"),
        (["a\0b"], {}, r"the database 'a\x00b' is not a PostgreSQL name"),
        (["a"], {"role": ""}, "the role '' is not a PostgreSQL name"),
        (["postgres"], {}, "database postgres is protected"),
        (["admin"], {"maintenance_database": "admin"}, "database admin is protected"),
        (["m" * 70], {"protected": ["m" * 70]}, "is protected"),
        ([], {}, "state=present needs databases and password_file"),
        (["a"], {"password_file": None}, "state=present needs databases and password_file"),
        (["a"], {"databases": [{"name": "a", "connection_limit": 0}]}, "has to be 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(names, more, words):
    with pytest.raises(UserError) as refusal:
        asked(*names, **more)
    assert words in refusal.value.message


def test_names_are_told_apart_by_case_and_templates_are_shortened_as_databases_are():
    (wish,) = asked("Postgres", databases=[{"name": "Postgres", "template": "g" * 70}]).wishes
    assert (wish.name, wish.template) == ("Postgres", _postgres.fit_name("g" * 70))


# Whose they are


def found(role_comment: str | None, limit: int = -1) -> _pg_databases.Found:
    return _pg_databases.Found.of((1, "db", "role", role_comment, True, limit, None, False))


MINE = '{"owner": "w/t"}'
MAKING = '{"owner": "w/t", "creating": ["other", "db"]}'


@pytest.mark.parametrize(
    ("role_comment", "limit", "owner", "ready"),
    [
        (MINE, -1, "w/t", True),
        (MAKING, -1, "w/t", False),
        (MINE, -2, "w/t", False),
        ('{"owner": "w/t", "creating": ["other"]}', -1, "w/t", True),
        (None, -1, None, True),
        ("for reports", -1, None, True),
        ('["owner"]', -1, None, True),
        ("", -1, None, True),
    ],
)
def test_what_the_role_says_counts(role_comment, limit, owner, ready):
    one = found(role_comment, limit)
    assert (one.owner, one.ready) == (owner, ready)


@given(st.text(), st.lists(NAMES))
def test_a_mark_is_read_as_it_was_written(owner, creating):
    mark = asked("a", owner=owner).mark(creating)
    assert _pg_databases._read_mark(mark) == {"owner": owner} | ({"creating": creating} if creating else {})


@given(st.none() | st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_comment_of_a_person_is_a_mark(comment):
    assert found(comment).owner is None


# Ways and programs


@pytest.mark.parametrize(
    ("version", "asked", "fsync", "size", "strategy"),
    [
        (140000, "auto", "on", 1 << 30, ""),
        (140000, "file_copy", "on", 1 << 30, ""),
        (150000, "auto", "on", 63 << 20, "wal_log"),
        (150000, "auto", "on", 64 << 20, "file_copy"),
        (150000, "auto", "off", 1 << 20, "file_copy"),
        (150000, "wal_log", "off", 1 << 30, "wal_log"),
        (180000, "auto", "on", 31 << 20, "wal_log"),
        (180000, "auto", "on", 32 << 20, "file_copy"),
        (180000, "auto", "on", None, "wal_log"),
    ],
)
def test_the_way_of_copying_follows_from_size_and_server(version, asked, fsync, size, strategy):
    answers = {"show fsync": [(fsync,)]}
    server: t.Any = types.SimpleNamespace(
        version=version, where="here", rows=answers.__getitem__, size=lambda _database: size
    )
    assert _pg_server.Server.strategy(server, asked, None if size is None else "golden") == strategy


def test_a_way_that_the_server_does_not_know_is_told():
    server: t.Any = types.SimpleNamespace(version=140000, where="here:5432")
    with pytest.raises(UserError, match="here:5432 is older than the strategy wal_log"):
        _pg_server.Server.strategy(server, "wal_log", "golden")


@pytest.mark.parametrize(("major", "taken"), [(12, "14"), (14, "14"), (15, "15"), (16, "18"), (18, "18")])
def test_the_nearest_client_that_is_not_older_is_taken(clients, major, taken):
    assert _pg_programs.client("pg_restore", major) == str(clients / taken)


def test_a_client_that_is_too_old_is_told(clients):
    with pytest.raises(EnvironmentFailure) as failure:
        _pg_programs.client("pg_restore", 19)
    assert str(clients) not in failure.value.message
    assert failure.value.message == "pg_restore 18 is older than the server, PostgreSQL 19"
    assert failure.value.hint == "apt install postgresql-client-19"


@pytest.fixture
def clients(tmp_path, monkeypatch):
    for version in ("14", "15", "18"):
        program = tmp_path / version
        program.write_text(f"#!/bin/sh\necho 'pg_restore (PostgreSQL) {version}.3 (Debian)'\n", encoding="ascii")
        program.chmod(0o755)
    monkeypatch.setattr(
        _pg_programs.glob, "glob", lambda pattern: [*map(str, tmp_path.glob("1*"))] * ("usr/lib" in pattern)
    )
    monkeypatch.setattr(_pg_programs.shutil, "which", lambda _name: None)
    return tmp_path


@pytest.mark.parametrize(
    ("contents", "cores", "connections", "jobs"),
    [
        ("", 8, None, 4),
        ("", 2, None, 2),
        ("", 8, 3, 2),
        ("", 8, 1, 1),
        (";     Format: TAR\n", 8, None, 1),
        ("", None, None, 1),
    ],
)
def test_a_restore_takes_no_more_connections_than_there_are(monkeypatch, contents, cores, connections, jobs):
    monkeypatch.setattr(_pg_dumps.os, "cpu_count", lambda: cores)
    assert _pg_dumps.Dump("/d", "pg_restore", contents, 15, "/d")._jobs(connections) == jobs
