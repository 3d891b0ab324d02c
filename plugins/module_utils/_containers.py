# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL in a Docker container of its own, made from an image whose data folder is there already.

Private to this collection: may change without notice.

What an image does at its first start (initdb, its scripts, a second start) takes over a second. It is done once: the
*prepared image* is what the first start left behind, and a task's container starts from it in a fraction of that.

A container is first reached with a password that only we can derive; the task's own password is set, as a SCRAM
verifier, once the server answers. Until then nobody was given the database, so it is worth nothing: its *note* in the
state folder says so, and a run that was interrupted before that point is simply made anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import hmac
import io
import json
import os
import re
import secrets
import struct
import tarfile
import time
import typing as t

from . import _commands, _files, _plain_images, _postgres, _secrets, _written
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError
from ._plain_images import CannotBePrepared
from ._state import state_folder

if t.TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from docker.models.images import Image

    from ._golden import Goldens

ARGUMENT_SPEC: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 120},
    "image": {"type": "str"},
    "pull": {"type": "str", "choices": ["missing", "never"], "default": "missing"},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int"},
    "user": {"type": "str", "default": "postgres"},
    "database": {"type": "str"},
    "password_file": {"type": "path", "no_log": False},
    "settings": {"type": "dict", "default": {}},
    "memory": {"type": "str"},
    "shm_size": {"type": "str", "default": "256m"},
    "prepared": {"type": "bool", "default": True},
    "volume": {"type": "str"},
    "environment": {"type": "dict", "default": {}},
    "docker_host": {"type": "str"},
}

REPOSITORY = "parallel-worktrees-prepared"
KIND = "parallel-worktrees.kind"
DATABASE, SERVER, PREPARING, PREPARED = "database", "server", "preparing", "prepared"
OWNER = "parallel-worktrees.owner"
MARK = "parallel-worktrees.mark"
WISH = "parallel-worktrees.wish"
KEY = "parallel-worktrees.key"
BASE = "parallel-worktrees.base"

FOLDER = "opt/parallel-worktrees"
"""Of ours inside a container, relative to its root; an image declares no volume there, so a commit keeps it."""
FIRST_PASSWORD = f"{FOLDER}/first-password"
DATA = f"/{FOLDER}/pgdata"
SERVER_PORT = "5432/tcp"

THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""A crash of the machine may lose a task's database; a crash of its server, the last half second of commits."""

OUR_SETTINGS = {"data_directory", "listen_addresses", "port", _postgres.IDENTITY_SETTING}
OUR_VARIABLES = {"PGDATA", "PGPORT", "POSTGRES_DB", "POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE", "POSTGRES_USER"}
SHUT_DOWN = 1
"""``DB_SHUTDOWNED`` of the server's ``pg_control.h``."""

START_DOCKER = "systemctl start docker, or name another daemon in DOCKER_HOST or docker_host"
ANSWER_SECONDS = 20
"""How long a daemon may take to say what it is; one that hangs never does."""
REQUEST_SECONDS = 600
REMOVAL_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Wish:
    """What a container is made of, and what cannot change without making it anew.

    :ivar settings: of the server, without our defaults.
    :ivar volume: a named volume for the data, which then outlive the container.
    """

    image: str
    address: str
    port: int
    user: str
    database: str
    settings: dict[str, str]
    memory: str | None
    shm_size: str
    prepared: bool
    volume: str | None
    environment: dict[str, str]

    @classmethod
    def of(cls, params: Params) -> Wish:
        """Read the parameters of ``state=present``.

        :raises UserError: one is missing, or names what is ours to set.
        """
        for name in ("image", "port", "password_file"):
            if params[name] is None:
                raise UserError(f"container {params['name']}: state=present needs {name}")
        if not 1 <= params["port"] <= 65535:
            raise UserError(f"container {params['name']}: {params['port']} is not a port: 1 to 65535 are")
        user, database = params["user"], params["database"] or params["user"]
        _postgres.check_name("user", user)
        _postgres.check_name("database", database)
        for kind, given, ours in (
            ("setting", params["settings"], OUR_SETTINGS),
            ("environment variable", params["environment"], OUR_VARIABLES),
        ):
            for name in given:
                if name in ours or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
                    raise UserError(f"container {params['name']}: the {kind} {name!r} cannot be given")
        return cls(
            image=params["image"],
            address=params["address"],
            port=params["port"],
            user=user,
            database=database,
            settings={name: _postgres.setting(value) for name, value in params["settings"].items()},
            memory=params["memory"],
            shm_size=params["shm_size"],
            prepared=params["prepared"] and params["volume"] is None,
            volume=params["volume"],
            environment={name: _postgres.setting(value) for name, value in params["environment"].items()},
        )

    @property
    def reached_at(self) -> _postgres.Address:
        return _postgres.Address(self.address, self.port, self.user, self.database)

    @property
    def kind(self) -> str:
        return SERVER if self.volume else DATABASE

    @property
    def defaults(self) -> dict[str, str]:
        """Settings that are ours unless others are asked for: what is kept in a volume is to survive a crash."""
        return {} if self.volume else THROW_AWAY

    @property
    def variables(self) -> dict[str, str]:
        """What the image's first start reads; unless the data are kept it need not wait for the disk either."""
        given = self.environment.get("POSTGRES_INITDB_ARGS", "")
        return {
            **self.environment,
            "POSTGRES_INITDB_ARGS": given if self.volume else f"{given} --no-sync".lstrip(),
            "POSTGRES_USER": self.user,
            "POSTGRES_DB": self.database,
            "POSTGRES_PASSWORD_FILE": f"/{FIRST_PASSWORD}",
        }


