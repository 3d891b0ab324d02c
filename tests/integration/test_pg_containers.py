# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of a task on a real Docker; what it says is checked with docker and psql."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import typing as t

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from docker.models.containers import Container
from integration.servers import FOR_EVER, docker
from ports import free_port

from ansible_collections.parallel.worktrees.plugins.module_utils import _containers
from ansible_collections.parallel.worktrees.plugins.module_utils._door import answer

OWNER = "pg-container-test"
PASSWORD_LENGTH = 32


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory):
    """A state folder for this file."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder / "parallel-worktrees" / "containers"


@pytest.fixture(scope="module")
def image(docker_client, postgres_image):
    """The image under a name of our own, which tells our prepared images from those of others."""
    name = f"{OWNER}-{secrets.token_hex(4)}:15"
    docker("tag", postgres_image, name)
    yield name
    for container in _containers.containers(docker_client):
        if container["image"] == name:
            docker("rm", "--force", "--volumes", container["name"])
    for prepared in ours(docker_client, name):
        _containers.remove_prepared(docker_client, prepared["key"])
    docker("rmi", name)


def ours(client, image):
    return [prepared for prepared in _containers.prepared_images(client) if prepared["base"] == image]


@pytest.fixture
def task(tmp_path, image):
    """The parameters of a task's container, which is removed at the end."""
    given = parameters(tmp_path, image)
    yield given
    run(given, state="absent")
    docker("rm", "--force", "--volumes", given["name"], check=False)


def parameters(folder, image, **more: t.Any) -> dict[str, t.Any]:
    name = f"{OWNER}-{secrets.token_hex(4)}"
    return {
        "name": name,
        "owner": f"{OWNER}/{name}",
        "image": image,
        "port": free_port(),
        "password_file": str(folder / name),
        "pull": "never",
        **more,
    }


def run(task: dict[str, t.Any], *, check: bool = False, **more: t.Any) -> dict[str, t.Any]:
    checked = ArgumentSpecValidator(_containers.ARGUMENT_SPEC).validate({**task, **more})
    assert not checked.error_messages
    return answer(_containers.operation, checked.validated_parameters, check=check, diff=True)


def start(task: dict[str, t.Any], **more: t.Any) -> subprocess.Popen[str]:
    """The same in a process of its own, which says a word when it is about to begin."""
    code = (
        "import json, sys, docker, psycopg2\n"
        "from ansible.module_utils.common.arg_spec import ArgumentSpecValidator\n"
        "from ansible_collections.parallel.worktrees.plugins.module_utils import _containers, _door\n"
        "spec = ArgumentSpecValidator(_containers.ARGUMENT_SPEC)\n"
        "params = spec.validate(json.loads(sys.argv[1])).validated_parameters\n"
        "print('go', flush=True)\n"
        "print(json.dumps(_door.answer(_containers.operation, params, check=False, diff=False)))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps({**task, **more})],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def names() -> list[str]:
    return docker("ps", "--all", "--format", "{{.Names}}").split()


def psql(task: dict[str, t.Any], sql: str, password: str | None = None, user: str = "postgres") -> str:
    if password is None:
        with open(task["password_file"], encoding="ascii") as file:
            password = file.read().strip()
    address = ["-h", "127.0.0.1", "-p", str(task["port"]), "-U", user, task.get("database", user)]
    done = subprocess.run(
        ["psql", "-XAtqw", "-c", sql, *address],
        env={**os.environ, "PGPASSWORD": password},
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr).strip()


def identity(task: dict[str, t.Any]) -> str:
    return psql(task, "show parallel_worktrees.database")


# What it gives


def test_present_then_absent(task):
    expected = run(task, check=True)
    assert task["name"] not in names()
    assert not os.path.exists(task["password_file"])

    made = run(task)
    assert made["changed"]
    assert made["container"].pop("id") == docker("inspect", "--format", "{{.Id}}", task["name"])
    assert expected["container"].pop("id") is None
    assert {**made, "actions": made["actions"][-2:]} == {**expected, "actions": expected["actions"][-2:]}
    assert identity(task) == task["name"]
    assert os.stat(task["password_file"]).st_mode & 0o777 == 0o600
    assert docker("port", task["name"]) == f"5432/tcp -> 127.0.0.1:{task['port']}"

    for check in (True, False):
        again = run(task, check=check)
        assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])

    volumes = docker("inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", task["name"]).split()
    assert volumes
    assert run(task, check=True, state="absent")["changed"]
    assert identity(task) == task["name"]
    gone = run(task, state="absent")
    assert gone["changed"]
    assert gone["actions"] == [f"remove container {task['name']}", f"remove {task['password_file']}"]
    assert task["name"] not in names()
    assert not set(volumes) & set(docker("volume", "ls", "--quiet").split())
    assert not os.path.exists(task["password_file"])
    for check in (True, False):
        assert not run(task, check=check, state="absent")["changed"]


