# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host file as it is read, and what ZFS says as it is read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils import _db_host, _stores
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import EnvironmentFailure, UserError

SMALLEST = {"store": "xfs", "bin_directory": "/usr/lib/postgresql/15/bin"}
STANDBY = {"kind": "standby", "database": "app", "host": "db", "user": "copy"}


def test_a_host_has_defaults():
    host = _db_host.parse(SMALLEST, "x")
    assert (host.root, host.run, host.port) == ("/srv/parallel-worktrees", "/run/parallel-worktrees", 6432)
    assert host.branch == _db_host.Branches("32MB", 30, "512M", {})
    assert (host.branch_ports[0], host.branch_ports[-1], host.sources) == (6500, 6999, {})


def test_a_source_is_read():
    sources = {
        "app": {**STANDBY, "every": "90m", "keep_age": "7d"},
        "shop": {"kind": "dump", "database": "s", "dump": "/d"},
    }
    host = _db_host.parse({**SMALLEST, "sources": sources, "branch_ports": {"first": "6700"}}, "x")
    app, shop = (host.source(name) for name in ("app", "shop"))
    assert (app.name, app.kind, app.every, app.keep, app.keep_age, app.expire) == (
        "app",
        "standby",
        5400,
        3,
        604800,
        None,
    )
    assert (shop.dump, shop.port, shop.mask) == ("/d", 5432, None)
    assert host.branch_ports[0] == 6700
    with pytest.raises(UserError, match="no source 'other'; there are: app, shop"):
        host.source("other")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "it is no dictionary"),
        ({}, "store is missing; bin_directory is missing"),
        ({**SMALLEST, "stor": 1}, "stor: nothing reads it; did you mean store?"),
        ({**SMALLEST, "store": "ext4"}, "store is 'ext4', and has to be one of zfs, btrfs, xfs"),
        ({**SMALLEST, "store": "zfs"}, "pool is missing"),
        ({**SMALLEST, "port": "high"}, "port is 'high', and has to be a whole number"),
        ({**SMALLEST, "branch": {"memry": "1G"}}, "branch.memry: nothing reads it; did you mean memory?"),
        ({**SMALLEST, "sources": []}, "sources is a list, and has to be a dictionary"),
        ({**SMALLEST, "sources": {"a b": STANDBY}}, "'a b' is no name of a source"),
        ({**SMALLEST, "sources": {"../x": STANDBY}}, "'../x' is no name of a source"),
        ({**SMALLEST, "sources": {"app": "x"}}, "sources.app is no dictionary"),
        ({**SMALLEST, "sources": {"app": {"kind": "standby", "database": "x"}}}, "sources.app.host is missing"),
        ({**SMALLEST, "sources": {"app": {"kind": "dump", "database": "x"}}}, "sources.app.dump is missing"),
        (
            {**SMALLEST, "sources": {"app": {**STANDBY, "every": "soon"}}},
            "sources.app.every: 'soon' is no length of time",
        ),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "keep": 0}}}, "sources.app.keep is 0"),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "slot": "a b"}}}, "sources.app.slot is 'a b'"),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "admin": "x\nhost all all all trust"}}}, "sources.app.admin is"),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "database": "x\r"}}}, "sources.app.database is"),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "database": "/."}}}, "for a regular expression"),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "user": ""}}}, "sources.app.user is"),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "sslmode": "on"}}}, "sources.app.sslmode is 'on'"),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "sslmode": "verify-full"}}}, "sources.app.sslrootcert is missing"),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "sslrootcert": "/x"}}}, "verify-full for sslrootcert"),
        ({**SMALLEST, "user": "a", "source_user": "a"}, "pooler_user have to be three, and are a, a, parallel-"),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "database": "x" * 64}}}, "names have 1 to 63 bytes"),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "settings": {"Port": 1}}}}, "sources.app.settings.Port cannot"),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "settings": {"a\nb": 1}}}}, "cannot be given"),
        ({**SMALLEST, "branch_ports": {"first": 7000}}, "no port is in branch_ports"),
        ({**SMALLEST, "sources": {"app": {**STANDBY, "keep": "many"}}}, "sources.app.keep is 'many'"),
    ],
)
def test_what_is_no_host_is_refused(given, said):
    with pytest.raises(UserError, match="x is no host file") as raised:
        _db_host.parse(given, "x")
    assert said in raised.value.message


def test_a_machine_without_a_host_file_says_how_to_get_one(tmp_path):
    with pytest.raises(UserError, match="is no DB host") as raised:
        _db_host.load(str(tmp_path / "none"))
    assert "parallel.worktrees.db_host" in str(raised.value.hint)
    (tmp_path / "broken").write_text("{")
    with pytest.raises(EnvironmentFailure, match="cannot read"):
        _db_host.load(str(tmp_path / "broken"))
    (tmp_path / "whole").write_text(json.dumps(SMALLEST))
    assert _db_host.load(str(tmp_path / "whole")).store == "xfs"


@given(st.integers(0, 10**6), st.sampled_from("smhdw"))
def test_a_length_of_time(number, unit):
    assert _db_host.seconds(f"{number}{unit}") == number * _db_host.UNITS[unit]


@given(st.text())
def test_no_text_is_taken_for_a_length_of_time_that_is_none(text):
    try:
        assert _db_host.seconds(text) >= 0
    except ValueError as error:
        assert repr(text) in str(error)  # noqa: PT017 - most texts are none, some are


words = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)


@given(st.dictionaries(words, st.dictionaries(words, st.tuples(words | st.just(""), words))))
def test_what_zfs_says_is_read_by_its_tabs(told):
    lines = [
        f"{name}\t{key}\t{value}\t{source}\n" for name, about in told.items() for key, (value, source) in about.items()
    ]
    assert _stores.parse_properties("".join(lines)) == {name: about for name, about in told.items() if about}


@given(
    st.dictionaries(st.text(max_size=9), st.none() | st.text() | st.floats(allow_nan=False) | st.lists(st.integers()))
)
def test_a_mark_is_one_word_to_zfs(mark):
    text = _stores.assigned(mark)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text.removeprefix("parallel.worktrees:mark=")) == mark