# The operation


def operation(params: Params, *, check: bool) -> Result:
    """Give a task its container, or remove it."""
    name = params["name"]
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", name):
        raise UserError(
            f"{name!r} is not a container name: letters, digits, '_', '.' and '-' are, beginning with a letter or digit"
        )
    if params["state"] == "absent":
        return _absent(params, check=check)
    return _present(params, Wish.of(params), check=check)


def _present(params: Params, wish: Wish, *, check: bool) -> Result:
    name, wait = params["name"], params["wait"]
    actions: list[str] = []
    warnings: list[str] = []
    with connected(params["docker_host"]) as client, _noted(name, check=check) as note:
        found = _of_owner(client, name, params["owner"])
        unfinished = found is not None and note.mark is not None and found.labels.get(MARK) == note.mark
        before = None if found is None else _state(found, ready=not unfinished)
        if found is not None and not unfinished:
            _check_is_as_asked(found, wish, params["password_file"])
        elif found is not None and (found.status != "running" or _drift(found, wish)):
            actions.append(f"remove container {name}, which nobody was given")
            if not check:
                _remove(found)
            found = None
        if found is None:
            if not (check and unfinished):
                _postgres.check_port_is_free(wish.address, wish.port)
            found = _make(client, params, wish, note, actions, check=check)
            if found is not None and wish.prepared and KEY not in found.labels:
                warnings.append(_plain_images.warning(wish.image))
        elif found.status != "running":
            actions.append(f"start container {name}")
            if not check:
                _start(found, wish)
        if not check and found is not None:
            password = _secrets.ensure(params["password_file"])
            if wait:
                _wait(found, wish, password, note, params["timeout"])
        if wait and (before is None or unfinished) and not wish.volume:
            actions.append(f"set the password of user {wish.user}")
        after = {**dataclasses.asdict(wish), "running": True, "ready": wait or (before is not None and not unfinished)}
        return {
            **_changes(name, before, after),
            "actions": actions,
            "warnings": warnings,
            "container": {
                "name": name,
                "id": None if found is None else found.id,
                "image": wish.image,
                "port": wish.port,
                "running": True,
            },
            "database": wish.reached_at.facts("container", params["password_file"], container=name),
        }


def _absent(params: Params, *, check: bool) -> Result:
    name, password_file = params["name"], params["password_file"]
    actions = []
    with connected(params["docker_host"]) as client, _noted(name, check=check) as note:
        found = _of_owner(client, name, params["owner"], late=note.mark is not None and not check)
        before: dict[str, t.Any] = {} if found is None else _state(found, ready=note.mark is None)
        if found is not None:
            actions.append(f"remove container {name}")
            if not check:
                _remove(found)
        if password_file is not None and os.path.lexists(password_file):
            before["password_file"] = password_file
            actions.append(f"remove {password_file}")
            if not check:
                os.unlink(password_file)
        if not check:
            note.wipe()
    return {**_changes(name, before or None, None), "actions": actions}


def _changes(name: str, before: dict[str, t.Any] | None, after: dict[str, t.Any] | None) -> Result:
    if before == after:
        return {"changed": False, "diff": []}
    header = f"container {name}"
    difference = {"before": before or {}, "after": after or {}, "before_header": header, "after_header": header}
    return {"changed": True, "diff": [difference]}