def test_facts(task):
    made = run(task, user="app", database="shop")
    assert made["container"]["image"] == task["image"]
    assert made["database"]["backend"] == "container"
    assert made["database"]["container"] == task["name"]
    assert (made["database"]["user"], made["database"]["name"]) == ("app", "shop")
    assert psql({**task, "database": "shop"}, "select current_user || current_database()", user="app") == "appshop"


@pytest.mark.parametrize("prepared", [True, False])
def test_settings_and_limits(task, prepared):
    run(task, settings={"max_connections": 17, "fsync": True}, memory="300m", shm_size="99m", prepared=prepared)
    assert psql(task, "show max_connections") == "17"
    assert (psql(task, "show fsync"), psql(task, "show full_page_writes")) == ("on", "off")
    limits = docker("inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.ShmSize}}", task["name"])
    assert limits == f"{300 << 20} {99 << 20}"


def test_environment_reaches_initdb_and_has_an_image_of_its_own(task, docker_client):
    before = {image["key"] for image in ours(docker_client, task["image"])}
    run(task, environment={"POSTGRES_INITDB_ARGS": "--wal-segsize=1 --data-checksums"})
    assert psql(task, "show wal_segment_size") == "1MB"
    assert psql(task, "show data_checksums") == "on"
    made = [image for image in ours(docker_client, task["image"]) if image["key"] not in before]
    assert [image["containers"] for image in made] == [[task["name"]]]


def test_scripts_of_the_image_have_run(task, docker_client):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        script = b"create table seeded as select 42 as answer;"
        file = tarfile.TarInfo("seed.sql")
        file.mode, file.size = 0o644, len(script)
        tar.addfile(file, io.BytesIO(script))
    base = docker_client.containers.create(task["image"])
    base.put_archive("/docker-entrypoint-initdb.d", archive.getvalue())
    name = f"{task['name']}:seeded"
    try:
        base.commit(*name.split(":"), conf=docker_client.images.get(task["image"]).attrs["Config"])
        for prepared in (True, False):
            run(task, image=name, prepared=prepared)
            assert psql(task, "select answer from seeded") == "42"
            run(task, state="absent")
        for image in ours(docker_client, name):
            _containers.remove_prepared(docker_client, image["key"])
    finally:
        base.remove(v=True)
        docker("rmi", name, check=False)


@pytest.mark.parametrize("prepared", [True, False])
def test_start_now_wait_later(task, prepared):
    started = run(task, wait=False, prepared=prepared)
    assert started["changed"]
    assert started["container"]["running"]
    assert not run(task, wait=False, prepared=prepared)["changed"]
    assert run(task, check=True, prepared=prepared)["changed"]
    waited = run(task, prepared=prepared)
    assert waited["changed"]
    assert waited["actions"] == ["set the password of user postgres"]
    assert identity(task) == task["name"]
    assert not run(task, prepared=prepared)["changed"]


def test_one_that_did_not_come_up_in_the_background_is_made_anew(task):
    started = run(task, wait=False)
    while "Up" not in docker("ps", "--all", "--filter", f"name=^{task['name']}$", "--format", "{{.Status}}"):
        time.sleep(0.01)
    docker("kill", task["name"])
    waited = run(task)
    assert waited["container"]["id"] != started["container"]["id"]
    assert f"create and start container {task['name']}" in waited["actions"]
    assert identity(task) == task["name"]


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("stop", ["stop", "kill", "pause"])
def test_a_stopped_one_is_started_with_its_data(task, prepared, stop):
    run(task, prepared=prepared)
    psql(task, "create table kept as select 7 as n")
    psql(task, "checkpoint")
    docker(stop, task["name"])
    assert run(task, check=True, prepared=prepared)["actions"] == [f"start container {task['name']}"]
    started = run(task, prepared=prepared)
    assert (started["changed"], started["actions"]) == (True, [f"start container {task['name']}"])
    assert psql(task, "select n from kept") == "7"


