# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import multiprocessing
import pathlib
import socket
import sqlite3
import typing as t

import pytest
from clocks import Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ports import free_base

from ansible_collections.parallel.worktrees.plugins.module_utils import _leases, _registry, _registry_file
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError

DEFAULTS = {key: spec.get("default") for key, spec in _leases.ARGUMENT_SPEC.items()}
BASE = free_base()


def lease(registry: pathlib.Path, *owners: str, check: bool = False, **more: t.Any) -> dict[str, t.Any]:
    params = {
        **DEFAULTS,
        "registry": str(registry),
        "workspace": "w",
        "owners": list(owners),
        "ports": {"database": {"base": BASE}},
        "slots": {"first": 1, "last": 9, "strategy": "lowest"},
        **more,
    }
    return _leases.operation(params, check=check)


def slots(result: dict[str, t.Any]) -> list[int]:
    return [given["slot"] for given in result["leases"]]


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "registry.sqlite3"


def test_the_lowest_free_slot_is_given_and_given_again(registry: pathlib.Path) -> None:
    assert slots(lease(registry, "A")) == [1]
    assert slots(lease(registry, "B")) == [2]
    assert lease(registry, "A", state="absent")["changed"]
    assert slots(lease(registry, "C")) == [1]


def test_ports_follow_from_the_slot(registry: pathlib.Path) -> None:
    ports = {"web": {"base": BASE, "stride": 100}, "api": {"base": BASE + 2}}
    given = lease(registry, "A", "B", ports=ports)["leases"]
    assert [one["ports"] for one in given] == [
        {"web": BASE + 100, "api": BASE + 3},
        {"web": BASE + 200, "api": BASE + 4},
    ]


def test_no_two_ports_of_a_slot_are_one_number(registry: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"lease_ports.a and lease_ports.b would be one number in every slot"):
        lease(registry, "A", ports={"a": {"base": BASE}, "b": {"base": BASE}})
    result = lease(registry, "A", ports={"a": {"base": BASE, "stride": 2}, "b": {"base": BASE + 1}})
    assert slots(result) == [2]
    assert result["leases"][0]["passed_over"] == [{"slot": 1, "reason": f"port {BASE + 2} would be both a and b"}]


def test_what_is_renewed_is_never_another(registry: pathlib.Path) -> None:
    first = lease(registry, "A", expires_after=60)["leases"]
    again = lease(registry, "A", state="renewed", expires_after=600)
    assert not again["changed"]
    assert again["leases"][0]["ports"] == first[0]["ports"]
    assert again["leases"][0]["expires"] > first[0]["expires"] + 500
    with contextlib.closing(sqlite3.connect(registry, isolation_level=None)) as connection:
        connection.execute("update lease set expires = 1")
    assert slots(lease(registry, "B")) == [1]
    with pytest.raises(UserError, match=r"A of workspace w has no lease any more"):
        lease(registry, "A", state="renewed", expires_after=600)
    assert slots(lease(registry, "A")) == [2]


def test_a_second_call_changes_nothing(registry: pathlib.Path) -> None:
    first = lease(registry, "A")
    second = lease(registry, "A")
    assert (first["changed"], second["changed"]) == (True, False)
    assert slots(first) == slots(second)
    assert not lease(registry, "Z", state="absent")["changed"]


def test_check_mode_says_what_it_would_give_and_touches_nothing(registry: pathlib.Path) -> None:
    assert slots(lease(registry, "A", check=True)) == [1]
    assert not registry.exists()
    lease(registry, "A")
    before = registry.read_bytes()
    assert slots(lease(registry, "B", check=True)) == [2]
    assert registry.read_bytes() == before


def test_all_taken_names_the_holders(registry: pathlib.Path) -> None:
    lease(registry, *(f"t{number}" for number in range(9)))
    with pytest.raises(UserError, match=r"1: t0, .*9: t8") as refused:
        lease(registry, "late")
    assert "teardown" in str(refused.value.hint)


def test_all_or_none(registry: pathlib.Path) -> None:
    with pytest.raises(UserError):
        lease(registry, *(f"t{number}" for number in range(10)))
    assert slots(lease(registry, "only")) == [1]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"])
def test_a_port_of_a_foreign_listener_is_passed_over_and_told(registry: pathlib.Path, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, BASE + 1))
        listener.listen()
        result = lease(registry, "A")
    assert slots(result) == [2]
    assert f"port {BASE + 1}" in result["leases"][0]["passed_over"][0]["reason"]


def test_no_two_workspaces_get_the_same_port(registry: pathlib.Path) -> None:
    lease(registry, "A")
    result = lease(registry, "A", workspace="other", ports={"web": {"base": BASE}})
    assert slots(result) == [2]
    assert "leased to A of workspace w" in result["leases"][0]["passed_over"][0]["reason"]