def _state(container: Container, *, ready: bool) -> dict[str, t.Any]:
    return {**_wished(container), "running": container.status == "running", "ready": ready}


def _wished(container: Container) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", json.loads(container.labels[WISH]))


def _check_is_as_asked(container: Container, wish: Wish, password_file: str) -> None:
    """Refuse what could only be had by losing the data of a container.

    :raises UserError: it was made of something else.
    :raises EnvironmentFailure: its password is lost.
    """
    drift = _drift(container, wish)
    if drift:
        raise UserError(
            f"container {container.name} is not as asked, and to make it anew would lose its data: {drift}",
            hint="tear the task down and provision it again, or ask for what is there",
        )
    if not os.path.exists(password_file):
        raise EnvironmentFailure(
            f"container {container.name} has a password, but {password_file} is not there to tell it",
            hint="put the password into that file" if wish.volume else "tear the task down and provision it again",
        )


def _drift(container: Container, wish: Wish) -> str:
    """How a container differs from what is asked; empty where it does not."""
    asked = dataclasses.asdict(wish)
    return ", ".join(
        f"{name} is {there!r}, asked for is {asked[name]!r}"
        for name, there in sorted(_wished(container).items())
        if name in asked and there != asked[name]
    )


# Making a container


def _make(
    client: DockerClient, params: Params, wish: Wish, note: Note, actions: list[str], *, check: bool
) -> Container | None:
    """Create a task's container and start it, as far as check mode allows; tell in ``actions`` what was done."""
    name = params["name"]
    if wish.volume:
        _look_at_volume(client, params, wish.volume, note, check=check)
    image = _base_image(client, wish.image, params["pull"], actions, check=check)
    if wish.prepared:
        image = _prepared_image(client, image, wish, params, actions, check=check)
    actions.append(f"create and start container {name}")
    if check or image is None:
        return None
    prepared = KEY in image.labels
    mark = note.begin()
    with _asking(f"cannot create container {name}"):
        container = _create(
            client,
            name,
            mark,
            image=f"{REPOSITORY}:{image.labels[KEY]}" if prepared else wish.image,
            command=_command(image, {**wish.defaults, **wish.settings, _postgres.IDENTITY_SETTING: name}),
            environment={} if prepared else wish.variables,
            volumes=_mounts(client, image, wish, mark),
            labels={KIND: wish.kind, OWNER: params["owner"], MARK: mark, WISH: json.dumps(dataclasses.asdict(wish))},
            ports={SERVER_PORT: (wish.address, wish.port)},
            mem_limit=wish.memory,
            shm_size=wish.shm_size,
        )
        if wish.volume:
            # Its own from the start: the data may be there already, and know that one.
            _deliver(container, _secrets.ensure(params["password_file"]))
        elif not prepared:
            _deliver(container, first_password(mark))
    if not params["wait"]:
        _start_in_background(container, params["docker_host"])
        return container
    try:
        _start(container, wish)
    except EnvironmentFailure:
        _remove(container)
        note.wipe()
        raise
    return container


def _create(client: DockerClient, name: str, mark: str, **options: t.Any) -> Container:
    """Create a container; one that an interrupted run with the same mark left behind gives way.

    Docker ends what it was asked for even when the asker is killed, so such a container may even come up late.
    """
    docker = _sdk()
    deadline = time.monotonic() + REMOVAL_SECONDS
    while True:
        try:
            return client.containers.create(name=name, **options)
        except docker.errors.APIError as error:
            if error.status_code != 409 or time.monotonic() > deadline:
                raise
            left = _named(client, name)
            if left is not None:
                if left.labels.get(MARK) != mark:
                    raise
                _remove(left)
        time.sleep(0.05)


def _mounts(client: DockerClient, image: Image, wish: Wish, mark: str) -> dict[str, dict[str, str]]:
    """The named volume, made where it is not there, at the place that the image declares for its data."""
    if wish.volume is None:
        return {}
    config = image.attrs["Config"]
    variables = dict(pair.split("=", 1) for pair in config.get("Env") or ())
    places = [*(config.get("Volumes") or ()), variables.get("PGDATA", "/var/lib/postgresql/data")]
    if _volume(client, wish.volume) is None:
        client.volumes.create(wish.volume, labels={KIND: SERVER, MARK: mark})
    return {wish.volume: {"bind": places[0], "mode": "rw"}}


