CREATE TABLE approvals (
	rollout VARCHAR NOT NULL,
	who VARCHAR NOT NULL,
	at FLOAT NOT NULL,
	PRIMARY KEY (rollout, who)
);
--
CREATE TABLE blocks (
	spec VARCHAR NOT NULL,
	kind VARCHAR NOT NULL,
	reason VARCHAR NOT NULL,
	until VARCHAR,
	who VARCHAR NOT NULL,
	since FLOAT NOT NULL,
	PRIMARY KEY (spec)
);
--
CREATE TABLE host_locks (
	host VARCHAR NOT NULL,
	rollout VARCHAR NOT NULL,
	since FLOAT NOT NULL,
	PRIMARY KEY (host)
);
--
INSERT INTO "host_locks" ("host", "rollout", "since") VALUES ('web2', 'r-2', 6.0);
--
CREATE TABLE host_sequences (
	host VARCHAR NOT NULL,
	sequence BIGINT NOT NULL,
	PRIMARY KEY (host)
);
--
INSERT INTO "host_sequences" ("host", "sequence") VALUES ('web1', 7);
--
CREATE TABLE journal (
	seq SERIAL NOT NULL,
	at FLOAT NOT NULL,
	who VARCHAR NOT NULL,
	action VARCHAR NOT NULL,
	subject VARCHAR NOT NULL,
	host VARCHAR,
	reason VARCHAR,
	ticket VARCHAR,
	detail VARCHAR NOT NULL,
	PRIMARY KEY (seq)
);
--
CREATE INDEX ix_journal_at ON journal (at);
--
CREATE INDEX ix_journal_host ON journal (host);
--
CREATE INDEX ix_journal_subject ON journal (subject);
--
CREATE INDEX ix_journal_ticket ON journal (ticket);
--
INSERT INTO "journal" ("seq", "at", "who", "action", "subject", "host", "reason", "ticket", "detail") VALUES (1, 1.0, 'me', 'snapshot', 's-1', NULL, NULL, NULL, '{"channel":"el9","packages":2}');
--
INSERT INTO "journal" ("seq", "at", "who", "action", "subject", "host", "reason", "ticket", "detail") VALUES (2, 2.0, 'me', 'promote', 'testing', NULL, NULL, NULL, '{"channel":"el9","class":"testing","from":null,"to":"s-1"}');
--
INSERT INTO "journal" ("seq", "at", "who", "action", "subject", "host", "reason", "ticket", "detail") VALUES (3, 4.0, 'me', 'plan', 'p-123', NULL, NULL, NULL, '{"class":"testing","failed":[],"hosts":1}');
--
INSERT INTO "journal" ("seq", "at", "who", "action", "subject", "host", "reason", "ticket", "detail") VALUES (4, 5.0, 'me', 'pin', 'key', 'web1', NULL, NULL, '{}');
--
INSERT INTO "journal" ("seq", "at", "who", "action", "subject", "host", "reason", "ticket", "detail") VALUES (5, 6.0, 'me', 'rollout', 'r-1', NULL, NULL, NULL, '{"class":"all","hosts":1,"plan":"p-1"}');
--
INSERT INTO "journal" ("seq", "at", "who", "action", "subject", "host", "reason", "ticket", "detail") VALUES (6, 6.0, 'me', 'rollout', 'r-2', NULL, NULL, NULL, '{"class":"all","hosts":1,"plan":"p-1"}');
--
INSERT INTO "journal" ("seq", "at", "who", "action", "subject", "host", "reason", "ticket", "detail") VALUES (7, 8.0, 'me', 'applied', 'r-1', 'web1', NULL, 'CHG1', '{"code":null,"detail":null}');
--
SELECT setval(pg_get_serial_sequence('journal', 'seq'), max(seq)) FROM journal;
--
CREATE TABLE moves (
	seq SERIAL NOT NULL,
	class VARCHAR NOT NULL,
	channel VARCHAR NOT NULL,
	snapshot VARCHAR NOT NULL,
	action VARCHAR NOT NULL,
	at FLOAT NOT NULL,
	who VARCHAR NOT NULL,
	PRIMARY KEY (seq)
);
--
CREATE INDEX ix_moves_class ON moves (class);
--
INSERT INTO "moves" ("seq", "class", "channel", "snapshot", "action", "at", "who") VALUES (1, 'testing', 'el9', 's-1', 'promote', 2.0, 'me');
--
SELECT setval(pg_get_serial_sequence('moves', 'seq'), max(seq)) FROM moves;
--
CREATE TABLE package_sets (
	id SERIAL NOT NULL,
	digest VARCHAR NOT NULL,
	members BYTEA NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (digest)
);
--
INSERT INTO "package_sets" ("id", "digest", "members") VALUES (1, 'sha256:4765582b8a0c070c212e804862493ae8b21105df91f44cd15a699c9a44313b2f', '\x789c9b7c8483918181810988271c61626400001b3302ba'::bytea);
--
SELECT setval(pg_get_serial_sequence('package_sets', 'id'), max(id)) FROM package_sets;
--
CREATE TABLE packages (
	id SERIAL NOT NULL,
	digest VARCHAR NOT NULL,
	detail BYTEA NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (digest)
);
--
INSERT INTO "packages" ("id", "digest", "detail") VALUES (1, 'sha256:a1', '\x789c1d8dcb0dc2400c4453047da020c1816e361bc35adad8c1dee4401541349048f9424fd482e1349aa7799a4fb61bc95530b8a50551641af2d1890f33f12f26a8d9876c1188e014867c6e814a967e2b1a8c65c20ab237922617e3bfcc255e41d3a6c11d8ea7b3cb47c5bb61319da95f6be1164bd06e15b83528a08fe7b22f90f61afa7ef34c97883e69b771a11c21d9f425e0b9aaecd8346daebf03eddedad47504c35656a0e0c8db78ba60b4f8020f555f6c'::bytea);
--
INSERT INTO "packages" ("id", "digest", "detail") VALUES (2, 'sha256:b1', '\x789c1d8ddd8d83400c8429227d4444ba7b4837bb8bc95a5a6cce5e78b82a38a50190083fa1a7d412e79e46f3693ecdab38cde41a98fcda8328324de5ec24c485f8130f6839c4621548e014a672e9812a9671f71da62a6303c581a4d9a5f45f960a6fa079d7e82e5fdf575fce8abf86c574a6716b857bac40874de0a74301fdbbaf678f74d6388e7b60aa1386acc3ce5e3941b6e9532070d3d8b169dadd3e073a1cdab56d02c35636a0e828d8f85163b27803109e5f6e'::bytea);
--
SELECT setval(pg_get_serial_sequence('packages', 'id'), max(id)) FROM packages;
--
CREATE TABLE pins (
	host VARCHAR NOT NULL,
	key VARCHAR NOT NULL,
	since FLOAT NOT NULL,
	PRIMARY KEY (host)
);
--
INSERT INTO "pins" ("host", "key", "since") VALUES ('web1', 'key', 5.0);
--
CREATE TABLE plans (
	id VARCHAR NOT NULL,
	class VARCHAR NOT NULL,
	created FLOAT NOT NULL,
	who VARCHAR NOT NULL,
	document BYTEA NOT NULL,
	PRIMARY KEY (id)
);
--
INSERT INTO "plans" ("id", "class", "created", "who", "document") VALUES ('p-123', 'testing', 4.0, 'me', '\x789c0dc7310ec2300c0040f1a00c8189d7203735c452ea84d850d8d295892fa0d014048f84dbeed6c4791c60b5a400bca37e4ec6ae374bc6e309454b4b3190bb3e2e6f6148e2a3ca54316cab183bfb28ff3e47ec6c55633fc467648d9950ca5733b080538a2ca5ed8102f6e5354266e283dc7f725b34d7'::bytea);
--
CREATE TABLE pointers (
	class VARCHAR NOT NULL,
	channel VARCHAR NOT NULL,
	snapshot VARCHAR NOT NULL,
	previous VARCHAR,
	since FLOAT NOT NULL,
	who VARCHAR NOT NULL,
	PRIMARY KEY (class, channel)
);
--
INSERT INTO "pointers" ("class", "channel", "snapshot", "previous", "since", "who") VALUES ('testing', 'el9', 's-1', NULL, 2.0, 'me');
--
CREATE TABLE rollout_hosts (
	rollout VARCHAR NOT NULL,
	host VARCHAR NOT NULL,
	level VARCHAR NOT NULL,
	transaction VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	outcome VARCHAR,
	code VARCHAR,
	detail VARCHAR,
	manifest VARCHAR,
	updated FLOAT NOT NULL,
	attempt INTEGER DEFAULT '1' NOT NULL,
	PRIMARY KEY (rollout, host)
);
--
INSERT INTO "rollout_hosts" ("rollout", "host", "level", "transaction", "state", "outcome", "code", "detail", "manifest", "updated", "attempt") VALUES ('r-1', 'web1', 'all', 't-1', 'ended', 'applied', NULL, NULL, NULL, 8.0, 1);
--
INSERT INTO "rollout_hosts" ("rollout", "host", "level", "transaction", "state", "outcome", "code", "detail", "manifest", "updated", "attempt") VALUES ('r-2', 'web2', 'all', 't-1', 'waiting', NULL, NULL, NULL, NULL, 6.0, 1);
--
CREATE TABLE rollout_levels (
	rollout VARCHAR NOT NULL,
	level VARCHAR NOT NULL,
	position INTEGER NOT NULL,
	state VARCHAR NOT NULL,
	since FLOAT NOT NULL,
	limits VARCHAR NOT NULL,
	findings VARCHAR,
	PRIMARY KEY (rollout, level)
);
--
CREATE TABLE rollouts (
	id VARCHAR NOT NULL,
	plan VARCHAR NOT NULL,
	class VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	who VARCHAR NOT NULL,
	reason VARCHAR,
	ticket VARCHAR,
	owner VARCHAR NOT NULL,
	created FLOAT NOT NULL,
	ended FLOAT,
	why VARCHAR,
	until FLOAT,
	wish VARCHAR,
	beat FLOAT,
	settings VARCHAR,
	PRIMARY KEY (id)
);
--
INSERT INTO "rollouts" ("id", "plan", "class", "state", "who", "reason", "ticket", "owner", "created", "ended", "why", "until", "wish", "beat", "settings") VALUES ('r-1', 'p-1', 'all', 'running', 'me', NULL, NULL, 'here', 6.0, NULL, NULL, NULL, NULL, 6.0, NULL);
--
INSERT INTO "rollouts" ("id", "plan", "class", "state", "who", "reason", "ticket", "owner", "created", "ended", "why", "until", "wish", "beat", "settings") VALUES ('r-2', 'p-1', 'all', 'running', 'me', NULL, NULL, 'here', 6.0, NULL, NULL, NULL, NULL, 6.0, NULL);
--
CREATE TABLE schema_version (
	version INTEGER NOT NULL
);
--
INSERT INTO "schema_version" ("version") VALUES (4);
--
CREATE TABLE snapshots (
	id VARCHAR NOT NULL,
	channel VARCHAR NOT NULL,
	taken FLOAT NOT NULL,
	who VARCHAR NOT NULL,
	packages INTEGER NOT NULL,
	PRIMARY KEY (id)
);
--
CREATE INDEX ix_snapshots_channel ON snapshots (channel);
--
INSERT INTO "snapshots" ("id", "channel", "taken", "who", "packages") VALUES ('s-1', 'el9', 1.0, 'me', 2);
--
CREATE TABLE transactions (
	id VARCHAR NOT NULL,
	document BYTEA NOT NULL,
	PRIMARY KEY (id)
);
--
INSERT INTO "transactions" ("id", "document") VALUES ('t-1', '\x789c6b5f9e985c92999f573c6149466a4eca8425c59955a90ccb8a5293f2f34b0ead2a4a2d4b2d2ace4cca493dbc26b308c19bb0ae2c352f25bf283e3923312f3db5780200bb2e20c1'::bytea);
--
CREATE TABLE changes (
	seq INTEGER NOT NULL,
	host VARCHAR NOT NULL,
	action VARCHAR NOT NULL,
	name VARCHAR NOT NULL,
	nevra VARCHAR NOT NULL,
	"from" VARCHAR,
	FOREIGN KEY(seq) REFERENCES journal (seq)
);
--
CREATE INDEX ix_changes_host ON changes (host);
--
CREATE INDEX ix_changes_name ON changes (name);
--
CREATE INDEX ix_changes_seq ON changes (seq);
--
INSERT INTO "changes" ("seq", "host", "action", "name", "nevra", "from") VALUES (7, 'web1', 'upgrade', 'a', 'a-2-1.noarch', 'a-1-1.noarch');
--
CREATE TABLE inventories (
	host VARCHAR NOT NULL,
	set_id INTEGER NOT NULL,
	cookie VARCHAR NOT NULL,
	head BYTEA NOT NULL,
	taken FLOAT NOT NULL,
	PRIMARY KEY (host),
	FOREIGN KEY(set_id) REFERENCES package_sets (id)
);
--
INSERT INTO "inventories" ("host", "set_id", "cookie", "head", "taken") VALUES ('web1', 1, 'c-web1', '\x789c2d8b4b0ac2301400f1402e0429de26bc26af2624e92b79f1b314dc769123849aa6c59547b482bb6198192b4b8d1e76ebe0207614fc2b0cbe68e2586ed81e0a04a9ebfdd488e638113f27a3f2629470c6627e5f31b0a15e6cb25a0c3dba5c25913558e5feb7cf1dc8c88fc593ba38e4f4f9835086a175a8d2acc9294eeb00d2c2794bbe968240e2'::bytea, 3.0);
--
