# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real things that tests use: Docker, a PostgreSQL image, a host behind SSH, PostgreSQL's programs.

A test that asks for one of them fails where it is missing: a run that skipped them would prove little.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import time
import typing as t
import uuid

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir
from ports import free_port

if t.TYPE_CHECKING:
    import docker

CLONE = pathlib.Path(__file__).resolve().parent.parent
IMAGES = "parallel-worktrees-test"
BUILD = "run: scripts/test ready"

set_hypothesis_home_dir(CLONE / ".work" / "cache" / "hypothesis")
# No deadline: how long an example takes on a shared machine says nothing of the code.
hypothesis.settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("house")


def pytest_configure() -> None:
    """Let a run that is told to stop remove what it has started."""
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("told to stop", 143))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> c.Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let nothing be skipped in CI, where all is there that a test could ask for."""
    report = yield
    if report.skipped and "CI" in os.environ and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session", autouse=True)
def _own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> c.Iterator[None]:
    """Keep tests from the settings, the state and the repository of who runs them."""
    home = tmp_path_factory.mktemp("surroundings")
    (home / "gitconfig").write_text(
        "[user]\nname = Tester\nemail = tester@example.invalid\n[init]\ndefaultBranch = main\n", encoding="utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("GIT_", "PG"))]:
            patch.delenv(name)
        patch.setenv("GIT_CONFIG_GLOBAL", str(home / "gitconfig"))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        yield


@pytest.fixture(scope="session")
def docker_client() -> c.Iterator[docker.DockerClient]:
    """The Docker engine that answers here."""
    try:
        import docker

        client = docker.from_env()
        client.ping()
    except Exception as error:  # noqa: BLE001 - whatever the reason, it is told
        pytest.fail(f"no Docker engine answers ({error})\n{BUILD}", pytrace=False)
    yield client
    client.close()


def _image(client: docker.DockerClient, name: str) -> str:
    tag = f"{IMAGES}/{name}"
    if not client.images.list(name=tag):
        pytest.fail(f"Docker has no image {tag}\n{BUILD}", pytrace=False)
    return tag


@pytest.fixture(scope="session")
def postgres_image(docker_client: docker.DockerClient) -> str:
    """The tag of an image that takes the options of the official ``postgres:15``."""
    return _image(docker_client, "postgres:15")


@dataclasses.dataclass(frozen=True)
class SshHost:
    """A Debian machine that lets this key in; sudo asks nothing.

    The image ``host`` has PostgreSQL's programs, git and python3-psycopg2, ``db-host`` nothing but systemd.
    """

    host: str
    port: int
    user: str
    key: pathlib.Path
    container: t.Any

    @property
    def options(self) -> list[str]:
        """What ssh and git need to be told beside host, port and user."""
        return [
            *("-i", str(self.key)),
            *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"),
            *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={self.key.with_name('known_hosts')}"),
        ]

    def command(self, *command: str) -> list[str]:
        """An ssh command that runs ``command`` there."""
        return ["ssh", *self.options, "-p", str(self.port), f"{self.user}@{self.host}", *command]

    def inventory(self) -> dict[str, t.Any]:
        """The variables with which Ansible reaches it."""
        return {
            "ansible_connection": "ssh",
            "ansible_host": self.host,
            "ansible_port": self.port,
            "ansible_user": self.user,
            "ansible_ssh_common_args": " ".join(self.options),
            "ansible_python_interpreter": "/usr/bin/python3",
        }

    @property
    def address(self) -> str:
        """Its address in Docker's network, which this machine reaches."""
        return self._in_network("IPAddress")

    @property
    def gateway(self) -> str:
        """The address of this machine there."""
        return self._in_network("Gateway")

    def _in_network(self, fact: str) -> str:
        self.container.reload()
        ((_name, network),) = self.container.attrs["NetworkSettings"]["Networks"].items()
        return str(network[fact])

    def on(self, *command: str, stdin: str | None = None, may_fail: bool = False) -> str:
        """What a command of root's says there."""
        line = self.command("sudo", "--non-interactive", shlex.join(command))
        done = subprocess.run(line, input=stdin, check=False, capture_output=True, text=True)
        assert may_fail or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return (done.stdout + done.stderr).strip()

    def reboot(self, *, power_cut: bool = False) -> None:
        """Shut it down, or have it lose its power, and start it again."""
        if power_cut:
            self.container.kill()
        else:
            self.container.stop(timeout=60)
        self.container.start()
        self.wait()

    def wait(self) -> None:
        """Until its SSH server lets the key in."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.container.reload()
            if self.container.status == "exited":
                break
            try:
                # Docker's proxy accepts before the server does: only the server's greeting says that it is there.
                with socket.create_connection((self.host, self.port), timeout=2) as connection:
                    greeting = connection.recv(4)
                if greeting == b"SSH-" and subprocess.run(self.command("true"), check=False).returncode == 0:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        pytest.fail(f"the SSH host did not answer:\n{self.container.logs().decode()}", pytrace=False)


@pytest.fixture(scope="session")
def ssh_key(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The private key that machines let in; the public one lies beside it."""
    key = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key