def _volume(client: DockerClient, name: str) -> t.Any:
    docker = _sdk()
    try:
        return client.volumes.get(name)
    except docker.errors.NotFound:
        return None


def _look_at_volume(client: DockerClient, params: Params, name: str, note: Note, *, check: bool) -> None:
    """Remove a volume whose first start was interrupted, and refuse one that no server may be started over.

    :raises UserError: another container has it, whose server would write to the same data.
    :raises EnvironmentFailure: the password of its data is lost.
    """
    with _asking(f"cannot look for volume {name}"):
        volume = _volume(client, name)
        if volume is None:
            return
        rows = client.api.containers(all=True, filters={"volume": name})
    others = [row["Names"][0].lstrip("/") for row in rows if row["Names"] != [f"/{params['name']}"]]
    if others:
        raise UserError(
            f"volume {name} is in use by container {', '.join(others)}",
            hint="name another volume, or remove that container if nobody needs it",
        )
    mark = (volume.attrs.get("Labels") or {}).get(MARK)
    if mark is not None and mark == note.mark:
        if not check:
            with _asking(f"cannot remove volume {name}"):
                volume.remove()
    elif not os.path.exists(params["password_file"]):
        raise EnvironmentFailure(
            f"volume {name} is there, but {params['password_file']} is not there to tell the password of its data",
            hint=f"put it into that file, or name another volume; if nobody needs this one: docker volume rm {name}",
        )


def _command(image: Image, settings: t.Mapping[str, str]) -> list[str]:
    command = list(image.attrs["Config"].get("Cmd") or ["postgres"])
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    return command


def _start(container: Container, wish: Wish) -> None:
    docker = _sdk()
    try:
        with _asking(f"cannot start container {container.name}"):
            container.unpause() if container.status == "paused" else container.start()
    except EnvironmentFailure as error:
        cause = error.__cause__
        if isinstance(cause, docker.errors.APIError) and re.search(
            "port is already allocated|address already in use", cause.explanation or ""
        ):
            raise _postgres.port_is_taken(wish.address, wish.port) from cause
        raise


def _start_in_background(container: Container, docker_host: str | None) -> None:
    """Have a new container started while we go on: Docker answers only when it is up, a quarter of a second later.

    The process inherits the lock of the container's note, so whoever comes to wait for the database waits for this
    first. What goes wrong here is met again there, and told: a container that is not running is made anew.
    """
    if os.fork():
        return
    try:
        os.setsid()
        with open(os.devnull, "r+b") as nothing:
            for stream in range(3):
                os.dup2(nothing.fileno(), stream)  # whoever runs us waits for the end of what he reads
        with connected(docker_host) as client:
            client.containers.get(container.id).start()
    finally:
        os._exit(0)


def _deliver(container: Container, password: str) -> None:
    """Put the first password into a container that is not running; an empty one takes it out again."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        folder = tarfile.TarInfo(FOLDER)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o777  # whichever user an image runs as makes its data folder here
        tar.addfile(folder)
        file = tarfile.TarInfo(FIRST_PASSWORD)
        file.mode, file.size = 0o444, len(password)
        tar.addfile(file, io.BytesIO(password.encode()))
    container.put_archive("/", archive.getvalue())


def _wait(container: Container, wish: Wish, password: str, note: Note, timeout: float) -> None:
    """Wait until the database answers with the task's password, which is set where that is still to do."""
    address = wish.reached_at
    until = functools.partial(
        _postgres.wait_until_answers,
        address,
        identity=container.name,
        timeout=timeout,
        still_alive=functools.partial(_check_is_running, container),
    )
    try:
        if (
            note.mark is not None
            and not wish.volume
            and not _postgres.answers(address, password, identity=container.name)
        ):
            first = first_password(container.labels.get(KEY, note.mark))
            until(first)
            _set_password(address, first, password)
        until(password)
        if note.mark is not None and wish.volume:
            _deliver(container, "")  # the data know it now
    except EnvironmentFailure as error:
        error.hint = error.hint or f"docker logs {container.name}"
        raise
    note.wipe()


def _set_password(address: _postgres.Address, old: str, new: str) -> None:
    with contextlib.closing(_postgres.connect(address, old)) as connection, connection.cursor() as cursor:
        cursor.execute("alter role current_user password %s", (_postgres.scram_verifier(new),))
        _written.start_in(connection)


class Ended(EnvironmentFailure):
    """A container has ended that was to run."""


