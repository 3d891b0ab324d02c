# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bare machine becomes a DB host, over SSH: systemd, ZFS, PgBouncer and nftables are asked by their own programs."""

from __future__ import annotations

import json
import subprocess

import pytest
from integration.db_hosts import ROOT, DbHost
from integration.workspaces import wait_for

OTHERS = ["btrfs-progs", "xfsprogs"]
SERVICES = [
    "parallel-worktrees-firewall.service",
    "parallel-worktrees-pgbouncer.service",
    "parallel-worktrees-refresh.timer",
    "parallel-worktrees-start.service",
    "parallel-worktrees-sweep.timer",
]


@pytest.fixture(scope="module")
def bare(machines, tmp_path_factory):
    """A machine that nothing was done to, which this one may be a client of."""
    machine = machines()
    machine.on("systemctl", "is-system-running", "--wait")
    folder = tmp_path_factory.mktemp("db_host")
    return DbHost(folder, machine, "zfs", db_host_clients=[machine.gateway], db_host_packages=OTHERS)


@pytest.fixture(scope="module")
def planned(bare):
    """A dry run on the bare machine, and what it changed there."""
    bare.calls({"db_pool": {"store": "zfs"}})  # what the first connection leaves
    before = bare.everything()
    run = bare.run("db_host", "--check", "--diff").must()
    return run, before, bare.everything()


@pytest.fixture(scope="module")
def host(bare, planned):  # noqa: ARG001 - which comes before all
    bare.run("db_host").must()
    return bare


@pytest.fixture(scope="module")
def stranger(docker_client, postgres_image, network):
    """A machine in the same network that is no client."""
    container = docker_client.containers.run(postgres_image, ["sleep", "3600"], detach=True, init=True, network=network)
    yield container
    container.remove(force=True)


@pytest.fixture
def attach(host):
    """What makes a device of a file; the kernel, which is everybody's, has none of them left at the end."""
    devices = []

    def make(file):
        devices.append(host.on("losetup", "--find", "--show", file))
        return devices[-1]

    yield make
    host.on("losetup", "--detach", *devices)


def knock(host, stranger=None, port=6432, encryption="prefer"):
    """What psql is answered at PgBouncer's address."""
    address = f"host={host.machine.address} port={port} sslmode={encryption} connect_timeout=5"
    command = ["psql", f"{address} dbname=nothing user=nobody password=x", "-c", "select 1"]
    if stranger is not None:
        return stranger.exec_run(command).output.decode()
    return subprocess.run(command, check=False, capture_output=True, text=True).stderr


def services(host):
    """Those of ours that are at work and come back at the next start."""
    listed = host.on("systemctl", "show", "--property=Id,ActiveState,UnitFileState", "parallel-worktrees-*").split(
        "\n\n"
    )
    units = [dict(line.split("=", 1) for line in one.splitlines()) for one in listed]
    return sorted(one["Id"] for one in units if (one["ActiveState"], one["UnitFileState"]) == ("active", "enabled"))


def test_a_dry_run_touches_nothing(planned):
    run, before, after = planned
    assert run.changed
    assert after == before


def test_a_second_run_changes_nothing(host):
    assert host.run("db_host").must().changed == 0
    assert host.run("db_host", "--check").must().changed == 0


def test_the_pool_has_the_properties_that_suit_a_database(host):
    asked = ["zfs", "get", "-H", "-o", "value", "mountpoint,mounted,atime,recordsize,exec", "tank/parallel-worktrees"]
    assert host.on(*asked).split() == [ROOT, "yes", "off", "16K", "off"]
    assert host.on("stat", "-c", "%a %U", ROOT) == "711 root"


def test_services_are_at_work(host):
    assert services(host) == SERVICES
    assert host.on("systemctl", "is-enabled", "pgbouncer", may_fail=True) == "masked"
    assert host.on("pg_lsclusters", "--no-header") == ""
    assert host.on("ss", "-Hltn", "sport = :6432").split()[3::6][0].endswith(":6432")


def test_a_pgbouncer_that_somebody_built_keeps_its_unit(host):
    unit, program = "/etc/systemd/system/pgbouncer.service", "/usr/sbin/pgbouncer"
    host.on("sh", "-ec", f"mv {program} {program}.away; rm {unit}; echo '[Service]' >{unit}")
    try:
        assert host.run("db_host", "--check").must().changed == 0
    finally:
        host.on("sh", "-ec", f"mv {program}.away {program}; ln -sf /dev/null {unit}")


