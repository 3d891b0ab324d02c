# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Env files: what is read, what is placed, what never moves, and whether the real readers agree."""

from __future__ import annotations

import collections
import json
import pathlib
import re
import shutil
import subprocess
import typing as t

import dotenv
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils._env_file import ENTRY, check_key, place, read
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError

KEYS = st.sampled_from(["A", "B", "API_URL", "_x", "spring.datasource-url", "export"])

# Half of the characters are those that some reader treats as special; the rest is all of Unicode.
CHARACTERS = st.sampled_from("""'"`\\$#= \n\t{}!~*&;:n""") | st.characters(exclude_categories=["Cs"])
VALUES = st.text(CHARACTERS, max_size=12)


def is_writable(value: str) -> bool:
    """The rule of the refusal's hint."""
    never = any(part in value for part in ("\0", "\r", "${", "\\\\")) or value.endswith("\\")
    return not never and not ("'" in value and any(other in value for other in '"$`\\'))


WRITABLE = VALUES.filter(is_writable)


# --- files made of known pieces -------------------------------------------------------------------------------------


class Entry(t.NamedTuple):
    """One entry as it stands in a file, and what it means."""

    head: str
    key: str
    written: str
    meaning: str
    tail: str


def quoted(quote: str, contents: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, str]]:
    escaped = {'"': ["\\", '"', "$", "`"]}.get(quote, [])

    def write(value: str) -> tuple[str, str]:
        written = value
        for character in escaped:
            written = written.replace(character, f"\\{character}")
        return f"{quote}{written}{quote}", value

    return contents.map(write)


PLAIN = st.sampled_from(["", "5432", "a b", "it's", 'say "x"', "http://h:1/p?x=1&y=$z", '"$HOME"/bin', "#f", "C:\\x"])
WRITTEN = st.one_of(
    PLAIN.map(lambda plain: (plain, plain)),
    quoted("'", st.text(CHARACTERS.filter(lambda c: c not in "'\\\r"), max_size=8)),
    quoted('"', st.text(CHARACTERS.filter(lambda c: c != "\r"), max_size=8)),
    quoted("`", st.text(CHARACTERS.filter(lambda c: c not in "`\\\r"), max_size=8)),
)
OTHER_LINES = st.sampled_from(
    ["", "  ", "# A=1", "  #B='x", "# it's", "not an entry", "B: 2", "1A=3", "export", "export A", "'A'='1'", "=x"]
)


@st.composite
def an_entry(draw: st.DrawFn) -> Entry:
    key = draw(KEYS)
    before = draw(st.sampled_from(["", "  ", "\t", "export ", "  export\t"]))
    equals = draw(st.sampled_from(["=", " = ", " =", "=\t"]))
    written, meaning = draw(WRITTEN)
    tail = draw(st.sampled_from(["", "  ", ' # it\'s a "comment"', "\t#c `"]))
    if not written or written.startswith("#"):
        equals = equals.rstrip()  # blanks there would be the tail's
    return Entry(f"{before}{key}{equals}", key, written, meaning, tail)


@st.composite
def a_file(draw: st.DrawFn) -> list[str | Entry]:
    """Entries, and the text between them."""
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    pieces: list[str | Entry] = [draw(st.sampled_from(["", "\ufeff"]))]
    for line in draw(st.lists(an_entry() | OTHER_LINES, max_size=8)):
        pieces += [line, newline]
    if len(pieces) > 1 and draw(st.booleans()):
        pieces.pop()
    return pieces


def text_of(pieces: list[str | Entry]) -> str:
    return "".join(p if isinstance(p, str) else p.head + p.written + p.tail for p in pieces)


def meanings_of(pieces: list[str | Entry]) -> dict[str, str]:
    return {piece.key: piece.meaning for piece in pieces if isinstance(piece, Entry)}


@given(a_file())
def test_reads_each_entry_and_nothing_else(pieces: list[str | Entry]) -> None:
    assert read(text_of(pieces)) == meanings_of(pieces)