def _check_is_running(container: Container) -> None:
    """
    :raises Ended: with the last words of the container.
    """
    with _asking(f"cannot look at container {container.name}"):
        container.reload()
        state = container.attrs["State"]
        if state["Running"]:
            return
        why = "was killed for want of memory" if state["OOMKilled"] else f"ended with {state['ExitCode']}"
        words = _commands.last_words(container.logs(tail=_commands.LAST_WORDS).decode(errors="replace"))
    raise Ended(f"container {container.name} {why}{': ' + words if words else ''}")


# Prepared images


def _base_image(client: DockerClient, name: str, pull: str, actions: list[str], *, check: bool) -> Image | None:
    """The image that was asked for; None where check mode may not pull it."""
    with _asking(f"cannot look for image {name}"):
        image = _image(client, name)
    if image is not None:
        return image
    if pull == "never":
        raise EnvironmentFailure(f"image {name} is not on this machine", hint=f"docker pull {name}")
    actions.append(f"pull image {name}")
    if check:
        return None
    with _asking(f"cannot pull image {name}", hint=f"see whether this works: docker pull {name}"):
        return client.images.pull(name)


def _prepared_image(
    client: DockerClient, base: Image | None, wish: Wish, params: Params, actions: list[str], *, check: bool
) -> Image | None:
    """What the first start of an image leaves behind, as an image; made where it is not there yet.

    :returns: the image itself where it starts, but cannot be prepared.
    """
    if base is not None and _plain_images.is_known(base.id):
        actions.append(f"use image {wish.image} as it is, for it cannot be prepared")
        return base
    goldens: Goldens | None = params.get("goldens")
    key = None if base is None else _key(base, wish, goldens, check=check)
    with _asking(f"cannot look for the prepared image of {wish.image}"):
        image = None if key is None else _image(client, f"{REPOSITORY}:{key}")
        if image is not None:
            return image
    actions.append(f"prepare image {wish.image}" + (" with the golden databases" if goldens else ""))
    if check or base is None or key is None:
        return None
    with _noted(f".{key}", check=False), _asking(f"cannot prepare image {wish.image}"):
        image = _image(client, f"{REPOSITORY}:{key}")  # another run may have been first
        try:
            return image or _prepare(client, base, wish, goldens, key, params["timeout"])
        except CannotBePrepared:
            with _first_start(client, base, wish, key, params["timeout"]):
                _plain_images.remember(base.id)
    actions.append(f"use image {wish.image} as it is, for it cannot be prepared")
    return base


def _key(base: Image, wish: Wish, goldens: Goldens | None = None, *, check: bool) -> str | None:
    """The name of a prepared image: a hash of all it was made from, our secret included.

    So no other user's image, and none whose password is lost, is ever taken for ours.
    """
    built = [goldens.key] if goldens else []
    made_from = json.dumps([base.id, wish.user, wish.database, wish.environment, *built], sort_keys=True)
    try:
        return _derive(made_from, check=check)[:16]
    except FileNotFoundError:
        return None


def _prepare(client: DockerClient, base: Image, wish: Wish, goldens: Goldens | None, key: str, timeout: float) -> Image:
    """Let an image do its first start, build the golden databases, stop it cleanly, and keep the outcome.

    The tag comes last: an image that has it is whole, and what has none is rubbish of an interrupted run.

    :raises CannotBePrepared: it ended, or has its data elsewhere.
    """
    labels = {MARK: key, KEY: key, BASE: wish.image, OWNER: goldens.owner if goldens else ""}
    # Extensions of golden databases may need the server's settings.
    more = {"labels": labels, "settings": wish.settings if goldens else {}, "variables": {"PGDATA": DATA}}
    with _first_start(client, base, wish, key, timeout, **more) as (container, address):
        _check_has_data(container, wish)
        if goldens:
            goldens.build(address, first_password(key))
        container.stop(timeout=int(timeout))
        _check_is_shut_down(container, wish)
        _deliver(container, "")
        config = base.attrs["Config"]
        labels = {**(config.get("Labels") or {}), **labels, KIND: PREPARED, MARK: ""}
        variables = dict(pair.split("=", 1) for pair in container.attrs["Config"]["Env"])
        variables["POSTGRES_PASSWORD_FILE"] = ""
        image = container.commit(conf={**config, "Labels": labels, "Env": list(map("=".join, variables.items()))})
    image.tag(REPOSITORY, key)
    _clear(client, key)  # Docker may finish the commit of a killed preparation only now
    return image


