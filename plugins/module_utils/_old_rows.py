# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows from before a mask in the files of a golden: the pages of tables, and the log (WAL), keep them.

Private to this collection: may change without notice.

No role of a branch reads these files. Whoever gets out of the server of a branch does, as its system user.
"""

from __future__ import annotations

import time
import typing as t

from ._pg_server import compose

if t.TYPE_CHECKING:
    from ._pg_server import Server

SETTINGS = {"track_counts": "on", "wal_recycle": "off", "wal_init_zero": "on", "wal_keep_size": "0"}
"""Of the server on which a golden is masked: it counts changes, and removes old files of its log at a checkpoint."""

CHANGED = """
select s.schemaname::text, s.relname::text from pg_catalog.pg_stat_all_tables s
where s.n_tup_upd + s.n_tup_del > 0
    and (s.relid >= 16384 and s.schemaname !~ '^pg_(toast|temp)' or s.schemaname = 'pg_catalog' and s.relname in (
        'pg_description', 'pg_largeobject', 'pg_seclabel', 'pg_shdescription', 'pg_statistic', 'pg_statistic_ext_data'
    ))
order by s.relid
"""
"""Tables of which rows were changed since the server has started."""

COUNTED_NOW_SINCE = 15
COUNTING_SECONDS = 1
"""How long an older server takes to count what was changed."""


def remove(server: Server) -> None:
    """Write the tables anew of which a mask has changed rows, and begin another file of the log.

    A table that was not changed goes on to share its blocks with the source. The checkpoint with which the server is
    shut down removes the other files of the log.
    """
    if server.major >= COUNTED_NOW_SINCE:
        server.rows("select pg_catalog.pg_stat_force_next_flush()")
    else:
        time.sleep(COUNTING_SECONDS)
    for schema, table in server.rows(CHANGED):
        server.act(None, compose("vacuum full {}.{}", schema, table))
    server.act(None, compose("select pg_catalog.pg_switch_wal()"))