def test_a_branch_has_a_unit_with_limits(host):
    asked = "Type,User,MemoryMax,TasksMax,PrivateTmp,CapabilityBoundingSet,IPAddressAllow,IPAddressDeny"
    shown = host.on("systemctl", "show", f"--property={asked}", "parallel-worktrees-branch@one.service")
    properties = (line.split("=", 1) for line in shown.splitlines())
    assert {name: " ".join(sorted(value.split())) for name, value in properties} == {
        "Type": "notify",
        "User": "parallel-worktrees",
        "MemoryMax": str(512 << 20),
        "TasksMax": "124",
        "PrivateTmp": "no",
        "CapabilityBoundingSet": "",
        "IPAddressAllow": "127.0.0.0/8 ::1/128",
        "IPAddressDeny": "0.0.0.0/0 ::/0",
    }


def test_the_host_file_says_it_all(host):
    found = host.host_file()
    assert (found["store"], found["pool"]) == ("zfs", "tank/parallel-worktrees")
    assert (found["address"], found["port"]) == (host.machine.address, 6432)
    assert found["bin_directory"] == "/usr/lib/postgresql/15/bin"
    code = "from parallel_worktrees import _db_host; print(_db_host.load().branch.max_connections)"
    assert host.on("env", "PYTHONPATH=/usr/local/lib/parallel-worktrees", "python3", "-c", code) == "30"


def test_only_clients_are_let_in(host, stranger):
    """By the firewall, and by PgBouncer where there is none."""
    assert "no such database" in knock(host) or "authentication failed" in knock(host)
    assert "Connection refused" in knock(host, stranger)
    host.on("systemctl", "stop", "parallel-worktrees-firewall")
    try:
        assert "no such database" in knock(host) or "authentication failed" in knock(host)
        assert "login rejected" in knock(host, stranger)
    finally:
        host.on("systemctl", "start", "parallel-worktrees-firewall")
    assert "Connection refused" in knock(host, stranger)


def test_a_client_more_needs_no_restart(host, stranger):
    address = stranger.exec_run(["hostname", "--ip-address"]).output.decode().strip()
    since = host.on("systemctl", "show", "--property=MainPID", "parallel-worktrees-pgbouncer")
    host.run("db_host", db_host_clients=[host.machine.gateway, address]).must()
    assert "refused" not in knock(host, stranger)
    assert "rejected" not in knock(host, stranger)
    host.run("db_host").must()
    assert "Connection refused" in knock(host, stranger)
    assert host.on("systemctl", "show", "--property=MainPID", "parallel-worktrees-pgbouncer") == since


def test_what_cannot_be_a_host_file_is_refused(host):
    before = host.host_file()
    run = host.run("db_host", db_host_sources={"one": {"kind": "standby", "database": "one"}})
    assert run.code != 0
    assert "sources.one.host is missing" in run.output
    assert host.host_file() == before


@pytest.mark.parametrize("power_cut", [False, True], ids=["shut down", "power cut"])
def test_a_reboot(host, power_cut):
    host.machine.reboot(power_cut=power_cut)
    assert wait_for(lambda: services(host) != SERVICES, seconds=60) is False
    assert host.on("zfs", "get", "-H", "-o", "value", "mounted", "tank/parallel-worktrees") == "yes"
    assert "refused" not in knock(host)
    assert host.on("systemctl", "--failed", "--plain", "--no-legend") == ""