# What it refuses


@pytest.mark.parametrize("check", [True, False])
def test_drift_is_told_and_loses_nothing(task, check):
    run(task)
    psql(task, "create table kept as select 7 as n")
    refused = run(task, check=check, port=free_port(), settings={"jit": "off"})
    assert refused["failure"] == "user"
    assert "port is" in refused["msg"]
    assert "settings is {}, asked for is {'jit': 'off'}" in refused["msg"]
    assert psql(task, "select n from kept") == "7"


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("wanted", ["present", "absent"])
def test_another_owners_container_is_left_alone(task, check, wanted):
    run(task)
    refused = run(task, check=check, state=wanted, owner="someone/else")
    assert refused["failure"] == "user"
    assert f"of image {task['image']} belongs to {task['owner']}" in refused["msg"]
    assert identity(task) == task["name"]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("wanted", ["present", "absent"])
def test_a_strangers_container_is_left_alone(task, check, wanted, state):
    docker("create", "--name", task["name"], task["image"])
    refused = run(task, check=check, state=wanted)
    assert refused["failure"] == "user"
    assert "is not one of ours" in refused["msg"]
    assert task["image"] in refused["msg"]
    assert task["name"] in names()
    assert not os.path.exists(task["password_file"])
    assert not os.path.lexists(os.path.join(state, task["name"]))


@pytest.mark.parametrize("check", [True, False])
def test_a_taken_port_is_named_and_nothing_stays(task, check, state):
    with socket.create_server(("127.0.0.1", task["port"])):
        refused = run(task, check=check)
    assert refused["failure"] == "environment"
    assert f"port {task['port']} of 127.0.0.1 is taken" in refused["msg"]
    assert task["name"] not in names()
    assert not os.path.lexists(os.path.join(state, task["name"]))


def test_a_port_taken_while_we_create_is_named_and_nothing_stays(task, state, monkeypatch):
    monkeypatch.setattr(_containers._postgres, "check_port_is_free", lambda *_: None)
    with socket.create_server(("127.0.0.1", task["port"])):
        refused = run(task)
    assert refused["failure"] == "environment"
    assert f"port {task['port']} of 127.0.0.1 is taken" in refused["msg"]
    assert task["name"] not in names()
    assert not os.path.lexists(os.path.join(state, task["name"]))
    assert run(task)["changed"]


def test_a_stopped_one_whose_port_was_taken_keeps_its_data(task):
    run(task)
    psql(task, "create table kept as select 7 as n")
    docker("stop", task["name"])
    with socket.create_server(("127.0.0.1", task["port"])):
        assert f"port {task['port']} of 127.0.0.1 is taken" in run(task)["msg"]
    run(task)
    assert psql(task, "select n from kept") == "7"


@pytest.mark.parametrize("check", [True, False])
def test_an_image_that_is_not_there_is_named(task, check):
    refused = run(task, check=check, image="no.such.registry.invalid/postgres:1")
    assert refused["failure"] == "environment"
    assert "image no.such.registry.invalid/postgres:1 is not on this machine" in refused["msg"]


def test_a_pull_that_fails_is_told(task):
    asked = {**task, "image": "127.0.0.1:1/postgres:1", "pull": "missing"}
    assert run(asked, check=True)["actions"][0] == "pull image 127.0.0.1:1/postgres:1"
    refused = run(asked)
    assert refused["failure"] == "environment"
    assert "cannot pull image 127.0.0.1:1/postgres:1" in refused["msg"]
    assert task["name"] not in names()


@pytest.mark.parametrize("prepared", [True, False])
def test_a_server_that_ends_is_told_at_once_and_made_anew(task, prepared):
    failed = run(task, settings={"max_connections": "many"}, prepared=prepared, timeout=FOR_EVER)
    assert failed["failure"] == "environment"
    assert 'invalid value for parameter "max_connections": "many"' in failed["msg"]
    repaired = run(task, prepared=prepared)
    assert f"remove container {task['name']}, which nobody was given" in repaired["actions"]
    assert identity(task) == task["name"]


