# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main tree's ports and paths in files: what becomes the task's, and what only looks alike."""

from __future__ import annotations

import json
import re
import tomllib
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils import _env_file
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import EnvironmentFailure
from ansible_collections.parallel.worktrees.plugins.module_utils._main_paths import Moves, rewritten
from ansible_collections.parallel.worktrees.plugins.module_utils._main_ports import is_port, left, patched

PORTS = {3000: 3100, 3100: 3200, 5000: 5100, 65432: 65433}

# --- ports ----------------------------------------------------------------------------------------------------------

# {} stands for a number: where it is a port of this machine, and where it only looks alike.
PLACES = [
    "PORT={}",
    "export DB_PORT={}",
    "apiPort='{}'",
    'PGPORT="{}" # the port',
    "PORT_API = {}",
    "REDIS_HOST=127.0.0.1\nREDIS_PORT={}",
    "QUEUE_HOST=queue\nQUEUE_PORT={}",
    "PORTS={},{}",
    "URL=http://localhost:{}",
    "URL=http://localhost:{}/api?x=1#top",
    "URL='postgresql://user:secret@127.0.0.1:{}/shop'",
    "URL=http://[::1]:{}/",
    "URL=https://shop.localhost:{}/",
    "URL=http://api.test:{}/",
    "BIND=0.0.0.0:{}",
    "LISTEN_ADDR=:{}",
    "bind='*:{}'",
    "BIND_ADDRESS=:{} # all",
    "HOSTS=localhost:{},localhost:{}",
    'CORS=\'["http://localhost:{}", "http://127.0.0.1:{}"]\'',
    "DSN='host=localhost port={} dbname=shop'",
    "DSN='port={} dbname=shop'",
    "NEXT=https://id.example.com/?back=http://localhost:{}/",
    "URL=http://host.docker.internal:{}",
]
LOOK_ALIKES = [
    "TIMEOUT={}",
    "MAX_UPLOAD={}",
    "SUPPORT={}",
    "PORT_RANGE_SIZE={}",
    "PORT_TIMEOUT={}",
    "REPORT_ID={}",
    "# PORT={}",
    "PORT=1{}",
    "PORT={}0",
    "PORT=0{}",
    "PORT={}.5",
    "PORT=x{}",
    "ID=ab-{}-cd",
    "PASSWORD={}",
    "URL=http://localhost/{}",
    "URL=http://localhost:80/{}",
    "URL=https://api.example.com:{}/",
    "URL=http://localhost.example.com:{}/",
    "URL=http://mylocalhost:{}/",
    "URL=http://backend:{}/",
    "URL=http://10.0.0.1:{}/",
    "URL=postgresql://localhost:{}@db.example.com/",
    "URL=postgresql://user:{}@localhost:80/",
    "URL=http://localhost:1{}",
    "URL=http://localhost:{}0",
    "URL=http://localhost:{}x",
    "URL=http://localhost:{}.5",
    "URL=http://x/localhost:{}",
    "URL=https://example.com/?port={}",
    "DSN='host=db.example.com port={}'",
    "DSN='report={}'",
    "IMAGE=node:{}",
    "TIME=12:{}",
    "TAG=:{}",
    "LISTEN=x:{}",
    "SMTP_PORT={}\nSMTP_HOST=smtp.example.com",
    "CACHE_HOST='10.0.0.1'\nCACHE_PORT={}",
    "COLOUR=#{}",
    "not an entry {}",
]


LINES = st.tuples(
    st.sampled_from([*((one, True) for one in PLACES), *((one, False) for one in LOOK_ALIKES)]),
    st.sampled_from([*PORTS, 3001, 80, 8080]),
)


@pytest.mark.parametrize(
    "entry",
    [
        "PORT=${PORT:-3000}",
        "API=${SHOP_API_PORT-3000}",
        "URL=http://localhost:${API_PORT:-3000}/x",
        "URL=${URL:-http://backend:3000}",
        "URL=http://backend:3000/",
        "MAP=127.0.0.1:3000:3000",
        "MAP=3000:80",
        "MAP='0.0.0.0:3000:80'",
        "PORTS=3000-3005",
    ],
)
def test_a_port_that_stays_where_it_may_be_meant_is_reported(entry: str) -> None:
    assert left(entry, {3000: 3100}) == [(entry.partition("=")[0], 3000)]
    assert left(entry.replace("3000", "3001"), {3000: 3100}) == []