@contextlib.contextmanager
def _first_start(
    client: DockerClient,
    base: Image,
    wish: Wish,
    key: str,
    timeout: float,
    *,
    labels: t.Mapping[str, str] | None = None,
    settings: t.Mapping[str, str] | None = None,
    variables: t.Mapping[str, str] | None = None,
) -> t.Iterator[tuple[Container, _postgres.Address]]:
    """A container of an image that nobody else knows, once its server answers; it is removed at the end.

    :raises CannotBePrepared: it ended. Where nothing unusual was asked of it, the image is broken.
    :raises EnvironmentFailure: it does not answer as the official image does.
    """
    _clear(client, key)
    name = f"parallel-worktrees-preparing-{key}"
    ours = {**THROW_AWAY, **_postgres.SMALL_LOG, _postgres.IDENTITY_SETTING: name}
    container = _create(
        client,
        name,
        key,
        image=base.id,
        command=_command(base, {**(settings or {}), **ours}),
        environment={**wish.variables, **(variables or {})},
        labels={KIND: PREPARING, MARK: key, KEY: key, **(labels or {})},
        ports={SERVER_PORT: (wish.address, None)},
        mem_limit=wish.memory,
        shm_size=wish.shm_size,
    )
    try:
        _deliver(container, first_password(key))
        container.start()
        port = _await_first_start(container, wish, key, timeout)
        yield container, dataclasses.replace(wish.reached_at, port=port)
    finally:
        _remove(container)


def _unusable(wish: Wish, error: EnvironmentFailure) -> EnvironmentFailure:
    """What is wrong with an image, by what its first container did."""
    if isinstance(error, Ended):
        return CannotBePrepared(
            f"image {wish.image} does not start a server: {error.message}",
            hint=f"see what it says: docker run --rm -e POSTGRES_PASSWORD=any {wish.image}",
        )
    return EnvironmentFailure(
        f"image {wish.image} starts, but not as the official image postgres does: {error.message}",
        hint="it has to take POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD_FILE and arguments of postgres, and to "
        "listen on port 5432",
    )


def _await_first_start(container: Container, wish: Wish, key: str, timeout: float) -> int:
    """Wait for the server of a container that was just started, and return its port."""
    try:
        _check_is_running(container)
        port = int(container.ports[SERVER_PORT][0]["HostPort"])
        _postgres.wait_until_answers(
            dataclasses.replace(wish.reached_at, port=port),
            first_password(key),
            identity=str(container.name),
            timeout=timeout,
            still_alive=functools.partial(_check_is_running, container),
        )
    except EnvironmentFailure as error:
        raise _unusable(wish, error) from error
    return port


def _check_has_data(container: Container, wish: Wish) -> None:
    """
    :raises CannotBePrepared: the server has its data elsewhere, such as in a volume that no image can keep.
    """
    try:
        container.get_archive(f"{DATA}/PG_VERSION")
    except _sdk().errors.NotFound as error:
        raise CannotBePrepared(f"image {wish.image} does not keep its data where PGDATA says") from error


def _check_is_shut_down(container: Container, wish: Wish) -> None:
    code = container.wait()["StatusCode"]
    chunks, _stat = container.get_archive(f"{DATA}/global/pg_control")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        control = tar.extractfile("pg_control")
        state = struct.unpack_from("=i", b"" if control is None else control.read(), 16)[0]
    if code != 0 or state != SHUT_DOWN:
        words = _commands.last_words(container.logs(tail=_commands.LAST_WORDS).decode(errors="replace"))
        raise EnvironmentFailure(f"image {wish.image} did not stop cleanly (exit code {code}, state {state}): {words}")


def _clear(client: DockerClient, key: str) -> None:
    """Remove what interrupted preparations left."""
    for container in client.containers.list(all=True, filters={"label": [f"{KIND}={PREPARING}", f"{KEY}={key}"]}):
        _remove(container)
    for image in client.images.list(filters={"label": [f"{KIND}={PREPARED}", f"{KEY}={key}"], "dangling": True}):
        client.images.remove(image.id)


def first_password(made_for: str) -> str:
    """The password that a prepared image (its key) or a container (its mark) is born with."""
    return _derive(f"password of {made_for}", check=False)[:32]