@pytest.mark.parametrize("is_over", [False, True])
def test_a_first_start_that_fails_is_told_and_leaves_nothing(task, docker_client, monkeypatch, is_over):
    """Also where it has failed before anybody has looked."""
    start = Container.start
    if is_over:
        monkeypatch.setattr(Container, "start", lambda container: (start(container), container.wait()))
    before = ours(docker_client, task["image"])
    failed = run(task, environment={"POSTGRES_INITDB_ARGS": "--no-such-option"})
    assert failed["failure"] == "environment"
    assert "no-such-option" in failed["msg"]
    assert ours(docker_client, task["image"]) == before
    assert task["name"] not in names()


def test_too_little_memory_is_told_at_once(task):
    run(task)
    run(task, state="absent")
    failed = run(task, memory="6m", timeout=FOR_EVER)
    assert failed["failure"] == "environment"


def test_a_lost_password_file_is_told(task):
    run(task)
    os.unlink(task["password_file"])
    for check in (True, False):
        assert "is not there to tell it" in run(task, check=check)["msg"]
    assert not os.path.exists(task["password_file"])


# Secrets


@pytest.mark.parametrize("prepared", [True, False])
def test_no_secret_shows(task, prepared, docker_client, state):
    made = run(task, prepared=prepared)
    with open(task["password_file"], encoding="ascii") as file:
        password = file.read().strip()
    assert len(password) == PASSWORD_LENGTH
    container = docker_client.containers.get(task["name"])
    first = _containers.first_password(container.labels[_containers.KEY if prepared else _containers.MARK])
    image = container.image.id
    shown = [
        json.dumps(made),
        docker("inspect", task["name"]),
        docker("logs", task["name"]),
        docker("inspect", image),
        docker("history", "--no-trunc", image),
        subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout,
    ]
    master = (state / ".secret").read_text().strip()
    for secret in (password, first, master):
        assert not [text for text in shown if secret in text]
    environment = subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout
    assert password not in environment
    assert "password authentication failed" in psql(task, "select 1", password=first)
    if prepared:
        assert first not in environment
        assert docker("exec", task["name"], "wc", "-c", f"/{_containers.FIRST_PASSWORD}").startswith("0 ")


def test_a_prepared_image_is_its_base_but_for_the_data(task, docker_client):
    run(task)
    base = docker_client.images.get(task["image"]).attrs["Config"]
    container = docker_client.containers.get(task["name"])
    prepared = container.image.attrs["Config"]
    for key in ("Cmd", "Entrypoint", "StopSignal", "Volumes", "ExposedPorts", "User", "WorkingDir", "Healthcheck"):
        assert prepared.get(key) == base.get(key), key
    assert "was not properly shut down" not in docker("logs", task["name"])
    assert "was interrupted" not in docker("logs", task["name"])


@contextlib.contextmanager
def derived(base: str, entrypoint: str) -> t.Iterator[str]:
    """An image like ``base`` with another entry point, a line of shell; ``"$@"`` are the arguments."""
    name = f"{OWNER}-{secrets.token_hex(4)}:other"
    text = f'FROM {base}\nENTRYPOINT {json.dumps(["bash", "-c", entrypoint, "--"])}\nCMD ["postgres"]\n'
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    subprocess.run(["docker", "build", "-q", "-t", name, "-"], input=text, text=True, env=environment, check=True)
    try:
        yield name
    finally:
        docker("rmi", "--no-prune", name)


OTHER_PLACE = {
    "ignores": 'PGDATA=/var/lib/postgresql/data exec docker-entrypoint.sh "$@"',
    "refuses": '[[ $PGDATA == /var/lib/postgresql/data ]] || { echo "no $PGDATA" >&2; exit 3; }; '
    'exec docker-entrypoint.sh "$@"',
}