def test_what_is_not_ours_is_refused(host, attach):
    """A pool, a dataset, a file, a device in use, one with data, and a mount point with something in it."""
    host.on("sh", "-ec", "zfs create -o mountpoint=none tank/theirs; echo data > /var/lib/theirs; mkdir -p /srv/full/x")
    host.on(
        "sh", "-ec", "truncate -s 400M /var/lib/a /var/lib/b; echo data | dd of=/var/lib/b bs=1M seek=399 conv=notrunc"
    )
    host.on("sh", "-ec", "truncate -s 200M /var/lib/c /var/lib/d; zpool create -f -m none theirs /var/lib/c")
    loops = [attach(f"/var/lib/{name}") for name in "ab"]
    zfs, xfs = {"store": "zfs", "dataset": "new/ours", "root": "/srv/new"}, {"store": "xfs", "root": "/srv/new"}
    refusals = [
        ({**zfs, "dataset": "tank/theirs"}, "the dataset tank/theirs is there and is not ours"),
        (
            {**zfs, "dataset": "theirs/ours", "file": "/var/lib/d", "size": "1G"},
            "pool theirs is there and was not made by",
        ),
        ({**zfs, "dataset": "tonk/ours"}, "there is no pool tonk"),
        ({**zfs, "file": "/var/lib/theirs", "size": "1G"}, "/var/lib/theirs is not empty: there are data on it"),
        ({**zfs, "file": "/var/lib/c", "size": "1G"}, "it has zfs_member, labelled theirs"),
        ({**zfs, "devices": [loops[1]]}, f"{loops[1]} is not empty"),
        ({**xfs, "devices": ["/dev/none"]}, "there is no device /dev/none"),
        ({**xfs, "devices": ["/dev/null"]}, "/dev/null is no block device"),
        ({**zfs, "dataset": "tank/more", "root": "/srv/full"}, "/srv/full is no empty folder"),
        ({**zfs, "root": "/srv/a b"}, "absolute paths without spaces"),
        ({**zfs, "dataset": "tank"}, "'tank' is no dataset below a pool"),
        ({**zfs, "file": "/var/lib/e", "size": "large"}, "'large' is no size"),
    ]
    before = host.everything()
    answers = host.calls(*({"db_pool": given} for given, _words in refusals))
    for (given, words), answer in zip(refusals, answers, strict=True):
        assert (answer.get("failure"), words in str(answer["msg"])) == ("user", True), (given, answer)
    assert host.everything() == before
    host.on(
        "sh", "-ec", "zpool destroy theirs; zfs destroy tank/theirs; rm -r /srv/full /var/lib/[a-d] /var/lib/theirs"
    )


def test_a_dataset_in_a_pool_that_is_there(host):
    given = {"store": "zfs", "dataset": "tank/more", "root": "/srv/more", "properties": {"recordsize": "8K"}}
    first, again, other = host.calls(
        {"db_pool": given}, {"db_pool": given}, {"db_pool": {**given, "properties": {"recordsize": "32K"}}}
    )
    assert (first["changed"], again["changed"]) == (True, False)
    assert first["actions"] == ["create dataset tank/more, mounted at /srv/more"]
    assert other["actions"] == ["set recordsize=32768 of tank/more"]
    assert host.on("zfs", "get", "-H", "-o", "value", "recordsize", "tank/more") == "32K"
    host.on("sh", "-c", "until zfs destroy tank/more; do sleep 0.2; done 2>/dev/null")


def test_a_killed_run_is_taken_up(host):
    """While it wrote to a file, which is not empty any more; the note of it is all that tells."""
    host.on("sh", "-ec", "truncate -s 400M /var/lib/half; echo half | dd of=/var/lib/half conv=notrunc 2>&1")
    note = json.dumps(["/var/lib/half"])
    host.on("tee", "/etc/parallel-worktrees/pool-in-the-making.json", stdin=note)
    given = {"store": "zfs", "dataset": "half/ours", "root": "/srv/half", "file": "/var/lib/half", "size": "400M"}
    first, again = host.calls({"db_pool": given}, {"db_pool": given})
    assert (first["changed"], again["changed"]) == (True, False), first
    assert "failed" not in again, again
    host.on("test", "!", "-e", "/etc/parallel-worktrees/pool-in-the-making.json")
    host.on("sh", "-ec", "until zpool destroy half; do sleep 0.2; done 2>/dev/null; rm /var/lib/half")


@pytest.mark.parametrize("store", ["btrfs", "xfs"])
def test_a_pool_of_another_file_system(host, store, attach):
    """On a file and on a device; it is there after the next start."""
    root, file = f"/srv/{store}", f"/var/lib/{store}"
    given = {"store": store, "root": root, "file": file, "size": "400M"}
    first, again = host.calls({"db_pool": given}, {"db_pool": given})
    assert (first["changed"], again["changed"]) == (True, False), first
    assert "failed" not in again, again
    assert host.on("findmnt", "-no", "FSTYPE", root) == store
    host.on("sh", "-ec", f"echo data > {root}/one; cp --reflink=always {root}/one {root}/two")

    host.on("umount", root)
    (third,) = host.calls({"db_pool": given})
    assert third["actions"] == [f"mount {root}"]
    host.machine.reboot()
    assert wait_for(lambda: not host.on("findmnt", "-no", "FSTYPE", root, may_fail=True)) is False
    assert host.on("cat", f"{root}/two") == "data"

    host.on("truncate", "-s", "400M", f"{file}.device")
    device = attach(f"{file}.device")
    beside = {"store": store, "root": f"{root}-device", "devices": [device]}
    first, again, refused = host.calls(
        {"db_pool": beside}, {"db_pool": beside}, {"db_pool": {**beside, "root": f"{root}-other"}}
    )
    assert (first["changed"], again["changed"]) == (True, False), first
    assert "failed" not in again, again
    assert host.on("findmnt", "-no", "SOURCE", f"{root}-device") == device
    assert refused["failure"] == "user"
    assert f"{device} is mounted at {root}-device already" in refused["msg"]
    host.on("sh", "-ec", f"umount {root} {root}-device; sed -i '\\#{root}#d' /etc/fstab")


