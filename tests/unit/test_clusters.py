# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a cluster can be said without PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
import typing as t

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils import _clusters, _postgres
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import EnvironmentFailure, UserError

RECORD = _clusters.Record(
    name="a",
    owner="w/a",
    version="15.4",
    bin_directory="/nowhere",
    socket_directory="/nowhere/s",
    address="127.0.0.1",
    port=5433,
    user="postgres",
    database="postgres",
    settings={},
)
ME = _clusters.Account("me", os.geteuid(), os.getegid())


def params(**asked: t.Any) -> dict[str, t.Any]:
    wish = {"name": "a", "owner": "w/a", "port": 5433, "password_file": "/nowhere/p", "directory": "/nowhere", **asked}
    checked = ArgumentSpecValidator(_clusters.ARGUMENT_SPEC).validate(wish)
    assert not checked.error_messages
    return t.cast("dict[str, t.Any]", checked.validated_parameters)


@pytest.fixture
def cluster(tmp_path):
    """A cluster without a server."""
    made = _clusters.Cluster(str(tmp_path), "a")
    os.makedirs(made.data)
    made.write(RECORD)
    return made


@contextlib.contextmanager
def impostor(tmp_path: pathlib.Path, folder: str, name: str = "postgres") -> t.Iterator[subprocess.Popen[bytes]]:
    """A process of this name that works in a folder."""
    program = tmp_path / name
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "600"], cwd=folder) as process:
        comm = pathlib.Path(f"/proc/{process.pid}/comm")
        while comm.read_text(encoding="ascii") != f"{name}\n":  # Popen returns a moment too early
            time.sleep(0.001)
        try:
            yield process
        finally:
            process.kill()


# What is refused


@pytest.mark.parametrize("name", ["", ".a", "-a", "a b", "a/b", "..", "a\n", "é", "a~b", "x" * 64])
def test_refuses_a_name_that_is_no_safe_folder(name):
    with pytest.raises(UserError, match="is not a cluster name"):
        _clusters.operation(params(name=name), check=True)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"port": None}, "needs port"),
        ({"password_file": None}, "needs password_file"),
        ({"port": 0}, "0 is not a port"),
        ({"port": 65536}, "65536 is not a port"),
        ({"address": "0.0.0.0"}, "loopback address only, and '0.0.0.0' is none"),
        ({"address": "::"}, "loopback"),
        ({"address": "192.0.2.1"}, "loopback"),
        ({"address": "example.invalid"}, "loopback"),
        ({"address": "127.0.0.1,192.0.2.1"}, "loopback"),
        ({"user": ""}, "the user '' is not a PostgreSQL name"),
        ({"database": "x" * 64}, "is not a PostgreSQL name"),
        ({"user": "pg_me"}, "cannot be set up for the user 'pg_me'"),
        ({"user": 'a"b'}, "cannot be set up"),
        ({"user": "a'b"}, "cannot be set up"),
        ({"user": "a\\b"}, "cannot be set up"),
        ({"settings": {"port": 1}}, "setting 'port' cannot be given"),
        ({"settings": {"Listen_Addresses": "*"}}, "cannot be given"),
        ({"settings": {"include": "/etc/passwd"}}, "cannot be given"),
        ({"settings": {"work_mem = 1\nport": 1}}, "cannot be given"),
        ({"settings": {"parallel_worktrees.database": "other"}}, "cannot be given"),
        ({"settings": {"work_mem": None}}, "None is no value for the setting 'work_mem'"),
        ({"settings": {"search_path": ["a"]}}, "is no value"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_refuses_what_no_cluster_can_be(asked, told, check, tmp_path):
    with pytest.raises(UserError, match=re.escape(told)):
        _clusters.operation(params(directory=str(tmp_path / "d"), **asked), check=check)
    assert not (tmp_path / "d" / "a").exists()


@pytest.mark.parametrize("state", ["present", "absent"])
def test_refuses_the_cluster_of_another_owner(cluster, state):
    with pytest.raises(UserError, match=r"cluster a in .* belongs to w/a, not to w/b"):
        _clusters.operation(params(owner="w/b", state=state, directory=cluster.directory), check=False)
    assert cluster.record() == RECORD


@pytest.mark.parametrize("state", ["present", "absent"])
def test_refuses_a_folder_without_a_mark(tmp_path, state):
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match=r"has no cluster\.json"):
        _clusters.operation(params(state=state, directory=str(tmp_path)), check=False)
    assert (tmp_path / "a").is_dir()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 1'])
