# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file of SQL text brings with it, and what is refused before it runs; what its failures say."""

from __future__ import annotations

import pytest

from ansible_collections.parallel.worktrees.plugins.module_utils import _sql_errors
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError
from ansible_collections.parallel.worktrees.plugins.module_utils._sql_files import DUMP, MASK, MIGRATION, SqlFile


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sql").mkdir()
    for name in ("data.csv", "common.sql", "sql/beside.sql", "it's.csv"):
        (tmp_path / name).write_text("-- nothing", encoding="utf-8")
    return tmp_path


def file_of(folder, text: str, kind: str = MIGRATION, **more) -> SqlFile:
    path = folder / "sql" / "1.sql"
    path.write_text(text, encoding="utf-8")
    return SqlFile(str(path), kind, str(folder), **more)


@pytest.mark.parametrize(
    ("text", "brought"),
    [
        ("\\i common.sql", ["common.sql"]),
        ("  \\ir beside.sql", ["sql/beside.sql"]),
        ("\\include_relative ../data.csv", ["sql/../data.csv"]),
        ("\\copy t (a, b) from data.csv with csv;", ["data.csv"]),
        ("\\copy t from 'it''s.csv'", ["it's.csv"]),
        ("\\COPY t FROM stdin\n\\copy t from program 'ls'\n\\copy (select x from y) to 'z'", []),
        ("/* \n\\i nowhere.sql\n*/ select 1;", []),
        ("\\i common.sql\n\\i common.sql\n\\i sql/1.sql", ["common.sql", "sql/1.sql"]),
    ],
)
def test_what_a_file_brings_with_it_is_part_of_it(folder, text, brought):
    file = file_of(folder, text)
    parts = [path.removeprefix(f"{folder}/") for path in file.parts()]
    assert {*parts} == {"sql/1.sql", *brought}
    before = file.digest()
    for path in brought:
        (folder / path).write_text("-- another", encoding="utf-8")
    assert (file.digest() != before) == bool(brought)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("select 1;\n\\i nowhere.sql", "migration sql/1.sql, line 2: there is no file {folder}/nowhere.sql"),
        ("\\ir common.sql", "there is no file {folder}/sql/common.sql"),
        ("\\set x y\n\\i :x", "line 2: which file \\i :x names is known to psql alone"),
        (
            "/*\n*/\ncreate index concurrently on t (x);",
            "line 3: create index concurrently cannot run",
        ),
        ("  VACUUM t;", "line 1: vacuum cannot run"),
    ],
)
def test_what_psql_could_not_do_is_refused_before(folder, text, words):
    with pytest.raises(UserError) as refusal:
        file_of(folder, text).parts()
    assert words.format(folder=folder) in refusal.value.message


def test_what_needs_no_transaction_has_a_way_out(folder):
    text = "create index concurrently on t (x);"
    with pytest.raises(UserError) as refusal:
        file_of(folder, text).parts()
    assert refusal.value.hint == "golden.transaction: false"
    assert file_of(folder, text, transaction=False).parts()
    assert file_of(folder, f"begin; select 1; commit;\n{text}").parts()
    assert file_of(folder, f"{text}\n\\i nowhere", kind=DUMP).parts()
    with pytest.raises(UserError, match=r"mask sql/1.sql, line 1"):
        file_of(folder, text, kind=MASK).parts()


ERROR = "psql:/srv/sql/2.sql:{}"


@pytest.mark.parametrize(
    ("stderr", "with_rows", "without"),
    [
        (
            f"{ERROR.format(1)}: NOTICE:  00000: Ada\n{ERROR.format(3)}: ERROR:  22012: division by zero\nLOCATION:  x",
            "sql/2.sql, line 3: division by zero",
            "sql/2.sql, line 3: division by zero",
        ),
        (
            f'{ERROR.format(3)}: ERROR:  22P02: invalid input syntax for type integer: "Ada"\nCONTEXT: x',
            'sql/2.sql, line 3: invalid input syntax for type integer: "Ada"',
            "sql/2.sql, line 3: invalid text representation (SQLSTATE 22P02)",
        ),
        (
            f"{ERROR.format(3)}: FEHLER:  42703: Spalte »x« existiert nicht\nLINE 1: select x\n              ^",
            "sql/2.sql, line 3: Spalte »x« existiert nicht",
            "sql/2.sql, line 3: Spalte »x« existiert nicht",
        ),
        (
            f'{ERROR.format(3)}: ERROR:  42P01: relation "Ada" does not exist\nLINE 1: select\nQUERY:  select',
            'sql/2.sql, line 3: relation "Ada" does not exist',
            "sql/2.sql, line 3: undefined table (SQLSTATE 42P01)",
        ),
        (
            f"{ERROR.format(4)}: error: x.csv: No such file or directory",
            "sql/2.sql, line 4: x.csv: No such file or directory",
            "sql/2.sql, line 4: x.csv: No such file or directory",
        ),
    ],
)
def test_an_error_of_psql(stderr, with_rows, without):
    reported = _sql_errors.of_psql(stderr, "/srv")
    assert reported is not None
    assert reported.shown(rows=True) == with_rows
    assert reported.shown(rows=False).partition("; ")[0] == without


RESTORE = "pg_restore: while PROCESSING TOC:\npg_restore: from TOC entry 33; 3256 16401 POLICY person own the_owner\n"


@pytest.mark.parametrize(
    ("stderr", "with_rows", "without"),
    [
        (
            f'{RESTORE}pg_restore: error: could not execute query: ERROR:  role "web" does not exist\nCommand was: x',
            'policy person own: role "web" does not exist',
            'policy person own: role "web" does not exist',
        ),
        (
            f'{RESTORE}pg_restore: error: COPY failed for table "person": ERROR:  no date: "Ada"\nCONTEXT: x',
            'COPY failed for table "person": ERROR:  no date: "Ada"',
            f'COPY failed for table "person": {_sql_errors.NOT_SHOWN}',
        ),
        (
            f'{RESTORE}pg_restore: error: could not execute query: ERROR:  cannot read "Ada"\nCommand was: x',
            'policy person own: cannot read "Ada"',
            f"policy person own: {_sql_errors.NOT_SHOWN}",
        ),
    ],
)
def test_an_error_of_pg_restore(stderr, with_rows, without):
    reported = _sql_errors.of_pg_restore(stderr)
    assert reported is not None
    assert (reported.shown(rows=True), reported.shown(rows=False)) == (with_rows, without)


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        ("42704", 'role "web" does not exist', "make the role"),
        ("42704", 'type "mood" does not exist', None),
        ("42501", 'permission denied to create extension "file_fdw"', "name the extension"),
        ("42501", "must be owner of schema public", "the role that runs it owns the database"),
        ("0A000", 'extension "postgis" is not available', "install the extension"),
        ("0A000", "cannot alter type of a column used by a view or rule", None),
        ("25001", "CREATE INDEX CONCURRENTLY cannot run inside a transaction block", "it cannot run in a transaction"),
        ("57P01", "terminating connection due to administrator command", "the server was stopped"),
        ("22012", "division by zero", None),
        (None, "no such file", None),
    ],
)
def test_the_hint_is_that_of_the_error(code, message, hint):
    found = _sql_errors.Reported("2.sql, line 1", code, message, names_only=True).hint
    assert (found or "").startswith(hint or "\n") or found is hint


def test_where_nothing_is_reported_there_is_nothing():
    assert _sql_errors.of_psql("psql: error: connection to server failed", "/") is None
    assert _sql_errors.of_pg_restore("pg_restore: was ended") is None
