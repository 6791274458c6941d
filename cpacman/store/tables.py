"""The tables that the state database began with; each later area has its own beside its methods.

Invariant: what stands here is the newest shape of a table; how a database of before comes to it
is written in `migrations`.
"""

from __future__ import annotations

import sqlalchemy as sa

from cpacman.store.rows import Text

metadata = sa.MetaData()

schema_table = sa.Table(
    "schema_version", metadata, sa.Column("version", sa.Integer, nullable=False)
)
journal_table = sa.Table(
    "journal",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("who", Text, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("subject", Text, nullable=False, index=True),
    sa.Column("host", Text, index=True),
    sa.Column("reason", Text),
    sa.Column("ticket", Text, index=True),
    sa.Column("detail", Text, nullable=False),
)
changes_table = sa.Table(
    "changes",
    metadata,
    sa.Column("seq", sa.Integer, sa.ForeignKey("journal.seq"), nullable=False, index=True),
    sa.Column("host", Text, nullable=False, index=True),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("name", Text, nullable=False, index=True),
    sa.Column("nevra", Text, nullable=False),
    sa.Column("from", Text),
    sa.Column("repository", Text),
)
snapshots_table = sa.Table(
    "snapshots",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("channel", sa.String, nullable=False, index=True),
    sa.Column("taken", sa.Float, nullable=False),
    sa.Column("who", Text, nullable=False),
    sa.Column("packages", sa.Integer, nullable=False),
)
pointers_table = sa.Table(
    "pointers",
    metadata,
    sa.Column("class", sa.String, primary_key=True),
    sa.Column("channel", sa.String, primary_key=True),
    sa.Column("snapshot", sa.String, nullable=False),
    sa.Column("previous", sa.String),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("who", Text, nullable=False),
)
packages_table = sa.Table(
    "packages",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    sa.Column("detail", sa.LargeBinary, nullable=False),
)
sets_table = sa.Table(
    "package_sets",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    sa.Column("members", sa.LargeBinary, nullable=False),
)
inventories_table = sa.Table(
    "inventories",
    metadata,
    sa.Column("host", Text, primary_key=True),
    sa.Column("set_id", sa.Integer, sa.ForeignKey("package_sets.id"), nullable=False),
    sa.Column("cookie", Text, nullable=False),
    sa.Column("head", sa.LargeBinary, nullable=False),
    sa.Column("taken", sa.Float, nullable=False),
)
transactions_table = sa.Table(
    "transactions",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
)
plans_table = sa.Table(
    "plans",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("class", sa.String, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("who", Text, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
)
rollouts_table = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("plan", sa.String, nullable=False),
    sa.Column("class", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("who", Text, nullable=False),
    sa.Column("reason", Text),
    sa.Column("ticket", Text),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("ended", sa.Float),
    sa.Column("why", Text),
    sa.Column("until", sa.Float),
    sa.Column("wish", sa.String),
    sa.Column("beat", sa.Float),
    sa.Column("settings", sa.String),
    sa.Column("progress", sa.String),
)
rollout_levels_table = sa.Table(
    "rollout_levels",
    metadata,
    sa.Column("rollout", sa.String, primary_key=True),
    sa.Column("level", sa.String, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("limits", sa.String, nullable=False),
    sa.Column("findings", Text),
    sa.Column("soaking", sa.Float),
)
approvals_table = sa.Table(
    "approvals",
    metadata,
    sa.Column("rollout", sa.String, primary_key=True),
    sa.Column("who", Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
)
skips_table = sa.Table(
    "rollout_skips",
    metadata,
    sa.Column("rollout", sa.String, primary_key=True),
    sa.Column("host", Text, primary_key=True),
    sa.Column("who", Text, nullable=False),
)
rollout_hosts_table = sa.Table(
    "rollout_hosts",
    metadata,
    sa.Column("rollout", sa.String, primary_key=True),
    sa.Column("host", Text, primary_key=True),
    sa.Column("level", sa.String, nullable=False),
    sa.Column("transaction", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("outcome", sa.String),
    sa.Column("code", Text),
    sa.Column("detail", Text),
    sa.Column("manifest", sa.String),
    sa.Column("updated", sa.Float, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
    sa.Column("findings", Text),
    sa.Column("boot", Text),
)
locks_table = sa.Table(
    "host_locks",
    metadata,
    sa.Column("host", Text, primary_key=True),
    sa.Column("rollout", sa.String, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
)
pins_table = sa.Table(
    "pins",
    metadata,
    sa.Column("host", Text, primary_key=True),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
)
sequences_table = sa.Table(
    "host_sequences",
    metadata,
    sa.Column("host", Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
)