def test_a_record_that_cannot_be_read_is_not_taken_for_none(cluster, content):
    pathlib.Path(cluster.folder, "cluster.json").write_text(content, encoding="utf-8")
    with pytest.raises(EnvironmentFailure, match=r"cannot read .*cluster\.json"):
        _clusters.operation(params(state="absent", directory=cluster.directory), check=False)
    assert os.path.isdir(cluster.data)


def test_refuses_to_become_a_cluster_of_another_user(cluster, monkeypatch):
    monkeypatch.setattr(_clusters.Account, "of", lambda _name: ME)
    monkeypatch.setattr(_clusters.Account, "number", lambda _uid: ME)
    with pytest.raises(UserError, match="made for user postgres, not for user app"):
        _clusters.operation(params(user="app", directory=cluster.directory), check=True)


def test_names_the_system_user_that_root_misses(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UserError, match="there is no system user 'nobody-of-this-name'") as caught:
        _clusters.Account.of("nobody-of-this-name")
    assert "system_user" in str(caught.value.hint)
    with pytest.raises(UserError, match="has to be another"):
        _clusters.Account.of("root")


# The server's configuration


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_setting_is_one_line_and_means_what_was_given(value):
    lines = dataclasses.replace(RECORD, settings={"x.y": value}).config().removesuffix("\n").split("\n")
    (line,) = (line for line in lines if line.startswith("x.y = "))
    assert len(lines) == 1 + len(_clusters.THROW_AWAY) + 1 + 1 + 5
    assert unquote(line.removeprefix("x.y = ")) == value


def unquote(text: str) -> str:
    """A string of postgresql.conf, by the rules of its manual: doubled quotes, and backslashes as in C."""
    assert text[0] == text[-1] == "'"
    pairs = {"''": "'", r"\\": "\\", r"\n": "\n"}
    return re.sub(r"''|\\\\|\\n|['\\]", lambda found: pairs[found[0]], text[1:-1])


def test_our_settings_win_over_given_ones_and_given_ones_over_defaults():
    config = dataclasses.replace(RECORD, settings={"fsync": "on", "cluster_name": "mine"}).config().splitlines()
    assert config[0] == "include 'data/postgresql.conf'"
    assert [line for line in config if line.startswith(("fsync", "cluster_name"))] == [
        "fsync = 'on'",
        "cluster_name = 'mine'",
    ]
    assert config[-1] == f"{_postgres.IDENTITY_SETTING} = 'a'"


@pytest.mark.parametrize(
    ("given", "written"), [(True, "on"), (False, "off"), (200, "200"), (1.5, "1.5"), ("8MB", "8MB")]
)
def test_yaml_values_become_settings(given, written):
    assert _postgres.setting(given) == written


# Whose process it is


@pytest.mark.parametrize("content", ["", "\n", "x\n", "-1\n", "0\n", "999999999\n"])
def test_a_broken_pid_file_is_no_server(cluster, content):
    pathlib.Path(cluster.data, "postmaster.pid").write_text(content, encoding="ascii")
    assert cluster.status() is None


def test_a_pid_that_another_process_has_now_is_no_server(cluster, tmp_path):
    pid_file = pathlib.Path(cluster.data, "postmaster.pid")
    pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")
    assert cluster.status() is None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with impostor(tmp_path, str(elsewhere)) as process:
        pid_file.write_text(f"{process.pid}\n", encoding="ascii")
        assert cluster.status() is None
        cluster.stop()
        assert process.poll() is None


def test_a_shell_in_the_data_directory_is_left_alone(cluster, tmp_path):
    with impostor(tmp_path, cluster.data, "bash") as process:
        pathlib.Path(cluster.data, "postmaster.pid").write_text(f"{process.pid}\n", encoding="ascii")
        assert cluster.status() is None
        cluster.stop()
        assert process.poll() is None


def test_stops_what_a_crashed_server_left_behind(cluster, tmp_path):
    with impostor(tmp_path, cluster.data) as process:
        cluster.stop()
        assert process.wait(5) != 0


