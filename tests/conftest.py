# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real things that tests use: Docker, a PostgreSQL image, a host behind SSH, PostgreSQL's programs.

A test that asks for one of them fails where it is missing: a run that skipped them would prove little.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import time
import typing as t

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

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
    """Let a run that is told to stop take back what it has started."""
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
    """A Debian machine that lets this key in: PostgreSQL's programs, git, python3-psycopg2; sudo asks nothing."""

    host: str
    port: int
    user: str
    key: pathlib.Path
    container: str

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


@pytest.fixture(scope="session")
def ssh_host(docker_client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> c.Iterator[SshHost]:
    """A container with an SSH server, removed at the end."""
    key = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    container = docker_client.containers.run(
        _image(docker_client, "host:12"),
        detach=True,
        init=True,
        environment={"SSH_PUBLIC_KEY": key.with_suffix(".pub").read_text(encoding="utf-8").strip()},
        ports={"22/tcp": ("127.0.0.1", 0)},
        labels={IMAGES: "host"},
    )
    try:
        yield SshHost("127.0.0.1", _wait_for_ssh(container), "worker", key, str(container.id))
    finally:
        container.remove(force=True, v=True)


def _wait_for_ssh(container: t.Any) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        container.reload()
        if container.status == "exited":
            break
        port = int((container.ports.get("22/tcp") or [{"HostPort": 0}])[0]["HostPort"])
        try:
            # Docker's proxy accepts before the server does: only the server's greeting says that it is there.
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                if connection.recv(4) == b"SSH-":
                    return port
        except OSError:
            pass
        time.sleep(0.05)
    return pytest.fail(f"the SSH host did not answer:\n{container.logs().decode()}", pytrace=False)


@pytest.fixture(scope="session")
def pg_binaries() -> pathlib.Path:
    """The folder with the programs of this machine's newest PostgreSQL (``initdb``, ``postgres``)."""
    found = [path.parent for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        pytest.fail("no PostgreSQL under /usr/lib/postgresql\nrun: apt install postgresql", pytrace=False)
    return max(found, key=lambda folder: float(folder.parent.name))