@pytest.mark.parametrize(
    "entry", ["TIMEOUT=3000", "PASSWORD=3000", "URL=https://api.example.com:3000", "DB_HOST=a.b\nDB_PORT=3000"]
)
def test_a_number_that_is_clearly_no_port_of_this_machine_is_not_reported(entry: str) -> None:
    assert left(entry, {3000: 3100}) == []


@pytest.mark.parametrize("form", PLACES)
def test_a_port_that_is_replaced_is_not_reported(form: str) -> None:
    assert left(form.replace("{}", "3000"), {3000: 3100, 3100: 3200}) == []


@given(st.lists(LINES, max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_every_port_is_the_tasks_and_no_other_number_moves(
    lines: list[tuple[tuple[str, bool], int]], newline: str
) -> None:
    before = newline.join(form.replace("{}", str(number)) for (form, _is_port), number in lines)
    after = newline.join(
        form.replace("{}", str(PORTS.get(number, number) if is_one else number)) for (form, is_one), number in lines
    )
    assert patched(before, PORTS) == after


@pytest.mark.parametrize("line", PLACES)
def test_a_place_of_a_port(line: str) -> None:
    assert patched(line.replace("{}", "3000"), PORTS) == line.replace("{}", "3100")


@pytest.mark.parametrize("line", LOOK_ALIKES)
def test_a_number_that_looks_alike(line: str) -> None:
    assert patched(line.replace("{}", "3000"), PORTS) == line.replace("{}", "3000")


TEXT = st.text(st.sampled_from("ab:/@.=,;# '\"\n[]?&_-") | st.sampled_from("0123456789"), max_size=40)


@given(
    st.lists(TEXT | st.sampled_from([*PLACES, *LOOK_ALIKES]).map(lambda line: f"\n{line.replace('{}', '3000')}\n")).map(
        "".join
    )
)
def test_only_numbers_of_the_main_tree_are_ever_replaced(text: str) -> None:
    after = patched(text, PORTS)
    pieces, others = re.split(r"([0-9]+)", text), re.split(r"([0-9]+)", after)
    assert len(pieces) == len(others)
    for piece, other in zip(pieces, others, strict=True):
        assert piece == other or (int(piece) in PORTS and other == str(PORTS[int(piece)]))
    assert patched(text, {}) == text


@pytest.mark.parametrize(
    ("key", "yes"),
    [
        *((key, True) for key in ("PORT", "dbport", "serverPort", "A.PORT", "VITE_BACKEND_PORT")),
        *((key, False) for key in ("REPORT", "EXPORTS", "PORT_COUNT", "PORTAL", "")),
    ],
)
def test_a_key_says_whether_it_is_a_port(key: str, yes: bool) -> None:
    assert is_port(key) is yes


# --- overrides ------------------------------------------------------------------------------------------------------


def test_overrides_follow_at_the_end_whatever_stands_before() -> None:
    text = "# mine\nPORT=1\nA=2"
    assert _env_file.append(text, {"PORT": "9101", "NEW": "x y"}) == "# mine\nPORT=1\nA=2\nPORT=9101\nNEW='x y'\n"
    assert _env_file.append("", {"A": "1"}) == "A=1\n"
    assert _env_file.append("A=1\r\n", {"B": "1"}) == "A=1\r\nB=1\r\n"


# --- paths ----------------------------------------------------------------------------------------------------------

MAIN, TREE = "/srv/my app", "/srv/my app/.worktrees/fix"
MOVES = Moves({MAIN: TREE, "/srv/web": "/srv/web/.worktrees/fix"})

MOVED = [
    (MAIN, TREE),
    (f"{MAIN}/", f"{TREE}/"),
    (f"{MAIN}/config/x.json", f"{TREE}/config/x.json"),
    (f"file://{MAIN}/x", f"file://{TREE}/x"),
    (f"--root={MAIN}/x", f"--root={TREE}/x"),
    (f"cd {MAIN} && npm start", f"cd {TREE} && npm start"),
    (f"{MAIN}/bin:/usr/bin:/srv/web/bin", f"{TREE}/bin:/usr/bin:/srv/web/.worktrees/fix/bin"),
    (f"{MAIN}/.github/x", f"{TREE}/.github/x"),
]
STAYS = [
    "/srv/my",
    "/srv/my apple/x",
    "/srv/my app-old/x",
    "/srv/my app.bak",
    "/backup/srv/web/x",
    "srv/web/x",
    "./srv/web",
    f"{TREE}/x",
    f"{MAIN}/.git",
    f"{MAIN}/.git/hooks",
    "https://example.com/srv/web/x",
    "~/srv/web",
]


@pytest.mark.parametrize(("before", "after"), [*MOVED, *((one, one) for one in STAYS)])
def test_a_path_and_what_looks_alike(before: str, after: str) -> None:
    assert MOVES(before) == after
    assert MOVES(after) == after


STRINGS = st.sampled_from([one for pair in MOVED for one in pair] + STAYS) | st.text(max_size=8)
VALUES: st.SearchStrategy[t.Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=8,
)


class Pairs(list[t.Any]):
    """A JSON object, every key as often as it stands there."""


def moved(value: t.Any) -> t.Any:
    if isinstance(value, str):
        return MOVES(value)
    if isinstance(value, Pairs):
        return Pairs((MOVES(key), moved(one)) for key, one in value)
    return [moved(one) for one in value] if isinstance(value, list) else value


@given(VALUES, st.sampled_from([None, 2, "\t"]), st.booleans(), st.booleans())
def test_json_means_the_same_with_its_paths_moved(value: t.Any, indent: t.Any, plain: bool, slashes: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    text = text.replace("/", "\\/") if slashes else text
    after = rewritten(text, "mcp.json", MOVES)
    assert json.loads(after, object_pairs_hook=Pairs) == moved(json.loads(text, object_pairs_hook=Pairs))
    assert rewritten(after, "mcp.json", MOVES) == after


def test_comments_order_and_blanks_of_json_stay() -> None:
    text = """// servers of /srv/web
{
    "b" : {"args": ["--root", "/srv/web/x", "a\\u0062\\n"],}, /* "/srv/web" */
  "/srv/web":1,
}
"""
    after = rewritten(text, ".vscode/settings.json", MOVES)
    assert after == text.replace('"/srv/web/x"', '"/srv/web/.worktrees/fix/x"').replace(
        '"/srv/web":1', '"/srv/web/.worktrees/fix":1'
    )


def test_comments_order_and_blanks_of_toml_stay() -> None:
    text = '''# lies in /srv/web and has a " in it
root   = "/srv/web"   # "/srv/web"
literal = '/srv/web/a\\b'
"/srv/web" = { at = ["/srv/web/x", '/srv/website'] }
many = """
cd /srv/web
"quoted" \\
  /srv/web/y"""
raw = \'\'\'
'/srv/web'\'\'\'
'''
    after = rewritten(text, "config.toml", MOVES)
    there = "/srv/web/.worktrees/fix"
    wanted = text.replace('root   = "/srv/web" ', f'root   = "{there}" ').replace("'/srv/web/a", f"'{there}/a")
    wanted = wanted.replace('"/srv/web" = ', f'"{there}" = ').replace('["/srv/web/x"', f'["{there}/x"')
    wanted = wanted.replace("cd /srv/web", f"cd {there}").replace("  /srv/web/y", f"  {there}/y")
    assert after == wanted.replace("'/srv/web'''", f"'{there}'''")
    assert tomllib.loads(after)["many"] == f'cd {there}\n"quoted" {there}/y'
    assert rewritten(after, "config.toml", MOVES) == after


@given(st.lists(STRINGS, max_size=4), st.sampled_from(['"', "'"]))
def test_toml_means_the_same_with_its_paths_moved(values: list[str], quote: str) -> None:
    def literal(value: str) -> str:
        plain = not re.search(r"[\x00-\x1f\x7f']", value)
        return (
            f"'{value}'" if quote == "'" and plain else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        )

    text = "".join(f"k{number} = {literal(value)} # {value!r}\n" for number, value in enumerate(values))
    after = rewritten(text, "x.toml", MOVES)
    assert tomllib.loads(after) == {f"k{number}": MOVES(value) for number, value in enumerate(values)}


@pytest.mark.parametrize(("name", "text"), [("x.json", '{"a": }'), ("x.toml", "a = "), ("x.json", "")])
def test_what_is_not_its_suffix_is_refused(name: str, text: str) -> None:
    with pytest.raises(EnvironmentFailure, match=f"{name} is not"):
        rewritten(text, name, MOVES)


def test_paths_in_values_of_an_env_file() -> None:
    text = "# /srv/web\nROOT=/srv/web\nX='/srv/web/x' # /srv/web\n"
    there = "/srv/web/.worktrees/fix"
    assert rewritten(text, ".env", MOVES) == f"# /srv/web\nROOT={there}\nX='{there}/x' # /srv/web\n"