def _derive(text: str, *, check: bool) -> str:
    """A keyed hash; the key is a secret of this user on this machine.

    :raises FileNotFoundError: there is no secret yet, and check mode may not make one.
    """
    path = os.path.join(_notes(), ".secret")
    if check:
        secret = _secrets.read(path)
    else:
        os.makedirs(_notes(), mode=0o700, exist_ok=True)
        with _files.locked(_notes()):
            secret = _secrets.ensure(path)
    return hmac.digest(secret.encode(), text.encode(), hashlib.sha256).hex()


# What status and prune ask for


def containers(client: DockerClient) -> list[dict[str, t.Any]]:
    """Every container of ours, whoever owns it."""
    with _asking("cannot list containers"):
        found = client.api.containers(all=True, filters={"label": f"{KIND}={DATABASE}"})
    described = []
    for row in found:
        wished = json.loads(row["Labels"][WISH])
        described.append(
            {
                "name": row["Names"][0].lstrip("/"),
                "owner": row["Labels"][OWNER],
                "port": wished["port"],
                "running": row["State"] == "running",
                "image": wished["image"],
            }
        )
    return sorted(described, key=lambda container: container["name"])


def is_there(name: str, volume: str | None, docker_host: str | None) -> bool:
    """Whether there is such a container, or what it keeps its data in."""
    with connected(docker_host) as client, _asking(f"cannot look for container {name}"):
        return _named(client, name) is not None or (volume is not None and _volume(client, volume) is not None)


def prepared_images(client: DockerClient) -> list[dict[str, t.Any]]:
    """Every prepared image, and what an interrupted preparation left, by key.

    ``containers`` names those made from it, ``owner`` is whose golden databases are in it, ``created`` is in seconds
    since the epoch, ``size`` in bytes and counts the image it was made from.
    """
    with _asking("cannot list prepared images"):
        images = client.api.images(filters={"label": f"{KIND}={PREPARED}"})
        users = client.api.containers(all=True, filters={"label": KEY})

    def entry(labels: dict[str, str], created: int, size: int) -> dict[str, t.Any]:
        about = {"key": labels[KEY], "base": labels[BASE], "owner": labels.get(OWNER) or None}
        return {**about, "created": created, "size": size, "containers": []}

    described = {row["Labels"][KEY]: entry(row["Labels"], row["Created"], row["Size"]) for row in images}
    for row in users:
        labels = row["Labels"]
        of_key = described.setdefault(labels[KEY], entry(labels, row["Created"], 0))
        if labels[KIND] == DATABASE:
            of_key["containers"].append(row["Names"][0].lstrip("/"))
    return sorted(described.values(), key=lambda one: one["key"])


def goldens(client: DockerClient) -> list[dict[str, t.Any]]:
    """The prepared images with golden databases, as ``_golden.superseded`` wants them."""
    return [
        {
            "name": one["key"],
            "owner": one["owner"],
            "built": one["created"],
            "complete": one["size"] > 0,
            "in_use": bool(one["containers"]),
        }
        for one in prepared_images(client)
        if one["owner"]
    ]


def remove_prepared(client: DockerClient, key: str) -> None:
    """Remove a prepared image and what is left of its preparation.

    :raises EnvironmentFailure: a container is made from it.
    """
    with _noted(f".{key}", check=False), _asking(f"cannot remove prepared image {key}"):
        _clear(client, key)
        if _image(client, f"{REPOSITORY}:{key}") is not None:
            client.images.remove(f"{REPOSITORY}:{key}")


# Notes


@dataclasses.dataclass(frozen=True)
class Note:
    """What we know of a container beside Docker, in a file of its name in the state folder.

    The file is locked while we work on the container. It holds a mark, which the container carries as a label, for as
    long as nobody was given the database; at other times it is empty, and gone when we are done.

    :ivar handle: what the file is locked with; of no use (-1) in check mode, which neither locks nor writes.
    """

    path: str
    handle: int

    @property
    def mark(self) -> str | None:
        try:
            with open(self.path, encoding="ascii") as file:
                return file.read() or None
        except FileNotFoundError:
            return None

    def begin(self) -> str:
        """Note that a container is about to be made. An interrupted attempt is continued under its mark."""
        mark = self.mark or secrets.token_hex(8)
        os.pwrite(self.handle, mark.encode(), 0)
        return mark

    def wipe(self) -> None:
        os.ftruncate(self.handle, 0)


def _notes() -> str:
    return os.path.join(state_folder(), "containers")