@given(a_file(), st.dictionaries(KEYS, WRITABLE))
def test_places_values_and_moves_nothing_else(pieces: list[str | Entry], values: dict[str, str]) -> None:
    text = text_of(pieces)
    placed = place(text, values)

    assert read(placed) == {**meanings_of(pieces), **values}
    assert place(placed, values) == placed

    def pattern(piece: str | Entry) -> str:
        if isinstance(piece, str):
            return re.escape(piece)
        if values.get(piece.key, piece.meaning) == piece.meaning:
            return re.escape(piece.head + piece.written + piece.tail)
        return f"{re.escape(piece.head)}.*{re.escape(piece.tail)}"

    newline = "\r\n" if "\r\n" in text else "\n"
    absent = [key for key in values if key not in meanings_of(pieces)]
    separator = newline if absent and text.strip("\ufeff") and text[-1] != "\n" else ""
    appended = separator + "".join(f"{re.escape(key)}=.*{newline}" for key in absent)
    assert re.fullmatch("".join(map(pattern, pieces)) + appended, placed, re.DOTALL)


# --- files of any text ----------------------------------------------------------------------------------------------

TEXTS = st.lists(CHARACTERS | st.sampled_from(["\r", "\r\n", "\nA=", "\nB='", '\nexport A="', "\ufeff"])).map("".join)


@given(TEXTS)
def test_values_that_are_equal_leave_the_bytes(text: str) -> None:
    occurrences = collections.Counter(entry["key"] for entry in ENTRY.finditer(text))
    assert place(text, {key: value for key, value in read(text).items() if occurrences[key] == 1}) == text


@given(TEXTS, st.dictionaries(KEYS, WRITABLE))
def test_any_text_takes_values_or_is_refused_for_an_open_quote(text: str, values: dict[str, str]) -> None:
    try:
        placed = place(text, values)
    except UserError as error:
        refused = error.message
    else:
        assert read(placed) == {**read(text), **values}
        assert place(placed, values) == placed
        return
    assert "opens a quote" in refused
    assert re.search(r"""=\s*['"`]""", text)


@given(VALUES, st.sampled_from(["", "A=x", "A='x'", 'A="x"', "A=`x`", "A=x # c"]))
def test_what_cannot_be_read_alike_is_refused_and_not_shown(value: str, text: str) -> None:
    if is_writable(value):
        assert read(place(text, {"A": value})) == {"A": value}
        return
    with pytest.raises(UserError, match="the value of A cannot be written") as refusal:
        place(text, {"A": value})
    assert len(value) < 5 or value not in str(refusal.value.as_result())


# --- the real readers -----------------------------------------------------------------------------------------------


def bash_reads(path: pathlib.Path) -> dict[str, str]:
    script = ["bash", "-c", 'set -a; . "$1"; env -0', "bash", str(path)]
    done = subprocess.run(script, capture_output=True, check=True, env={"PATH": "/usr/bin:/bin"})
    assert not done.stderr
    return dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)


def python_dotenv_reads(path: pathlib.Path) -> dict[str, str]:
    return t.cast("dict[str, str]", dotenv.dotenv_values(path))


def node_reads(path: pathlib.Path) -> dict[str, str]:
    if shutil.which("node") is None:
        pytest.skip("no node here")
    script = 'console.log(JSON.stringify(util.parseEnv(fs.readFileSync(process.argv[1], "utf8"))))'
    done = subprocess.run(["node", "-e", script, str(path)], capture_output=True, check=True)
    return t.cast("dict[str, str]", json.loads(done.stdout))


EACH_CHARACTER = [
    (value, "", written, "")
    for character in map(chr, range(128))
    for value in (character, f"a{character}", f"{character}n", f"a{character}n")
    for written in (None, '"was something else"')
    if is_writable(value)
]


@pytest.mark.parametrize("reader", [bash_reads, python_dotenv_reads, node_reads])
@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            WRITABLE,
            st.sampled_from(["", "export "]),
            # Longer than any value: what has its value already stays as it is, however it is written.
            st.sampled_from(
                [None, "was_something_else", "'was something else'", '"was something else"', "`was something else`"]
            ),
            st.sampled_from(["", "  ", ' # don\'t "x"']),
        ),
        min_size=20,
        max_size=40,
    )
)
@example(EACH_CHARACTER)
def test_real_readers_read_what_was_placed(
    tmp_path_factory: pytest.TempPathFactory,
    reader: t.Callable[[pathlib.Path], dict[str, str]],
    entries: list[tuple[str, str, str | None, str]],
) -> None:
    values = {f"KEY_{number}": value for number, (value, *_rest) in enumerate(entries)}
    before = "".join(
        f"{export}{key}={written}{tail}\n"
        for key, (_value, export, written, tail) in zip(values, entries, strict=True)
        if written is not None
    )
    path = tmp_path_factory.mktemp("env") / ".env"
    path.write_bytes(place(before, values).encode())
    found = reader(path)
    assert {key: found.get(key) for key in values} == values