@pytest.fixture(scope="module")
def dump(stranger):
    """A dump that PostgreSQL has written."""
    script = """
        initdb --no-sync --auth=trust /tmp/data && pg_ctl --pgdata /tmp/data --options '-k /tmp -h ""' --wait start
        createdb --host /tmp shop
        psql --host /tmp --command "create table goods as select 'tea' as name" shop
        pg_dump --host /tmp --format custom --file /tmp/dump shop
    """
    done = stranger.exec_run(["gosu", "postgres", "sh", "-ec", script])
    assert done.exit_code == 0, done.output
    return b"".join(stranger.get_archive("/tmp/dump")[0])


def test_a_source_is_set_up_refreshed_and_told_of(host, dump):
    assert host.machine.container.put_archive("/srv", dump)
    host.on("chmod", "600", "/srv/dump")
    source = {"kind": "dump", "dump": "/srv/dump", "database": "shop"}
    given = {"db_host_sources": {"shop": source}}
    assert host.run("db_host", "--check", **given).must().changed
    host.run("db_host", **given).must()
    assert host.run("db_host", **given).must().changed == 0

    told = host.run("db_status", db_host="box", format="json").must()
    report = json.loads(told.stdout)
    assert [(one["name"], len(one["goldens"])) for one in report["sources"]] == [("shop", 1)]
    assert (report["branches"], report["problems"]) == ([], [])
    host.run("db_refresh", source="shop").must()
    told = host.run("db_status", db_host="box").must()
    assert "source shop (dump): 2 goldens, the newest" in told.stdout
    assert "no branches" in told.stdout

    host.on("systemctl", "start", "--wait", "parallel-worktrees-refresh.service", "parallel-worktrees-sweep.service")
    assert len(host.on("ls", f"{ROOT}/goldens/shop").split()) == 2
    (gone,) = host.calls({"db_source": {"name": "shop", "state": "absent"}})
    assert gone["changed"]


PRIMARY = """
cd / && programs=/usr/lib/postgresql/15/bin && run="runuser -u backup --"
if [ ! -e /var/lib/primary ]; then
    install -d -o backup /var/lib/primary
    $run $programs/initdb --no-sync --auth=trust --username=postgres /var/lib/primary/data >/dev/null
fi
$run $programs/pg_ctl --pgdata /var/lib/primary/data --log /var/lib/primary/log --options '-p 5999 -k /tmp' --wait start
"""


@pytest.fixture(scope="module")
def live(host):
    """The variables of a source that follows a primary."""
    host.on("sh", "-ec", PRIMARY)
    sql = "create role copy login replication; create table goods as select 'tea' as name"
    host.on("psql", "-XAtq", "-h", "/tmp", "-p", "5999", "-U", "postgres", "-c", sql)
    host.on("sh", "-c", "umask 077; echo secret > /etc/live.password")
    source = {
        "kind": "standby",
        "host": "127.0.0.1",
        "port": 5999,
        "user": "copy",
        "password_file": "/etc/live.password",
        "slot": "live",
        "database": "postgres",
    }
    given = {"db_host_sources": {"live": source}}
    host.run("db_host", **given).must()
    return given


