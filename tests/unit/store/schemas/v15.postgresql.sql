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
	packages VARCHAR,
	PRIMARY KEY (spec)
);
--
CREATE TABLE chains (
	id VARCHAR NOT NULL,
	classes VARCHAR NOT NULL,
	steps VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	why VARCHAR,
	until FLOAT,
	wish VARCHAR,
	owner VARCHAR NOT NULL,
	who VARCHAR NOT NULL,
	reason VARCHAR,
	ticket VARCHAR,
	settings VARCHAR NOT NULL,
	created FLOAT NOT NULL,
	ended FLOAT,
	beat FLOAT,
	PRIMARY KEY (id)
);
--
INSERT INTO "chains" ("id", "classes", "steps", "state", "why", "until", "wish", "owner", "who", "reason", "ticket", "settings", "created", "ended", "beat") VALUES ('c-1', '["testing","production"]', '[{"at":6.0,"class_":"testing","rollout":"r-1"}]', 'running', NULL, NULL, NULL, '', 'me', NULL, NULL, '{}', 9.0, NULL, NULL);
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
CREATE TABLE jobs (
	name VARCHAR NOT NULL,
	wanted FLOAT NOT NULL,
	ran FLOAT NOT NULL,
	result VARCHAR,
	PRIMARY KEY (name)
);
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
INSERT INTO "journal" ("seq", "at", "who", "action", "subject", "host", "reason", "ticket", "detail") VALUES (8, 9.0, 'me', 'chain', 'c-1', NULL, NULL, NULL, '{"classes":["testing","production"]}');
--
SELECT setval(pg_get_serial_sequence('journal', 'seq'), max(seq)) FROM journal;
--
CREATE TABLE leases (
	name VARCHAR NOT NULL,
	owner VARCHAR NOT NULL,
	beat FLOAT NOT NULL,
	PRIMARY KEY (name)
);
--
CREATE TABLE members (
	host VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	class VARCHAR NOT NULL,
	was VARCHAR NOT NULL,
	key VARCHAR NOT NULL,
	machine VARCHAR NOT NULL,
	noted VARCHAR NOT NULL,
	since FLOAT NOT NULL,
	who VARCHAR NOT NULL,
	PRIMARY KEY (host)
);
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
CREATE TABLE origin_sets (
	digest VARCHAR NOT NULL,
	repositories BYTEA NOT NULL,
	PRIMARY KEY (digest)
);
--
INSERT INTO "origin_sets" ("digest", "repositories") VALUES ('7de6b598413a76a9faa5f4f5180d9aabe596691c736f684a46d901ed2ffeb460', '\x789c6b5c93a86ba46ba897979f58949cb12429b138150045600734'::bytea);
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
INSERT INTO "packages" ("id", "digest", "detail") VALUES (1, 'sha256:a1', '\x789c1d8dcb6dc3400c44d544ea30142039a49bd58ad612589132b9d221552870032b40dfa827d762daa7c13cccc33c8a8f995c0b93db061045a6a99c9df8b012bf62818e7d283681084e612ad701a866c947d563ac13b6509c489a5c8cefb2d6d880a64383fbfcfafe71e5acf86b584c67ca7b273c600d3aee02b71e05f4efbe5d2aa48b869c0fcf748de8938e0757ca11924dff053cb7ad1d9ba67df33ad0f1d4beeb2218b6b2030547dec6cb15a3c5ca820d527e021d06633b'::bytea);
--
INSERT INTO "packages" ("id", "digest", "detail") VALUES (2, 'sha256:b1', '\x789c1d8ddd6dc3300c84bd44e6081c207de83692cc580464d225653f640a175940061cff343b7596327d3adc87fb70bfd56921d7c1ecb711449169ae172721aec4ef7842cf21569b4002a730d7eb08d4b094c30f989a8c1d542f24cd2ea5ffb236d882e643a3bb5c3f3e7dbd28de0d8be94c65ef85476c40a75de06b4001fd7e6c678f74d658ca11986e0943d6e960af9c20dbf4472070d7d9b1693ab4ef039d5e3af47d02c35676a0e828d8f879c364b1b2608b54fe001e5f633d'::bytea);
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
	findings VARCHAR,
	boot VARCHAR,
	PRIMARY KEY (rollout, host)
);
--
INSERT INTO "rollout_hosts" ("rollout", "host", "level", "transaction", "state", "outcome", "code", "detail", "manifest", "updated", "attempt", "findings", "boot") VALUES ('r-1', 'web1', 'all', 't-1', 'ended', 'applied', NULL, NULL, NULL, 8.0, 1, NULL, NULL);
--
INSERT INTO "rollout_hosts" ("rollout", "host", "level", "transaction", "state", "outcome", "code", "detail", "manifest", "updated", "attempt", "findings", "boot") VALUES ('r-2', 'web2', 'all', 't-1', 'waiting', NULL, NULL, NULL, NULL, 6.0, 1, NULL, NULL);
--
CREATE TABLE rollout_levels (
	rollout VARCHAR NOT NULL,
	level VARCHAR NOT NULL,
	position INTEGER NOT NULL,
	state VARCHAR NOT NULL,
	since FLOAT NOT NULL,
	limits VARCHAR NOT NULL,
	findings VARCHAR,
	soaking FLOAT,
	PRIMARY KEY (rollout, level)
);
--
CREATE TABLE rollout_skips (
	rollout VARCHAR NOT NULL,
	host VARCHAR NOT NULL,
	who VARCHAR NOT NULL,
	PRIMARY KEY (rollout, host)
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
	progress VARCHAR,
	PRIMARY KEY (id)
);
--
INSERT INTO "rollouts" ("id", "plan", "class", "state", "who", "reason", "ticket", "owner", "created", "ended", "why", "until", "wish", "beat", "settings", "progress") VALUES ('r-1', 'p-1', 'all', 'running', 'me', NULL, NULL, 'here', 6.0, NULL, NULL, NULL, NULL, 6.0, NULL, NULL);
--
INSERT INTO "rollouts" ("id", "plan", "class", "state", "who", "reason", "ticket", "owner", "created", "ended", "why", "until", "wish", "beat", "settings", "progress") VALUES ('r-2', 'p-1', 'all', 'running', 'me', NULL, NULL, 'here', 6.0, NULL, NULL, NULL, NULL, 6.0, NULL, NULL);
--
CREATE TABLE schema_version (
	version INTEGER NOT NULL
);
--
INSERT INTO "schema_version" ("version") VALUES (15);
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
INSERT INTO "transactions" ("id", "document") VALUES ('t-1', '\x78016b5f9e985c92999f573c6149466a4eca8425c59955a90ccb8a5293f2f34b0ead2a4a2d4b2d2ace4cca493dbc26b308c19bb0ae2c352f25bf283e3923312f3db5780200bb2e20c1'::bytea);
--
CREATE TABLE changes (
	seq INTEGER NOT NULL,
	host VARCHAR NOT NULL,
	action VARCHAR NOT NULL,
	name VARCHAR NOT NULL,
	nevra VARCHAR NOT NULL,
	"from" VARCHAR,
	repository VARCHAR,
	FOREIGN KEY(seq) REFERENCES journal (seq)
);
--
CREATE INDEX ix_changes_host ON changes (host);
--
CREATE INDEX ix_changes_name ON changes (name);
--
CREATE INDEX ix_changes_seq ON changes (seq);
--
INSERT INTO "changes" ("seq", "host", "action", "name", "nevra", "from", "repository") VALUES (7, 'web1', 'upgrade', 'a', 'a-2-1.noarch', 'a-1-1.noarch', 'base');
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
CREATE TABLE origins (
	host VARCHAR NOT NULL,
	digest VARCHAR NOT NULL,
	PRIMARY KEY (host),
	FOREIGN KEY(digest) REFERENCES origin_sets (digest)
);
--
CREATE INDEX ix_origins_digest ON origins (digest);
--
INSERT INTO "origins" ("host", "digest") VALUES ('web1', '7de6b598413a76a9faa5f4f5180d9aabe596691c736f684a46d901ed2ffeb460');
--
