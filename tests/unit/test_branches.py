# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a branch may be called, and how its password is told from another."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils import _branches, _postgres
from ansible_collections.parallel.worktrees.plugins.module_utils._door import filled
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError
from ansible_collections.parallel.worktrees.plugins.module_utils._task_branch import children_first


def wish(**more):
    return _branches.Wish.of(filled(_branches.ARGUMENT_SPEC, {"name": "shop", "owner": "shop/fix@0", **more}))


@given(st.text(max_size=80))
def test_a_name_is_one_everywhere_or_is_refused(name):
    """For PostgreSQL, a line of PgBouncer's file, a unit of systemd, and a folder."""
    try:
        made = wish(name=name).name
    except UserError:
        return
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", made)
    assert made not in _branches.RESERVED


@given(st.text(alphabet="ab_-", min_size=64, max_size=90).map(lambda text: "n" + text))
def test_long_names_stay_apart(name):
    assert wish(name=name).name != wish(name=name + "x").name
    assert len(wish(name=name).name) == 63


@pytest.mark.parametrize(
    ("given", "seconds"), [(None, None), ("90s", 90), ("12h", 43200), ("7d", 604800), ("soon", UserError)]
)
def test_expiry(given, seconds):
    if seconds is UserError:
        with pytest.raises(UserError):
            wish(expires=given)
    else:
        assert wish(expires=given).expires == seconds


@settings(max_examples=20)
@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_a_verifier_is_of_one_password(one, other):
    fresh, steady = _postgres.scram_verifier(one), _postgres.steady_verifier(one)
    assert fresh != _postgres.scram_verifier(one)
    assert steady == _postgres.steady_verifier(one)
    for verifier in (fresh, steady):
        assert _postgres.verifies(verifier, one)
        assert _postgres.verifies(verifier, verifier)
        assert _postgres.verifies(verifier, other) == (one == other)
    assert not _postgres.verifies("SCRAM-SHA-256$nonsense", one)


def test_children_are_removed_before_their_parents() -> None:
    branches = [("top", None), ("other", None), ("leaf", "twig"), ("twig", "top"), (None, None), ("far", "elsewhere")]
    order = [name for name, _parent in children_first(branches, lambda one: one)]
    assert order.index("leaf") < order.index("twig") < order.index("top")
    assert sorted(map(str, order)) == sorted(str(name) for name, _parent in branches)
    assert [name for name, _parent in children_first([("b", "a"), ("a", "b")], lambda one: one)] == ["b", "a"]