ESCAPE = """
try() {{ what=$1; shift; if "$@" >/dev/null 2>&1; then echo "$what"; fi; }}
cd /
pool=/srv/parallel-worktrees state=/var/lib/parallel-worktrees run=/run/parallel-worktrees
try "own data" cat $pool/branches/escaped/data/PG_VERSION
try "data of another branch" cat $pool/branches/other/data/PG_VERSION
try "verifier of another branch" cat $pool/branches/other/user.scram
try "sources" ls $pool/sources
try "data of a source" cat $pool/sources/live/data/PG_VERSION
try "snapshots of a source" ls $pool/sources/live/.zfs/snapshot
try "goldens" ls $pool/goldens/live
try "data of a golden" cat $pool/{golden}/data/PG_VERSION
try "snapshot of a golden" cat $pool/{golden}/.zfs/snapshot/ready/data/PG_VERSION
try "password for the primary" cat $state/sources/live.pgpass
try "socket of a source" psql -h $run/.sources/live -U postgres -c "select 1" postgres
try "process of a source" kill -0 {source}
try "files of the process of a source" ls /proc/{source}/fd/
try "folder of the process of a source" cat /proc/{source}/cwd/PG_VERSION
try "verifiers of PgBouncer" cat $state/pgbouncer/users.txt
try "password of the probe" cat $state/pgbouncer/probe
try "console of PgBouncer" psql -h $run/pgbouncer -p 6432 -U pgbouncer -c "show config" pgbouncer
try "process of PgBouncer" kill -0 {pooler}
try "locks" ls $state/locks
try "setuid" sh -c "cp /bin/true /tmp/escaped-$$; chmod u+s /tmp/escaped-$$"
try "namespaces" unshare --user true
try "network" timeout 2 bash -c "exec 3<>/dev/tcp/{address}/22"
"""
OWN = ["own data", "data of another branch"]


def pid_of(host, unit):
    return host.on("systemctl", "show", "--property=MainPID", "--value", f"parallel-worktrees-{unit}")


def reached(host, user=None):
    """What another user, or a superuser of the branch ``escaped``, reaches by the programs that its server runs."""
    (told,) = host.calls({"db_source_info": {"name": "live"}})
    about = {"golden": told["sources"][0]["golden"], "address": host.machine.address}
    script = ESCAPE.format(**about, source=pid_of(host, "source@live"), pooler=pid_of(host, "pgbouncer"))
    host.on("sh", "-c", "cat > /usr/local/escape.sh; chmod 755 /usr/local/escape.sh", stdin=script)
    if user is not None:
        return host.on("runuser", "-u", user, "--", "sh", "/usr/local/escape.sh").splitlines()
    port = host.on("sh", "-c", "ls -A /run/parallel-worktrees/escaped | sed -n 's/^.s.PGSQL.\\([0-9]*\\)$/\\1/p'")
    sql = "create temp table got (line text); copy got from program 'sh /usr/local/escape.sh'; select line from got"
    words = ["psql", "-XAtq", "-h", "/run/parallel-worktrees/escaped", "-p", port, "-U", "postgres", "postgres", "-c"]
    return host.on(*words, sql).splitlines()


AS_BEFORE = """
cd /srv/parallel-worktrees; user=parallel-worktrees
systemctl stop 'parallel-worktrees-branch@*' 'parallel-worktrees-source@*' parallel-worktrees-pgbouncer
state=/var/lib/parallel-worktrees
chown -R $user sources/*/data goldens/*/*/data $state/sources/* $state/pgbouncer
chmod 755 sources goldens $state/sources
rm -rf /run/parallel-worktrees/*
for unit in branch@ source@ pgbouncer; do
    file=/etc/systemd/system/parallel-worktrees-$unit.service
    folder=${unit%@}; case $unit in branch@) folder=%i;; source@) folder=.sources/%i;; esac
    sed -i "/^CapabilityB/,/^UMask/d; /^ExecStartPre/d; /^Runtime/d; /^IPAddress/d; /^NoNew/d
        s#^User=.*#User=$user\\nRuntimeDirectory=parallel-worktrees/$folder\\nRuntimeDirectoryMode=0750#" $file
done
for data in branches/*/data; do
    sed -i "s/^unix_socket_permissions.*/unix_socket_permissions = '0700'/" $data/postgresql.auto.conf
    echo 'parallel_worktrees "parallel-worktrees" "postgres"' >> $data/pg_ident.conf
done
systemctl daemon-reload
systemctl start parallel-worktrees-branch@escaped parallel-worktrees-branch@other parallel-worktrees-source@live
systemctl start parallel-worktrees-pgbouncer
"""


