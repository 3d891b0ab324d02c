# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which goldens stay, when a new one is due, and what a standby is told."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _db_host,
    _postgres,
    _refresh,
    _sources,
    _standby,
)
from ansible_collections.parallel.worktrees.plugins.module_utils._refresh import Golden

NOW = 1_000_000.0
STANDBY = {"kind": "standby", "database": "app", "host": "db", "user": "copy"}

goldens = st.lists(
    st.builds(
        lambda created, ready, branches: Golden(f"goldens/app/{created:07}", float(created), ready, branches, {}),
        st.integers(0, int(NOW)),
        st.booleans(),
        st.sampled_from([(), ("branches/x",)]),
    ),
    unique_by=lambda one: one.name,
)


def source(**more):
    host = _db_host.parse({"store": "xfs", "bin_directory": "/", "sources": {"app": {**STANDBY, **more}}}, "x")
    return host.source("app")


def age(created):
    return NOW - created


@given(goldens, st.integers(1, 5), st.none() | st.floats(0, NOW))
def test_what_is_kept(found, keep, keep_age):
    gone = _refresh.superfluous(found, keep=keep, keep_age=keep_age, age=age)
    by_name = {one.name: one for one in found}
    newest = _refresh.newest(found)
    assert len(gone) == len(set(gone))
    assert all(by_name[name].ready and not by_name[name].branches for name in gone)
    assert newest is None or newest.name not in gone
    left = [one for one in found if one.ready and one.name not in gone]
    free = [one for one in left if not one.branches and one is not newest]
    assert len(free) < keep or keep == 1
    ready = sorted((one for one in found if one.ready), key=lambda one: one.name, reverse=True)
    for place, one in enumerate(ready):
        old = keep_age is not None and NOW - one.created > keep_age
        assert (one.name in gone) == (place > 0 and not one.branches and (place >= keep or old))


@given(goldens)
def test_nothing_goes_twice(found):
    gone = _refresh.superfluous(found, keep=2, keep_age=None, age=age)
    left = [one for one in found if one.name not in gone]
    assert _refresh.superfluous(left, keep=2, keep_age=None, age=age) == []


def golden(age, **mark):
    return Golden("goldens/app/1", NOW - age, True, (), mark)


def test_a_golden_is_due_when_the_last_is_old_enough():
    assert _refresh.is_due(source(every="1h"), [], NOW)
    assert not _refresh.is_due(source(every="1h"), [golden(3599)], NOW)
    assert _refresh.is_due(source(every="1h"), [golden(3600)], NOW)
    half_made = Golden("goldens/app/2", NOW, False, (), {})
    assert _refresh.is_due(source(every="1h"), [golden(3600), half_made], NOW)


def test_a_dump_is_due_when_it_is_another(tmp_path):
    dump = tmp_path / "dump"
    dump.write_text("select 1")
    of_dump = source(kind="dump", dump=str(dump), every="0s")
    made = golden(9, made_of=_refresh.made_of(of_dump))
    assert not _refresh.is_due(of_dump, [made], NOW)
    os.utime(dump, (0, 0))
    assert _refresh.is_due(of_dump, [made], NOW)
    folder = tmp_path / "folder"
    folder.mkdir()
    of_folder = source(kind="dump", dump=str(folder), every="0s")
    made = golden(9, made_of=_refresh.made_of(of_folder))
    (folder / "toc.dat").write_text("x")
    assert _refresh.is_due(of_folder, [made], NOW)
    assert _refresh.made_of(source(kind="dump", dump=str(folder), extensions=["x"])) != _refresh.made_of(of_folder)


def test_a_standby_has_as_much_as_its_primary():
    control = {"max_connections setting": "120", "max_wal_senders setting": "7", "wal_level setting": "logical"}
    assert _standby.as_the_primary(control) == {
        "wal_level": "replica",
        "max_connections": "120",
        "max_wal_senders": "7",
    }


@given(st.dictionaries(st.sampled_from(["a", "b.c"]), st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
def test_a_setting_stays_on_its_line(settings):
    lines = _postgres.config(settings).split("\n")
    assert len(lines) == len(settings) + 1
    for line, (name, value) in zip(lines, settings.items(), strict=False):
        assert line.startswith(f"{name} = '")
        assert line.endswith("'")
        inner = line.removeprefix(f"{name} = '")[:-1]
        assert inner.replace("''", "").count("'") == 0
        assert inner.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\").replace("''", "'") == value


def test_a_length_of_time_is_told_as_people_say_it():
    assert [_sources._span(one) for one in (5, 119, 120, 7200, 172800)] == ["5 s", "119 s", "2 min", "2 h", "2 days"]
