# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tells golden databases from each other."""

from __future__ import annotations

import os
import pathlib
import tempfile
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils import _golden
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError

OWNER = _golden.owner_of("shop/fix@1", "main")
NAMES = st.text("abc", min_size=1, max_size=3)
TREES = st.dictionaries(NAMES, st.binary(max_size=4), min_size=1, max_size=4)
"""Files by name."""
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


def golden(place: pathlib.Path, owner: str = OWNER, extensions: t.Iterable[str] = (), **more: t.Any) -> _golden.Golden:
    asked: dict[str, t.Any] = {
        "folder": str(place),
        "dump": None,
        "pull": None,
        "files": [],
        "commands": [],
        "inputs": [],
    }
    asked |= {"transaction": True, **more}
    return _golden.Golden.of(asked, owner, extensions)


def named(tree: dict[str, bytes], owner: str = OWNER, extensions: t.Iterable[str] = (), **more: t.Any) -> str:
    """The name of what is built from these files, in a folder that nobody has built in before."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for name, content in tree.items():
            pathlib.Path(folder, name).write_bytes(content)
        return golden(pathlib.Path(folder), owner, extensions, **more).name


@given(TREES, TREES)
def test_the_name_tells_the_content_of_files_and_nothing_else(one, other):
    assert (named(one, files=["*"]) == named(other, files=["*"])) == (one == other)


@given(TREES, TREES)
def test_inputs_are_as_good_as_files(one, other):
    asked: dict[str, t.Any] = {"commands": ["make"], "inputs": ["*"]}
    assert (named(one, **asked) == named(other, **asked)) == (one == other)


@given(st.permutations(["a", "b", "c"]))
def test_files_run_in_the_order_in_which_they_are_asked_for(order):
    tree = {"a": b"1", "b": b"2", "c": b"3"}
    assert (named(tree, files=order) == named(tree, files=["*"])) == (order == ["a", "b", "c"])
    assert named(tree, commands=["x"], inputs=order) == named(tree, commands=["x"], inputs=["*"])


@given(st.lists(NAMES, min_size=1), st.lists(NAMES, min_size=1))
def test_commands_and_their_order_count(one, other):
    assert (named({}, commands=one) == named({}, commands=other)) == (one == other)


@given(st.lists(NAMES), st.lists(NAMES))
def test_extensions_count_and_their_order_does_not(one, other):
    names = [named({}, commands=["x"], extensions=extensions) for extensions in (one, other)]
    assert (names[0] == names[1]) == ({*one} == {*other})


def test_each_kind_of_beginning_is_its_own():
    tree = {"a": b"select 1", "b": b"select 2"}
    names = [
        named(tree, files=["a", "b"]),
        named(tree, files=["a"], inputs=["b"]),
        named(tree, files=["b"], inputs=["a"]),
        named(tree, files=["a"], dump="b"),
        named(tree, files=["a"], commands=["b"]),
        named(tree, files=["a"], commands=["b"], extensions=["c"]),
        named(tree, files=["a", "b"], owner=_golden.owner_of("shop/fix@1", "world")),
        named(tree, files=["a", "b"], owner=_golden.owner_of("shop/fix@2", "main")),
        named(tree, files=["a", "b"], owner=_golden.owner_of("other/fix@1", "main")),
    ]
    assert len({*names}) == len(names)


def test_whose_it_is():
    assert OWNER == _golden.owner_of("shop/other@1", "main") == "shop/golden:main@1"
    assert _golden.is_golden(OWNER)
    assert not _golden.is_golden("shop/golden@1")


def test_a_file_that_two_patterns_match_runs_once(tmp_path):
    for name in ("a.sql", "b.sql"):
        (tmp_path / name).touch()
    paths = golden(tmp_path, files=["b.sql", "*.sql"]).files
    assert [pathlib.Path(file.path).name for file in paths] == ["b.sql", "a.sql"]


def test_a_folder_dump_counts_with_its_names(tmp_path):
    dump = tmp_path / "dump"
    dump.mkdir()
    (dump / "1.dat").write_text("x", encoding="ascii")
    before = golden(tmp_path, dump="dump").name
    (dump / "1.dat").rename(dump / "2.dat")
    assert golden(tmp_path, dump="dump").name != before


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"folder": "/nowhere", "files": ["*"]}, "there is no folder /nowhere"),
        ({}, "it says not what it is built from"),
        ({"inputs": ["*"]}, "it says not what it is built from"),
        ({"files": ["*.sql"]}, r"no file matches '\*\.sql'"),
        ({"commands": ["x"], "inputs": ["sub"]}, "no file matches 'sub'"),
        ({"dump": "nothing"}, "cannot read .*/nothing: No such file"),
    ],
)
def test_what_is_not_there_is_told_with_what_helps(tmp_path, asked, words):
    (tmp_path / "sub").mkdir()
    with pytest.raises(UserError, match=words) as refusal:
        golden(tmp_path, **asked)
    assert refusal.value.hint


def test_a_pull_that_ends_meanwhile_has_taken_its_dump_away(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "parallel-worktrees" / "golden").mkdir(parents=True)
    monkeypatch.setattr(_golden.glob, "glob", lambda _pattern: [str(tmp_path / "just-gone.pull")])
    _golden.forget_pulls()
