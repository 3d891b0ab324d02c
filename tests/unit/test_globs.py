# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils import _globs
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError

LETTERS = "ab"


@pytest.mark.parametrize(
    ("glob", "path", "does"),
    [
        ("src/**/*.gleam", "src/a.gleam", True),
        ("src/**/*.gleam", "src/a/b/c.gleam", True),
        ("src/**/*.gleam", "src/a.gleam/x", True),
        ("src/**/*.gleam", "test/a.gleam", False),
        ("src/**/*.gleam", "src/a.erl", False),
        ("src", "src/a/b", True),
        ("src/", "src/a/b", True),
        ("src", "src2", False),
        ("src/**", "src/a", True),
        ("src/**", "src", False),
        ("**/test", "test", True),
        ("**/test", "a/b/test/c", True),
        ("**", "a/b", True),
        ("*", "a/b", True),
        ("*.md", "a/b.md", False),
        ("a**b", "axxb", True),
        ("a**b", "ax/xb", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        ("[!a]x", "/x", False),
        ("[]a]x", "]x", True),
        ("[a-]x", "-x", True),
        (r"[\]]x", "]x", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        ("ü*", "über", True),
        ("a/**/**/b", "a/b", True),
    ],
)
def test_a_path_is_meant_or_not(glob, path, does):
    assert _globs.matches(glob, path) is does


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ("src/**/*.gleam", "src/web/**", "src/web/.gleam"),
        ("src/**/*.gleam", "test/**", None),
        ("*.a", "*.b", None),
        ("*.a", "a*", "a.a"),
        ("src", "src/deep/**", "src/deep/a"),
        ("**/test", "src/*", "src/test"),
        ("[a-m]*", "[n-z]*", None),
        ("[a-m]*", "[m-z]*", "m"),
        ("a/?", "a/??", None),
        ("a/**/b", "a/b", "a/b"),
        ("a*b", "*c", None),
        ("a*b", "*c*", "acb"),
        ("docs", "src", None),
    ],
)
def test_two_have_a_path_in_common_or_not(one, other, common):
    assert _globs.overlap(one, other) == common
    assert (_globs.overlap(*reversed((one, other))) is None) is (common is None)


@pytest.mark.parametrize(
    "glob", ["", "/", "/src", "a//b", "../a", "a/./b", "[a", "[", "a[]", "[[:alpha:]]", "a\\", "[z-a]", "a/[/]"]
)
def test_what_is_no_glob_is_refused(glob):
    with pytest.raises(UserError) as caught:
        _globs.check(glob)
    assert repr(glob) in caught.value.message
    assert caught.value.hint


# Against brute force: another reading of globs, and all paths up to a length

name = st.text(st.sampled_from("aab*?"), min_size=1, max_size=3) | st.sampled_from(["**", "[ab]", "[!a]", "b[a-b]*"])
globs = st.lists(name, min_size=1, max_size=3).map("/".join)
NAMES = ["".join(letters) for size in (1, 2, 3) for letters in itertools.product(LETTERS, repeat=size)]
PATHS = [
    "/".join(names)
    for size, few in ((1, NAMES), (2, NAMES[:6]), (3, NAMES[:4]), (4, NAMES[:2]))
    for names in itertools.product(few, repeat=size)
]


def means(glob: str, path: str) -> bool:
    names = tuple(path.split("/"))
    return any(_names(tuple(glob.split("/")), names[:size]) for size in range(1, len(names) + 1))


@functools.cache
def _names(globs: tuple[str, ...], names: tuple[str, ...]) -> bool:
    if not globs:
        return not names
    if globs[0] == "**":
        some = range(1 if len(globs) == 1 else 0, len(names) + 1)
        return any(_names(globs[1:], names[size:]) for size in some)
    return bool(names) and _name(globs[0], names[0]) and _names(globs[1:], names[1:])


@functools.cache
def _name(glob: str, text: str) -> bool:
    if not glob:
        return not text
    if glob[0] == "*":
        return any(_name(glob[1:], text[size:]) for size in range(len(text) + 1))
    if not text:
        return False
    if glob[0] == "[":
        inner, _bracket, rest = glob[1:].partition("]")
        letters = {"ab": "ab", "a-b": "ab", "!a": "".join(set("abcdefghijklmnopqrstuvwxyz0_") - {"a"})}[inner]
        return text[0] in letters and _name(rest, text[1:])
    return glob[0] in ("?", text[0]) and _name(glob[1:], text[1:])


@given(globs, st.sampled_from(PATHS))
def test_a_path_is_meant_as_by_another_reading(glob, path):
    assert _globs.matches(glob, path) is means(glob, path)


@given(globs, globs)
def test_an_overlap_has_a_witness_and_none_has_none(one, other):
    common = _globs.overlap(one, other)
    if common is None:
        assert [path for path in PATHS if means(one, path) and means(other, path)] == []
    else:
        assert means(one, common)
        assert means(other, common)
        assert "" not in common.split("/")
    assert (_globs.overlap(*reversed((one, other))) is None) is (common is None)
