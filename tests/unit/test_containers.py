# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a container can be said without Docker."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
import time
import types
import typing as t

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils import _containers
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import EnvironmentFailure, UserError

NOWHERE = "unix:///nowhere/docker.sock"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "parallel-worktrees" / "containers"


def params(**given: t.Any) -> dict[str, t.Any]:
    asked = {"name": "db", "owner": "w/a", "image": "postgres:16", "port": 5433, "password_file": "/nowhere/p", **given}
    checked = ArgumentSpecValidator(_containers.ARGUMENT_SPEC).validate(asked)
    assert not checked.error_messages
    return t.cast("dict[str, t.Any]", checked.validated_parameters)


@pytest.mark.parametrize("name", ["", "a", "-db", "a b", "a/b", "a\n", "é", "../x"])
def test_refuses_a_name_that_docker_refuses(name):
    with pytest.raises(UserError, match="is not a container name"):
        _containers.operation(params(name=name), check=True)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"image": None}, "needs image"),
        ({"port": None}, "needs port"),
        ({"password_file": None}, "needs password_file"),
        ({"port": 0}, "0 is not a port"),
        ({"port": 65536}, "65536 is not a port"),
        ({"user": ""}, "the user '' is not a PostgreSQL name"),
        ({"database": "x" * 64}, "is not a PostgreSQL name"),
        ({"settings": {"port": 1}}, "setting 'port' cannot be given"),
        ({"settings": {"fsync=on -c x": 1}}, "cannot be given"),
        ({"settings": {"parallel_worktrees.database": "other"}}, "cannot be given"),
        ({"environment": {"POSTGRES_PASSWORD": "x"}}, "environment variable 'POSTGRES_PASSWORD' cannot be given"),
        ({"environment": {"A=B": "x"}}, "cannot be given"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_refuses_before_it_asks_docker(asked, told, check, state):
    with pytest.raises(UserError, match=told):
        _containers.operation(params(**asked, docker_host=NOWHERE), check=check)
    assert not state.exists()


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("wanted", ["present", "absent"])
def test_tells_that_docker_is_down(wanted, check):
    with pytest.raises(EnvironmentFailure, match=f"Docker does not answer at {NOWHERE}") as failure:
        _containers.operation(params(docker_host=NOWHERE, state=wanted), check=check)
    assert "systemctl start docker" in str(failure.value.hint)


def test_database_defaults_to_user():
    assert _containers.Wish.of(params(user="app")).database == "app"


def test_settings_are_written_as_postgresql_reads_them():
    wish = _containers.Wish.of(params(settings={"jit": False, "fsync": True, "max_connections": 30, "a.b": 0.5}))
    assert wish.settings == {"jit": "off", "fsync": "on", "max_connections": "30", "a.b": "0.5"}


def test_asked_settings_win_over_the_defaults():
    image = types.SimpleNamespace(attrs={"Config": {"Cmd": None}})
    command = _containers._command(image, {**_containers.THROW_AWAY, "fsync": "on"})
    assert command[:3] == ["postgres", "-c", "fsync=on"]
    assert "fsync=off" not in command


def made(wish: _containers.Wish) -> t.Any:
    labels = {_containers.WISH: json.dumps(_containers.dataclasses.asdict(wish))}
    return types.SimpleNamespace(labels=labels)


@given(
    settings=st.dictionaries(st.from_regex(r"[a-z_]{2,9}", fullmatch=True), st.booleans() | st.integers() | st.text()),
    environment=st.dictionaries(st.from_regex(r"X[A-Z_]{2,9}", fullmatch=True), st.text()),
    memory=st.none() | st.text(),
    prepared=st.booleans(),
)
def test_a_container_never_drifts_from_what_it_was_made_of(settings, environment, memory, prepared):
    settings = {name: value for name, value in settings.items() if name not in _containers.OUR_SETTINGS}
    wish = _containers.Wish.of(params(settings=settings, environment=environment, memory=memory, prepared=prepared))
    assert _containers._drift(made(wish), wish) == ""


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"port": 5434}, "port is 5433, asked for is 5434"),
        ({"image": "postgres:17"}, "image is 'postgres:16', asked for is 'postgres:17'"),
        ({"settings": {"jit": True}}, "settings is {}, asked for is {'jit': 'on'}"),
        ({"memory": "1g"}, "memory is None, asked for is '1g'"),
    ],
)
def test_drift_names_what_differs(changed, told):
    before = _containers.Wish.of(params())
    assert _containers._drift(made(before), _containers.Wish.of(params(**changed))) == told


def test_a_label_of_an_older_version_is_no_drift():
    wish = _containers.Wish.of(params())
    container = made(wish)
    container.labels[_containers.WISH] = json.dumps({"port": 5433, "gone": 1})
    assert _containers._drift(container, wish) == ""


def test_prepared_images_differ_by_all_that_they_are_made_of():
    def key(image="sha256:1", **given):
        base = types.SimpleNamespace(id=image)
        return _containers._key(base, _containers.Wish.of(params(**given)), check=False)

    same = {key(), key(port=1), key(settings={"jit": "on"}), key(memory="1g"), key(image="sha256:1")}
    assert len(same) == 1
    different = {key("sha256:2"), key(user="a"), key(database="b"), key(environment={"X": "y"})}
    assert len(different | same) == 5


def test_another_secret_makes_other_keys_and_passwords(state):
    base, wish = types.SimpleNamespace(id="sha256:1"), _containers.Wish.of(params())
    assert _containers._key(base, wish, check=True) is None
    assert not state.exists()
    first = _containers._key(base, wish, check=False), _containers.first_password("x")
    assert (state / ".secret").stat().st_mode & 0o777 == 0o600
    assert (_containers._key(base, wish, check=True), _containers.first_password("x")) == first
    assert _containers.first_password("y") != first[1]
    (state / ".secret").unlink()
    second = _containers._key(base, wish, check=False), _containers.first_password("x")
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_a_note_is_there_while_it_says_something(state):
    with _containers._noted("db", check=False) as note:
        assert not note.mark
        mark = note.begin()
        assert note.mark == mark
    assert (state / "db").read_text() == mark
    with _containers._noted("db", check=True) as note:
        assert note.mark == mark
    with _containers._noted("db", check=False) as note:
        assert note.begin() == mark
        note.wipe()
        assert note.mark is None
    assert os.listdir(state) == []


def test_a_note_is_held_by_one_at_a_time(state):
    inside, seen = 0, []

    def work():
        nonlocal inside
        for _number in range(20):
            with _containers._noted("db", check=False):
                inside += 1
                time.sleep(0.0005)
                seen.append(inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {1}
    assert os.listdir(state) == []


def test_check_mode_makes_no_note(state):
    with _containers._noted("db", check=True) as note:
        assert note.mark is None
    assert not state.exists()


def test_the_first_password_travels_as_a_file_of_its_own():
    sent = []
    container = types.SimpleNamespace(put_archive=lambda path, data: sent.append((path, data)))
    _containers._deliver(container, "secret")
    _containers._deliver(container, "")
    (path, first), (_path, second) = sent
    assert path == "/"
    for sent_archive, password in ((first, b"secret"), (second, b"")):
        with tarfile.open(fileobj=io.BytesIO(sent_archive)) as tar:
            file = tar.extractfile(_containers.FIRST_PASSWORD)
            assert file is not None
            assert file.read() == password