def test_who_gets_out_of_a_branch_reaches_no_source_and_no_pgbouncer(host, live):
    """On a host that an older version has set up, all of it is reached until db_host has run there again."""
    made = [{"name": name, "owner": "shop/x@0123abcd", "password": "secret"} for name in ("escaped", "other")]
    for answer in host.calls(*({"pg_branch": one} for one in made)):
        assert "failed" not in answer, answer
    host.on("sh", "-ec", AS_BEFORE)
    before = reached(host)
    assert {"data of a source", "data of a golden", "password for the primary", "console of PgBouncer"} <= {*before}

    host.run("db_host", **live).must()
    assert reached(host) == OWN
    poolers = {*reached(host, "parallel-worktrees-pgbouncer")}
    assert {*before} <= {*reached(host, "root"), *poolers}  # each of these is there for who may
    assert poolers & {"own data", "data of a source", "data of a golden", "password for the primary"} == set()
    for name in ("escaped", "other"):
        url = f"postgresql://{name}:secret@127.0.0.1:6432/{name}"
        assert host.on("psql", url, "-Atc", "select name from goods") == "tea"
    assert host.run("db_host", **live).must().changed == 0

    for unit in ("branch@escaped", "source@live", "pgbouncer"):  # or datasets could stay busy
        assert host.on("readlink", f"/proc/{pid_of(host, unit)}/ns/mnt") == host.on("readlink", "/proc/1/ns/mnt")
    for answer in host.calls(*({"pg_branch": {**one, "state": "absent"}} for one in made)):
        assert answer["changed"], answer


def test_a_standby_is_a_unit_that_comes_back(host, live):
    def streams():
        (told,) = host.calls({"db_source_info": {"name": "live"}})
        (about,) = told.get("sources", [{}])  # none while the pool is not mounted yet
        return (about.get("standby") or {}).get("streaming")

    unit = "parallel-worktrees-source@live"
    assert host.on("systemctl", "is-active", unit) == "active"
    assert host.run("db_host", **live).must().changed == 0
    assert wait_for(lambda: not streams(), seconds=300) is False

    host.machine.reboot()
    host.on("sh", "-ec", PRIMARY)
    assert wait_for(lambda: not streams(), seconds=300) is False
    host.run("db_refresh", source="live").must()
    assert len(host.on("ls", f"{ROOT}/goldens/live").split()) == 2


OLD_PGBOUNCER = """
pkill --exact pgbouncer; while pgrep --exact pgbouncer; do sleep 0.1; done
chown -R parallel-worktrees /run/parallel-worktrees/pgbouncer /var/lib/parallel-worktrees/pgbouncer
runuser -u parallel-worktrees -- pgbouncer -q -d /var/lib/parallel-worktrees/pgbouncer/pgbouncer.ini
"""
"""As an older version ran it."""


def test_cron_and_processes_in_the_place_of_systemd(machines, tmp_path):
    """Which here starts nothing but cron."""
    machine = machines()
    machine.on("systemctl", "is-system-running", "--wait")
    host = DbHost(tmp_path, machine, "xfs", db_host_supervisor="process", db_host_clients=[machine.gateway])
    host.run("db_host").must()
    assert host.on("systemctl", "is-enabled", "pgbouncer", may_fail=True) == "masked"
    assert host.run("db_host").must().changed == 0
    assert host.on("systemctl", "list-unit-files", "--no-legend", "parallel-worktrees*", may_fail=True) == ""
    assert "refused" not in knock(host)

    pid = host.on("pgrep", "--exact", "pgbouncer")
    host.run("db_host", db_host_clients=["192.0.2.0/24"]).must()
    assert "Connection refused" in knock(host)
    host.run("db_host").must()
    assert host.on("pgrep", "--exact", "pgbouncer") == pid

    host.on("sh", "-ec", OLD_PGBOUNCER)
    host.run("db_host").must()
    assert host.on("sh", "-c", "ps -o user:40= -p $(pgrep -x pgbouncer)") == "parallel-worktrees-pgbouncer"
    assert host.run("db_host").must().changed == 0
    assert "refused" not in knock(host)

    key, certificate = ("/etc/parallel-worktrees/key.pem", "/etc/parallel-worktrees/certificate.pem")
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=box -keyout {key} -out {certificate}"
    host.on("sh", "-ec", f"{made} 2>/dev/null; chown parallel-worktrees-pgbouncer {key}")
    host.run("db_host", db_host_port=6433, db_host_tls_certificate=certificate, db_host_tls_key=key).must()
    assert "Connection refused" in knock(host)
    assert "refused" not in knock(host, port=6433, encryption="require")
    assert "rejected" not in knock(host, port=6433, encryption="require")
    assert "login rejected" in knock(host, port=6433, encryption="disable")
    host.run("db_host").must()

    machine.reboot()
    assert wait_for(lambda: "refused" in knock(host), seconds=60) is False
    assert "parallel_worktrees" in host.on("nft", "list", "tables")
    assert "parallel_worktrees._sources refresh" in host.on("cat", "/etc/cron.d/parallel-worktrees")