# --- single cases, for people ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        pytest.param("A=1\n", "2", "A=2\n", id="plain"),
        pytest.param("A='1'\n", "2", "A='2'\n", id="single quotes stay"),
        pytest.param('A="1"\n', "2 3", 'A="2 3"\n', id="double quotes stay"),
        pytest.param("A=1\n", "it's", 'A="it\'s"\n', id="double quotes for an apostrophe"),
        pytest.param('A="1"\n', "pa$$", "A='pa$$'\n", id="single quotes for a dollar"),
        pytest.param("A=`1`\n", "2", "A='2'\n", id="backticks, which bash would run, go"),
        pytest.param("A=1 # c\n", "2 3", "A='2 3' # c\n", id="comment stays"),
        pytest.param("A=1 # c\n", "", "A='' # c\n", id="empty before a comment"),
        pytest.param("A=1\n", "", "A=\n", id="empty"),
        pytest.param("A= # c\n", "2", "A=2 # c\n", id="empty no more"),
        pytest.param("A= \n", "2", "A=2 \n", id="empty no more, before a blank"),
        pytest.param("  export A = 1\n", "2", "  export A = 2\n", id="export, indentation, blanks"),
        pytest.param("A=1\nB=2\nA='3'\n", "4", "A=4\nB=2\nA='4'\n", id="each occurrence"),
        pytest.param("#A=1\n", "2", "#A=1\nA=2\n", id="commented out"),
        pytest.param("A='1\nB=2'\nC=3", "4", "A='4'\nC=3", id="multi-line value"),
        pytest.param("A=1\n", "2\n3", "A='2\n3'\n", id="newline"),
        pytest.param("B='A=1\n'\n", "2", "B='A=1\n'\nA=2\n", id="not inside a value"),
        pytest.param("B=1\r\n", "2", "B=1\r\nA=2\r\n", id="crlf"),
        pytest.param("B=1", "2", "B=1\nA=2\n", id="no final newline, appended"),
        pytest.param("A=1", "2", "A=2", id="no final newline, kept"),
        pytest.param("", "2", "A=2\n", id="empty file"),
        pytest.param("\ufeff", "2", "\ufeffA=2\n", id="nothing but a byte order mark"),
        pytest.param("\ufeffA=1\n", "2", "\ufeffA=2\n", id="byte order mark"),
        pytest.param('A="$HOME"/bin\n', "2", "A=2\n", id="shell concatenation"),
        pytest.param("A='it\n", "2", "A=2\n", id="its own open quote"),
        pytest.param("A=${B}\n", "${B}", "A=${B}\n", id="equal though not writable"),
    ],
)
def test_places(before: str, value: str, after: str) -> None:
    assert place(before, {"A": value}) == after


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'A="a\nb\t\"\\\$\`\x"', 'a\nb\t"\\$`\\x'),
        (r"A='a\nb'", r"a\nb"),
        (r"A='it\'s'", "it's"),
        ("A='a\r\nb'\r\n", "a\nb"),
        ("A=1\nA=2\n", "2"),
        ("A=a#b # c", "a#b"),
        ('A="x"#c', "x"),
    ],
)
def test_reads(text: str, value: str) -> None:
    assert read(text) == {"A": value}


def test_absent_keys_are_appended_in_the_order_given() -> None:
    assert place("M=1\n", {"Z": "1", "M": "2", "A": "3"}) == "M=2\nZ=1\nA=3\n"


def test_a_quote_that_would_close_in_a_value_is_refused() -> None:
    text = "MOTD='hello\nA=1\n"
    assert place(text, {"A": "2"}) == "MOTD='hello\nA=2\n"
    with pytest.raises(UserError, match=r"cannot place A in an env file that opens a quote .* MOTD, A would"):
        place(text, {"A": " # c"})


@pytest.mark.parametrize("key", ["A", "_", "a1", "spring.datasource-url"])
def test_takes_keys_that_dotenv_readers_take(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize("key", ["", "1A", "A B", "A=", "A\n", "-A", ".A", "É", "A[0]"])
def test_refuses_other_keys(key: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"{key!r} cannot be a key")):
        place("", {key: "1"})