def test_hash_asks_for_the_same_slot_and_tells_where_it_is_taken(registry: pathlib.Path) -> None:
    hashed = {"first": 0, "last": 14, "strategy": "hash"}
    first = slots(lease(registry, "A", slots=hashed))
    lease(registry, "A", state="absent")
    assert slots(lease(registry, "A", slots=hashed)) == first
    same = next(name for name in (f"n{number}" for number in range(999)) if _first(name) == first[0])
    result = lease(registry, same, slots=hashed)
    assert slots(result) != first
    assert "held by A" in result["leases"][0]["passed_over"][0]["reason"]


def _first(name: str) -> int:
    return _leases._candidates(name, {"first": 0, "last": 14, "strategy": "hash"}, None)[0]


def test_a_fixed_slot_is_that_or_none(registry: pathlib.Path) -> None:
    assert slots(lease(registry, "A", slot=5)) == [5]
    with pytest.raises(UserError, match="slot 5 is not free"):
        lease(registry, "B", slot=5)
    with pytest.raises(UserError, match="not one of 1 to 9"):
        lease(registry, "B", slot=10)


@pytest.mark.parametrize(
    ("ports", "slots", "words"),
    [
        ({"web": {"base": 65500}}, {"first": 1, "last": 99}, "ports go from 1 to 65535"),
        ({"web": {"base": -5}}, {}, "ports go from 1 to 65535"),
        ({"web": {"stride": 2}}, {}, "lease_ports.web is"),
        ({"web": 3000}, {}, "lease_ports.web is"),
        ({"web": {"base": "x"}}, {}, "whole numbers"),
        ({}, {"first": 5, "last": 1}, "no range"),
    ],
)
def test_ports_and_slots_that_cannot_be(
    registry: pathlib.Path, ports: dict[str, t.Any], slots: dict[str, t.Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        lease(registry, "A", ports=ports, slots=slots)


def test_what_was_passed_over_is_kept_with_the_lease(registry: pathlib.Path) -> None:
    lease(registry, "A", workspace="other")
    first = lease(registry, "A")
    assert [over["slot"] for over in first["leases"][0]["passed_over"]] == [1]
    assert "slot 1 was passed over" in first["summary"]
    second = lease(registry, "A")
    assert second["leases"] == first["leases"]
    assert second["summary"] is None
    assert not second["changed"]


# Leases that end


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, 1_000_000)


def test_a_lease_that_has_ended_is_given_to_the_next_who_asks(registry: pathlib.Path, clock: Clock) -> None:
    assert lease(registry, "A", expires_after=60)["leases"][0]["expires"] == 1_000_060
    clock.pass_by(59)
    assert slots(lease(registry, "B")) == [2]
    clock.pass_by(2)
    result = lease(registry, "C")
    assert slots(result) == [1]
    assert "slot 1 of A (w) was free again" in result["summary"]
    assert slots(lease(registry, "A")) == [3]
    clock.pass_by(10**9)
    assert slots(lease(registry, "B")) == [2]


def test_use_renews_a_lease_for_as_long_as_before_and_is_no_change(registry: pathlib.Path, clock: Clock) -> None:
    lease(registry, "A", expires_after=60)
    for _use in range(3):
        clock.pass_by(59)
        used = lease(registry, "A")
        assert not used["changed"]
        assert used["diff"] == []
    assert used["leases"][0]["expires"] == 1_000_000 + 3 * 59 + 60
    # One that has ended and that nobody has taken is still its owner's.
    clock.pass_by(1000)
    assert slots(lease(registry, "A")) == [1]
    assert lease(registry, "A", expires_after=5)["leases"][0]["expires"] == 1_000_000 + 3 * 59 + 1000 + 5


def test_check_mode_neither_renews_nor_ends_a_lease(registry: pathlib.Path, clock: Clock) -> None:
    lease(registry, "A", expires_after=60)
    clock.pass_by(61)
    before = registry.read_bytes()
    assert slots(lease(registry, "B", check=True)) == [1]
    assert slots(lease(registry, "A", check=True)) == [1]
    assert registry.read_bytes() == before


def test_a_port_that_somebody_listens_on_is_not_given_when_its_lease_has_ended(
    registry: pathlib.Path, clock: Clock
) -> None:
    lease(registry, "A", expires_after=60)
    clock.pass_by(61)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", BASE + 1))
        listener.listen()
        assert slots(lease(registry, "B")) == [2]


HOUR, YEAR = 3600, 365 * 86400


def expiry(registry: pathlib.Path, owner: str) -> float | None:
    with _registry.opened(str(registry), write=False) as opened:
        return _leases.all_leases(opened)["w", owner]["expires"]


@pytest.mark.parametrize("step", [YEAR, -YEAR, HOUR, -HOUR])
def test_a_clock_that_is_set_neither_ends_a_lease_nor_keeps_it(registry: pathlib.Path, clock: Clock, step: int) -> None:
    """It lasts as long as it was to, by the time that has passed; its end is reported by the clock as it is now."""
    lease(registry, "A", expires_after=600)
    clock.pass_by(300)
    clock.set(step)
    assert slots(lease(registry, "B", check=True)) == [2], "it has not ended"
    assert slots(lease(registry, "B")) == [2]
    assert expiry(registry, "A") == pytest.approx(clock.wall + 300)
    clock.pass_by(301)
    assert slots(lease(registry, "C")) == [1], "it has ended"


@pytest.mark.parametrize("step", [-YEAR, -HOUR])
def test_a_clock_that_is_set_back_while_the_machine_is_off(registry: pathlib.Path, clock: Clock, step: int) -> None:
    """A lease lasts no longer than it was to, from when somebody looks."""
    lease(registry, "A", expires_after=600)
    clock.set(step)
    clock.reboot()
    assert slots(lease(registry, "B")) == [2]
    assert expiry(registry, "A") == clock.wall + 600
    clock.pass_by(601)
    assert slots(lease(registry, "C")) == [1]


def test_a_clock_that_is_set_again_and_again(registry: pathlib.Path, clock: Clock) -> None:
    lease(registry, "A", expires_after=600)
    for step in (YEAR, -YEAR, -HOUR, 2 * HOUR, -YEAR, HOUR):
        clock.pass_by(90)
        clock.set(step)
        lease(registry, "other", state="absent")
        assert slots(lease(registry, "B")) == [2]
        lease(registry, "B", state="absent")
    clock.pass_by(61)
    assert slots(lease(registry, "B")) == [1]


def test_another_machine_whose_clock_differs_a_little(registry: pathlib.Path, clock: Clock) -> None:
    lease(registry, "A", expires_after=600)
    for step in (-200, 200) * 5:
        clock.set(step)
        clock.reboot()
        lease(registry, "B")
        lease(registry, "B", state="absent")
    assert expiry(registry, "A") == 1_000_600


def test_a_time_that_is_none(registry: pathlib.Path) -> None:
    with pytest.raises(UserError, match="lease_expires_after is 0"):
        lease(registry, "A", expires_after=0)


def test_the_main_trees_ports(registry: pathlib.Path) -> None:
    given = lease(registry, "A", ports={"web": {"base": BASE, "main": 3000}, "api": {"base": BASE + 20}})
    assert given["leases"][0]["main_ports"] == {"web": 3000, "api": BASE + 20}
    assert lease(registry, "A", state="absent")["leases"] == []


def test_a_registry_of_the_version_before_is_brought_up_to_date(registry: pathlib.Path) -> None:
    with contextlib.closing(connection := sqlite3.connect(registry)), connection:
        connection.executescript(_registry_file.SCHEMA)
        connection.execute("insert into lease (workspace, owner, slot, created) values ('w', 'A', 1, 0)")
        connection.execute("pragma user_version = 1")
    assert slots(lease(registry, "B", check=True)) == [2]
    assert slots(lease(registry, "B")) == [2]
    assert lease(registry, "A", expires_after=60)["leases"][0]["expires"] > 0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("ABCDEFGHIJ"), st.booleans()), max_size=25))
def test_no_slot_is_ever_held_twice(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bool]]) -> None:
    registry = tmp_path_factory.mktemp("leases") / "registry.sqlite3"
    held: dict[str, int] = {}
    for owner, present in steps:
        if present:
            try:
                held[owner] = slots(lease(registry, owner))[0]
            except UserError:
                assert len(held) == 9
        else:
            lease(registry, owner, state="absent")
            held.pop(owner, None)
        assert len(set(held.values())) == len(held)
        assert all(1 <= slot <= 9 for slot in held.values())


def _take(registry: pathlib.Path, owner: str) -> int:
    return slots(lease(registry, owner, slots={"first": 1, "last": 99, "strategy": "lowest"}))[0]


def test_many_processes_at_once_get_distinct_slots(registry: pathlib.Path) -> None:
    owners = [f"t{number}" for number in range(24)]
    with multiprocessing.get_context("fork").Pool(12) as pool:
        taken = pool.starmap(_take, [(registry, owner) for owner in owners])
        pool.close()
        pool.join()  # else they are ended, which one that has only just started may not survive in good order
    assert sorted(taken) == list(range(1, 25))