@pytest.mark.parametrize("way", OTHER_PLACE)
def test_an_image_that_takes_no_other_data_folder_is_started_as_it_is(task, way, docker_client, state):
    with derived(task["image"], OTHER_PLACE[way]) as image:
        assert run(task, image=image, check=True)["actions"][0] == f"prepare image {image}"
        made = run(task, image=image)
        assert f"use image {image} as it is, for it cannot be prepared" in made["actions"], made
        (warning,) = made.get("warnings", [])
        assert image in warning
        assert "takes seconds more" in warning
        assert identity(task) == task["name"]
        assert ours(docker_client, image) == []
        again = run(task, image=image)
        assert (again["changed"], again.get("warnings", [])) == (False, [])
        # It is known from now on: not tried again.
        run(task, state="absent")
        planned = run(task, image=image, check=True)["actions"]
        assert planned[0] == f"use image {image} as it is, for it cannot be prepared"
        assert run(task, image=image)["actions"][: len(planned)] == planned
        assert psql(task, "select 6 * 7") == "42"
        run(task, state="absent")
    shutil.rmtree(state / ".plain")


BROKEN = {
    "ends": ("echo is broken >&2; exit 3", "does not start a server", "ended with 3: is broken"),
    "is another": (
        f"export POSTGRES_PASSWORD_FILE= POSTGRES_PASSWORD=own; {OTHER_PLACE['ignores']}",
        "not as the official image postgres does",
        "does not take the password",
    ),
}


@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_image_is_told_from_that(task, way, state):
    entrypoint, *words = BROKEN[way]
    with derived(task["image"], entrypoint) as image:
        failed = run(task, image=image, wait=False)
        assert failed["failure"] == "environment"
        for word in words:
            assert word in failed["msg"]
        assert failed["hint"]
        assert task["name"] not in names()
        assert os.listdir(state) == [".secret"]


# Interruptions and races


@pytest.mark.parametrize("prepared", [True, False])
def test_killed_at_any_moment_it_converges(task, prepared, state):
    run(task, prepared=prepared)
    run(task, state="absent")
    seed = random.randrange(1000)
    chance = random.Random(seed)
    print("seed", seed)
    for attempt in range(16):
        kill(start(task, prepared=prepared), chance.uniform(0, 0.5 if prepared else 1.5))
        if attempt % 3 == 0:
            kill(start(task, prepared=prepared), chance.uniform(0, 0.5))
        if attempt % 2:
            result = run(task, prepared=prepared)
            assert "failed" not in result, result
            assert identity(task) == task["name"]
            assert os.listdir(state) == [".secret"]
            kill(start(task, prepared=prepared, state="absent"), chance.uniform(0, 0.25))
        assert "failed" not in run(task, state="absent")
        time.sleep(0.2)
        assert task["name"] not in names()
        assert not os.path.exists(task["password_file"])
        assert os.listdir(state) == [".secret"]


class Killed(BaseException):
    """As good as a kill, but at a step of our choice."""


def killed(*_: t.Any, **__: t.Any) -> t.NoReturn:
    raise Killed


STEPS = [(True, "_start"), (True, "_wait"), (True, "_set_password")]
STEPS += [(False, "_deliver"), *((False, step) for _prepared, step in STEPS)]


@pytest.mark.parametrize(("prepared", "step"), STEPS)
@pytest.mark.parametrize("then", ["present", "absent"])
def test_ended_before_a_step_it_converges(task, prepared, step, then, state, monkeypatch):
    run(task, prepared=prepared)
    run(task, state="absent")
    with monkeypatch.context() as patch:
        patch.setattr(_containers, step, killed)
        with pytest.raises(Killed):
            run(task, prepared=prepared)
    assert task["name"] in os.listdir(state)
    result = run(task, prepared=prepared, state=then)
    assert result.get("changed"), result
    if then == "present":
        assert identity(task) == task["name"]
    else:
        assert task["name"] not in names()
    assert os.listdir(state) == [".secret"]


def test_ended_between_commit_and_tag_the_next_preparation_cleans(task, docker_client, monkeypatch):
    environment = {"ANEW": secrets.token_hex(4)}
    with monkeypatch.context() as patch:
        patch.setattr(type(docker_client.images.get(task["image"])), "tag", killed)
        with pytest.raises(Killed):
            run(task, environment=environment)
    left = [prepared for prepared in ours(docker_client, task["image"]) if not prepared["containers"]]
    run(task, environment=environment)
    key = docker_client.containers.get(task["name"]).labels[_containers.KEY]
    assert key in [prepared["key"] for prepared in left]
    assert images_of(key) == 1