@pytest.fixture(scope="session")
def ssh_host(docker_client: docker.DockerClient, ssh_key: pathlib.Path) -> c.Iterator[SshHost]:
    """A container with an SSH server, removed at the end."""
    with _ssh_host(docker_client, ssh_key, "host:12", init=True) as host:
        yield host


@pytest.fixture(scope="session")
def debian_13(docker_client: docker.DockerClient, ssh_key: pathlib.Path) -> c.Iterator[SshHost]:
    """The same with Debian 13, that is Python 3.13 and PostgreSQL 17."""
    with _ssh_host(docker_client, ssh_key, "host:13", init=True) as host:
        yield host


@pytest.fixture(scope="session")
def network(docker_client: docker.DockerClient) -> c.Iterator[str]:
    """The name of a network of these tests alone, in which a machine has the same address after a reboot."""
    made = docker_client.networks.create(f"{IMAGES}-{uuid.uuid4().hex[:8]}", labels={IMAGES: "network"})
    yield made.name
    made.remove()


@pytest.fixture(scope="session")
def machines(
    docker_client: docker.DockerClient, ssh_key: pathlib.Path, network: str
) -> c.Iterator[c.Callable[..., SshHost]]:
    """What boots bare machines, each with systemd and free to mount file systems; all are removed at the end.

    It takes the version of Debian.
    """
    options = {
        "cap_add": ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"],
        "security_opt": ["apparmor=unconfined", "seccomp=unconfined"],
        "devices": ["/dev/fuse"],
        "device_cgroup_rules": ["b 7:* rmw", "c 10:237 rmw"],  # loop devices
        "tmpfs": {"/run": "", "/run/lock": ""},
        "volumes": ["/sys/fs/cgroup:/sys/fs/cgroup:rw"],
        "shm_size": "1g",
        "network": network,
    }
    with contextlib.ExitStack() as stack:
        yield lambda version=12: stack.enter_context(_ssh_host(docker_client, ssh_key, f"db-host:{version}", **options))


@contextlib.contextmanager
def _ssh_host(client: docker.DockerClient, key: pathlib.Path, image: str, **options: t.Any) -> c.Iterator[SshHost]:
    port = free_port()  # not one of Docker's choice, which would be another after a restart
    container = client.containers.run(
        _image(client, image),
        detach=True,
        environment={"SSH_PUBLIC_KEY": key.with_suffix(".pub").read_text(encoding="utf-8").strip()},
        ports={"22/tcp": ("127.0.0.1", port)},
        labels={IMAGES: image.partition(":")[0]},
        **options,
    )
    host = SshHost("127.0.0.1", port, "worker", key, container)
    try:
        host.wait()
        yield host
    finally:
        container.remove(force=True, v=True)


@pytest.fixture(scope="session")
def pg_binaries() -> pathlib.Path:
    """The folder with the programs of this machine's newest PostgreSQL (``initdb``, ``postgres``)."""
    found = [path.parent for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        pytest.fail("no PostgreSQL under /usr/lib/postgresql\nrun: apt install postgresql", pytrace=False)
    return max(found, key=lambda folder: float(folder.parent.name))