def test_reads_what_the_server_says_of_itself(cluster, tmp_path):
    pid_file = pathlib.Path(cluster.data, "postmaster.pid")
    with impostor(tmp_path, cluster.data) as process:
        pid_file.write_text(f"{process.pid}\n/d\n1\n5433\n/s\n127.0.0.1\n  1  2\nstarting\n", encoding="ascii")
        assert cluster.status() == "starting"
        pid_file.write_text(f"{process.pid}\n/d\n1\n5433\n/s\n127.0.0.1\n  1  2\nready   \n", encoding="ascii")
        assert cluster.status() == "ready"
        assert _clusters.clusters(cluster.directory) == [
            {"name": "a", "owner": "w/a", "directory": cluster.folder, "running": True}
        ]
    assert cluster.status() is None


def test_a_server_that_does_not_come_up_in_time_is_told(cluster, tmp_path):
    pid_file = pathlib.Path(cluster.data, "postmaster.pid")
    pathlib.Path(cluster.log).write_text("still replaying\n", encoding="ascii")
    with impostor(tmp_path, cluster.data) as process:
        pid_file.write_text(f"{process.pid}\n/d\n1\n5433\n/s\n127.0.0.1\n  1  2\nstarting\n", encoding="ascii")
        with pytest.raises(EnvironmentFailure, match="cluster a is not ready in time: still replaying"):
            cluster.await_status(_clusters.READY, time.monotonic() + 0.05)
    with pytest.raises(_clusters.ServerEnded, match="cluster a has ended: still replaying"):
        cluster.await_status(_clusters.READY, time.monotonic() + 5)


def test_lists_clusters_and_nothing_else(cluster, tmp_path):
    (tmp_path / ".a~1").mkdir()
    (tmp_path / ".locks").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").touch()
    assert _clusters.clusters(str(tmp_path)) == [
        {"name": "a", "owner": "w/a", "directory": cluster.folder, "running": False}
    ]
    assert _clusters.clusters(str(tmp_path / "not-there")) == []


# Folders


def test_a_copy_has_the_same_content_and_is_private(tmp_path):
    source = tmp_path / "source"
    (source / "base" / "1").mkdir(parents=True)
    (source / "PG_VERSION").write_text("15\n", encoding="ascii")
    (source / "base" / "1" / "empty").touch()
    (source / "base" / "1" / "large").write_bytes(os.urandom(300_000))
    _clusters._copy(str(source), str(tmp_path / "copy"), ME)
    assert subprocess.run(["diff", "-r", source, tmp_path / "copy"], check=False).returncode == 0
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o700


def test_a_copy_follows_no_link(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="link"):
        _clusters._copy(str(tmp_path / "source"), str(tmp_path / "copy"), ME)


def test_sweeps_what_is_of_this_name_only(tmp_path):
    folder = tmp_path / "with [brackets]"
    for name in (".a~1", ".a~2", ".ab~1", ".a-~1", "a", ".locks"):
        (folder / name / "data").mkdir(parents=True)
    _clusters._sweep(str(folder), "a")
    assert sorted(os.listdir(folder)) == sorted([".ab~1", ".a-~1", "a", ".locks"])


@pytest.mark.parametrize("kind", ["mode", "link", "file"])
def test_a_socket_folder_that_others_prepared_is_refused(tmp_path, kind):
    place = tmp_path / "place"
    if kind == "mode":
        place.mkdir()
        place.chmod(0o755)
    elif kind == "link":
        (tmp_path / "target").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "target")
    else:
        place.touch(mode=0o600)
    with pytest.raises(EnvironmentFailure, match="is not a private folder of me"):
        _clusters._make_private(str(place), ME)


def test_a_socket_folder_is_private(tmp_path):
    for _number in range(2):
        _clusters._make_private(str(tmp_path / "place"), ME)
    assert (tmp_path / "place").stat().st_mode & 0o777 == 0o700


@given(st.text(max_size=300))
def test_the_path_of_a_socket_is_never_too_long(name):
    account = _clusters.Account("x", 2**32 - 2, 0)
    folder = _clusters.Cluster("/home" + "/x" * 200, name).socket_directory(account)
    assert len(f"{folder}/.s.PGSQL.65535.lock".encode()) <= 107


# Finding PostgreSQL