@contextlib.contextmanager
def _noted(name: str, *, check: bool) -> t.Iterator[Note]:
    path = os.path.join(_notes(), name)
    if check:
        yield Note(path, -1)
        return
    os.makedirs(_notes(), mode=0o700, exist_ok=True)
    while True:
        with _files.locked(path) as handle:
            if not _is_still_there(handle, path):
                continue
            try:
                yield Note(path, handle)
            finally:
                if os.fstat(handle).st_size == 0:
                    os.unlink(path)
            return


def _is_still_there(handle: int, path: str) -> bool:
    """Whether the file that we locked is the one at its path; who had it before us may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


# Docker


def daemon(docker_host: str | None) -> str | None:
    """The URL of the daemon to talk to; None for the default socket."""
    return docker_host or os.environ.get("DOCKER_HOST") or None


@contextlib.contextmanager
def connected(docker_host: str | None) -> t.Iterator[DockerClient]:
    """Talk to Docker.

    :arg docker_host: a URL; None for DOCKER_HOST, or the default socket.
    :raises EnvironmentFailure: it does not answer.
    """
    docker = _sdk()
    where = daemon(docker_host)
    variables = {**os.environ, **({"DOCKER_HOST": where} if where else {})}
    with _asking(f"Docker does not answer at {where or 'its default socket'}", hint=START_DOCKER):
        client = docker.from_env(environment=variables, version="auto", timeout=ANSWER_SECONDS)
        client.api.timeout = REQUEST_SECONDS
    with contextlib.closing(client):
        yield client


@contextlib.contextmanager
def _asking(doing: str, *, hint: str | None = None) -> t.Iterator[None]:
    """Tell what Docker answers when it does not do what it is asked."""
    docker = _sdk()
    try:
        yield
    except docker.errors.APIError as error:
        raise EnvironmentFailure(f"{doing}: {error.explanation or error}", hint=hint) from error
    except docker.errors.DockerException as error:
        raise EnvironmentFailure(f"{doing}: {error}", hint=hint) from error
    except _requests().RequestException as error:
        raise EnvironmentFailure(f"{doing}: Docker does not answer: {error}", hint=START_DOCKER) from error


@functools.cache
def _sdk() -> t.Any:
    """The docker module, which takes a tenth of a second to load."""
    try:
        import docker
    except ImportError as error:
        raise EnvironmentFailure(
            "the Python of this machine has no docker SDK", hint="pip install docker, or apt install python3-docker"
        ) from error
    return docker


def _requests() -> t.Any:
    """What the SDK talks HTTP with, and lets fail as it does."""
    import requests

    return requests


def _named(client: DockerClient, name: str) -> Container | None:
    """The container of this very name; Docker would also take the name for the start of an id."""
    docker = _sdk()
    try:
        container = client.containers.get(name)
    except docker.errors.NotFound:
        return None
    return container if container.name == name else None


def _of_owner(client: DockerClient, name: str, owner: str, *, late: bool = False) -> Container | None:
    """The task's container.

    :arg late: an interrupted run may have asked for one that is still to come up; give it a moment.
    :raises UserError: there is a container of this name that is not the task's.
    """
    with _asking(f"cannot look for container {name}"):
        found = _named(client, name)
        deadline = time.monotonic() + 1
        while found is None and late and time.monotonic() < deadline:
            time.sleep(0.05)
            found = _named(client, name)
    if found is None:
        return None
    is_ours = found.labels.get(KIND) in (DATABASE, SERVER)
    if is_ours and found.labels.get(OWNER) == owner:
        return found
    if is_ours:
        described = f"of image {_wished(found)['image']} belongs to {found.labels[OWNER]}"
    else:
        described = f"of image {found.attrs['Config']['Image']} is not one of ours"
    raise UserError(
        f"container {name} {described}; it is left alone",
        hint=f"look at it (docker inspect {name}); if nobody needs it: docker rm --force --volumes {name}",
    )


def _image(client: DockerClient, name: str) -> Image | None:
    docker = _sdk()
    try:
        return client.images.get(name)
    except docker.errors.ImageNotFound:
        return None


def _remove(container: Container) -> None:
    """Remove a container and its anonymous volumes, and see that it is gone."""
    docker = _sdk()
    deadline = time.monotonic() + REMOVAL_SECONDS
    with _asking(f"cannot remove container {container.name}"):
        while True:
            try:
                container.remove(force=True, v=True)
                return
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                being_removed = error.status_code == 409
                if not being_removed or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)