def test_a_commit_of_a_killed_preparation_that_ends_late_is_cleaned(task, docker_client, monkeypatch):
    """Docker goes on with a commit when the process that asked for the commit is killed."""
    environment = {"ANEW": secrets.token_hex(4)}
    commit = Container.commit

    def commit_twice(container, **more):
        commit(container, **more)
        return commit(container, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Container, "commit", commit_twice)
        run(task, environment=environment)
    assert identity(task) == task["name"]
    assert images_of(docker_client.containers.get(task["name"]).labels[_containers.KEY]) == 1


def images_of(key: str) -> int:
    return len(docker("images", "--all", "--quiet", "--filter", f"label={_containers.KEY}={key}").split())


def kill(process: subprocess.Popen[str], delay: float) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_preparation_is_cleaned_by_the_next(task, docker_client, state):
    seed = random.randrange(1000)
    chance = random.Random(seed)
    print("seed", seed)
    environment = {"POSTGRES_INITDB_ARGS": "--data-checksums", "ANEW": secrets.token_hex(4)}
    for delay in sorted(chance.uniform(0, 2.2) for _number in range(6)):
        kill(start(task, environment=environment), delay)
    assert "failed" not in run(task, environment=environment)
    assert identity(task) == task["name"]
    key = docker_client.containers.get(task["name"]).labels[_containers.KEY]
    assert not [name for name in names() if key in name]
    assert images_of(key) == 1
    assert os.listdir(state) == [".secret"]


def test_six_at_once_of_one_name(task):
    processes = [start(task) for _number in range(6)]
    results = [json.loads(process.communicate()[0].splitlines()[1]) for process in processes]
    assert [result["changed"] for result in results].count(True) == 1, results
    assert len({result["container"]["id"] for result in results}) == 1
    assert identity(task) == task["name"]


def test_six_at_once_of_different_names_and_a_new_image(tmp_path, image, docker_client):
    environment = {"ANEW": secrets.token_hex(4)}
    tasks = [parameters(tmp_path, image, environment=environment) for _number in range(6)]
    try:
        results = [json.loads(p.communicate()[0].splitlines()[1]) for p in [start(task) for task in tasks]]
        assert all(result["changed"] for result in results), results
        assert [identity(task) for task in tasks] == [task["name"] for task in tasks]
        assert len({open(task["password_file"]).read() for task in tasks}) == 6  # noqa: SIM115
        keys = {docker_client.containers.get(task["name"]).labels[_containers.KEY] for task in tasks}
        assert len(keys) == 1
    finally:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda task: run(task, state="absent"), tasks))
    assert not set(names()) & {task["name"] for task in tasks}


# For status and prune


def test_lists_what_is_ours(task, docker_client):
    run(task)
    listed = {container["name"]: container for container in _containers.containers(docker_client)}
    expected = {"owner": task["owner"], "port": task["port"], "running": True, "image": task["image"]}
    assert listed[task["name"]] == {"name": task["name"], **expected}
    docker("stop", task["name"])
    listed = {container["name"]: container for container in _containers.containers(docker_client)}
    assert listed[task["name"]] == {"name": task["name"], **expected, "running": False}


def test_unused_prepared_images_can_be_removed(task, docker_client):
    environment = {"ANEW": secrets.token_hex(4)}
    run(task, environment=environment)
    key = docker_client.containers.get(task["name"]).labels[_containers.KEY]

    def entry():
        return next((image for image in ours(docker_client, task["image"]) if image["key"] == key), None)

    assert entry()["containers"] == [task["name"]]
    assert entry()["base"] == task["image"]
    with pytest.raises(_containers.EnvironmentFailure, match=f"cannot remove prepared image {key}"):
        _containers.remove_prepared(docker_client, key)
    assert identity(task) == task["name"]
    run(task, state="absent")
    assert entry()["containers"] == []
    _containers.remove_prepared(docker_client, key)
    assert entry() is None
    assert not docker("images", "--quiet", "--filter", f"label={_containers.KEY}={key}")


def test_what_a_killed_preparation_left_can_be_removed(task, docker_client):
    kill(start(task, environment={"ANEW": secrets.token_hex(4)}), 0.7)
    left = [image for image in ours(docker_client, task["image"]) if not image["size"]]
    assert len(left) == 1
    _containers.remove_prepared(docker_client, left[0]["key"])
    assert not [name for name in names() if left[0]["key"] in name]