def install(folder: pathlib.Path, version: str, *programs: str) -> str:
    folder.mkdir(parents=True)
    for program in programs or ("initdb", "pg_controldata", "postgres"):
        (folder / program).write_text(
            f"#!/bin/sh\necho '{program} (PostgreSQL) {version} (Debian)'\n", encoding="ascii"
        )
        (folder / program).chmod(0o755)
    return str(folder)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Several versions in the usual places, which are taken for /usr/lib/postgresql."""
    folders = {version: install(tmp_path / "lib" / version / "bin", f"{version}.1") for version in ("9", "13", "17")}
    install(tmp_path / "lib" / "18" / "bin", "18.1", "postgres")  # a part of it only
    (tmp_path / "path").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    real = _clusters.glob.glob
    moved = {"/usr/lib/postgresql/*/bin": str(tmp_path / "lib" / "*" / "bin"), "/usr/pgsql-*/bin": "/nowhere"}
    monkeypatch.setattr(_clusters.glob, "glob", lambda pattern: real(str(moved.get(pattern, pattern))))
    return folders


def test_takes_the_newest_complete_postgresql(installed):
    assert _clusters.programs_in(None, None) == _clusters.Programs(installed["17"], "17.1")


@pytest.mark.usefixtures("installed")
def test_takes_the_one_that_pg_config_names_first(tmp_path):
    other = install(tmp_path / "other", "16beta1")
    pg_config = tmp_path / "path" / "pg_config"
    pg_config.write_text(f"#!/bin/sh\necho {other}\n", encoding="ascii")
    pg_config.chmod(0o755)
    assert _clusters.programs_in(None, None) == _clusters.Programs(other, "16beta1")
    assert _clusters.programs_in(None, None).major == "16"


def test_takes_the_one_that_is_asked_for_or_none(installed, tmp_path):
    assert _clusters.programs_in(installed["9"], None).version == "9.1"
    with pytest.raises(EnvironmentFailure, match="PostgreSQL is not in"):
        _clusters.programs_in(str(tmp_path), None)


def test_an_existing_cluster_keeps_its_major_version(installed):
    gone = dataclasses.replace(RECORD, version="13.9", bin_directory="/nowhere")
    assert _clusters.programs_in(None, gone).folder == installed["13"]
    with pytest.raises(EnvironmentFailure, match="PostgreSQL 15, which made cluster a, is not on this machine"):
        _clusters.programs_in(None, RECORD)


def test_says_that_there_is_no_postgresql(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(_clusters.glob, "glob", lambda _pattern: [])
    with pytest.raises(EnvironmentFailure, match="PostgreSQL is not on this machine") as caught:
        _clusters.programs_in(None, None)
    assert "bin_directory" in str(caught.value.hint)


# The port


def test_a_port_with_a_listener_is_taken_and_one_without_is_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(EnvironmentFailure, match=f"port {port} of 127.0.0.1 is taken"):
            _postgres.check_port_is_free("127.0.0.1", port)
        with pytest.raises(EnvironmentFailure, match="is taken"):
            _postgres.check_port_is_free("localhost", port)
    _postgres.check_port_is_free("127.0.0.1", port)


def test_an_address_of_another_machine_cannot_be_listened_on():
    with pytest.raises(EnvironmentFailure, match=r"cannot listen on port 5433 of 192\.0\.2\.1"):
        _postgres.check_port_is_free("192.0.2.1", 5433)


def test_a_url_with_an_ipv6_address_can_be_read():
    facts = _postgres.Address("::1", 5433, "u", "d").facts("embedded", None)
    assert facts["host"] == "::1"
    assert "@[::1]:5433/d" in facts["url"]


def test_the_record_is_what_is_read_back(cluster):
    content = json.loads(pathlib.Path(cluster.folder, "cluster.json").read_text(encoding="utf-8"))
    assert content == dataclasses.asdict(RECORD)
    assert cluster.record() == RECORD


def test_a_server_is_known_by_its_arguments_where_its_folder_may_not_be_seen(tmp_path, monkeypatch):
    program = tmp_path / "postgres"
    shutil.copy(shutil.which("sleep") or "", program)
    process = subprocess.Popen([program, "60", "0"])
    arguments = pathlib.Path(f"/proc/{process.pid}/cmdline")
    while b"60" not in arguments.read_bytes():  # the kernel closes files first, by which it seems to run already
        time.sleep(0.001)
    real = os.stat

    def stat(path, **options):
        if str(path).endswith("/cwd"):
            raise PermissionError(path)
        return real(path, **options)

    try:
        monkeypatch.setattr(os, "stat", stat)
        assert _clusters._is_at_work(process.pid, "60", real(tmp_path))
        assert not _clusters._is_at_work(process.pid, "6", real(tmp_path))
        assert not _clusters._is_at_work(os.getpid(), "60", real(tmp_path))
    finally:
        process.kill()
        process.wait()
