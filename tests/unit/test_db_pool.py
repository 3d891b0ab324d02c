# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is no pool is refused before anything is looked at, and what is not empty before anything is written."""

from __future__ import annotations

import pytest

from ansible_collections.parallel.worktrees.plugins.module_utils import _db_pool
from ansible_collections.parallel.worktrees.plugins.module_utils._door import filled
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError

FILE = {"file": "/srv/pool", "size": "1G"}
ZFS = {"store": "zfs", "dataset": "tank/ours"}


def wish(**given):
    return _db_pool.Wish.of(filled(_db_pool.ARGUMENT_SPEC, given))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({**ZFS, **FILE, "devices": ["/dev/vdb"]}, "devices and file are both given"),
        ({"store": "xfs"}, "lies on devices or on a file, and neither is given"),
        ({"store": "xfs", "devices": ["/dev/vdb", "/dev/vdc"]}, "an XFS pool lies on one device"),
        ({"store": "btrfs", "file": "/srv/pool"}, "how large the file /srv/pool is to be is not given"),
        ({"store": "btrfs", "devices": ["vdb"]}, "'vdb' is no place of a pool"),
        ({**ZFS, "devices": ["mirrored", "/dev/vdb"]}, "'mirrored' is no place of a pool"),
        ({**ZFS, "root": "/"}, "'/' is no place of a pool"),
        ({**ZFS, "dataset": "tank"}, "'tank' is no dataset below a pool"),
        ({**ZFS, "dataset": "tank/-o x"}, "is no dataset below a pool"),
        ({**ZFS, "dataset": None}, "None is no dataset below a pool"),
        ({**ZFS, **FILE, "size": "1X"}, "'1X' is no size"),
        ({**ZFS, **FILE, "size": "0G"}, "'0G' is no size"),
        ({**ZFS, **FILE, "size": "100M"}, "a pool of 100M is too small"),
    ],
)
def test_what_is_no_pool_is_refused(given, words):
    with pytest.raises(UserError, match=words):
        wish(**given)


def test_words_may_stand_between_devices_of_zfs():
    asked = wish(**ZFS, devices=["mirror", "/dev/vdb", "/dev/vdc"])
    assert asked.vdevs == ("mirror", "/dev/vdb", "/dev/vdc")
    assert asked.places == ("/dev/vdb", "/dev/vdc")
    assert asked.pool == "tank"


@pytest.mark.parametrize(("text", "size"), [("1G", 1 << 30), ("400 MiB", 400 << 20), ("2TB", 2 << 40)])
def test_sizes(text, size):
    assert wish(**ZFS, file="/srv/pool", size=text).size == size


def test_a_file_with_nothing_in_it_is_empty(tmp_path):
    file = tmp_path / "pool"
    _db_pool._check_is_empty(str(file), is_file=True)
    with open(file, "wb") as empty:
        empty.truncate(5 << 20)
    _db_pool._check_is_empty(str(file), is_file=True)


@pytest.mark.parametrize("at", [0, (1 << 20) - 1, (4 << 20), (5 << 20) - 1])
def test_a_file_with_data_at_its_beginning_or_end_is_not(tmp_path, at):
    file = tmp_path / "pool"
    with open(file, "wb") as data:
        data.truncate(5 << 20)
        data.seek(at)
        data.write(b"x")
    with pytest.raises(UserError, match=f"{file} is not empty"):
        _db_pool._check_is_empty(str(file), is_file=True)


def test_neither_is_a_link_to_nowhere_nor_a_folder_a_file(tmp_path):
    with pytest.raises(UserError, match="is no file"):
        _db_pool._check_is_empty(str(tmp_path), is_file=True)
    with pytest.raises(UserError, match="is no block device"):
        _db_pool._check_is_empty("/dev/null", is_file=False)
    with pytest.raises(UserError, match="there is no device"):
        _db_pool._check_is_empty(str(tmp_path / "none"), is_file=False)
