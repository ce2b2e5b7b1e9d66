"""SQL for SQLite, compiled from `flightlog.events.stores.tables`, which writes this module."""

MAKE = (
    'CREATE TABLE blobs ( id INTEGER NOT NULL, digest BLOB NOT NULL, content BLOB NOT NULL, PRIMARY KEY (id), UNIQUE (digest) )',
    'CREATE TABLE event_types ( id INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (id), UNIQUE (name) )',
    'CREATE TABLE events ( position INTEGER NOT NULL, stream_id INTEGER NOT NULL, version INTEGER NOT NULL, type_id INTEGER NOT NULL, recorded_at BIGINT NOT NULL, event_id BLOB NOT NULL, record BLOB NOT NULL, PRIMARY KEY (position) )',
    'CREATE UNIQUE INDEX events_by_id ON events (event_id)',
    'CREATE UNIQUE INDEX events_by_stream ON events (stream_id, version)',
    'CREATE TABLE facts ( name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (name) )',
    'CREATE TABLE streams ( id INTEGER NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, hash BLOB NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (id), UNIQUE (name) )',
    'CREATE TABLE liveness ( process TEXT NOT NULL, beat BIGINT NOT NULL, PRIMARY KEY (process) )',
    'CREATE TABLE subscriptions ( name TEXT NOT NULL, position BIGINT NOT NULL, epoch INTEGER NOT NULL, owner TEXT NOT NULL, lease BIGINT NOT NULL, PRIMARY KEY (name) )',
    "CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
    "CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
    "CREATE TRIGGER events_no_replace BEFORE INSERT ON events WHEN EXISTS (SELECT 1 FROM events WHERE position = NEW.position) OR EXISTS (SELECT 1 FROM events WHERE event_id = NEW.event_id) OR EXISTS (SELECT 1 FROM events WHERE stream_id = NEW.stream_id AND version = NEW.version) BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
    "CREATE TRIGGER blobs_no_update BEFORE UPDATE ON blobs BEGIN SELECT RAISE(ABORT, 'blobs are immutable'); END",
)
ADDED = {
    2: ('CREATE TABLE liveness ( process TEXT NOT NULL, beat BIGINT NOT NULL, PRIMARY KEY (process) )', 'CREATE TABLE subscriptions ( name TEXT NOT NULL, position BIGINT NOT NULL, epoch INTEGER NOT NULL, owner TEXT NOT NULL, lease BIGINT NOT NULL, PRIMARY KEY (name) )'),
}
SELECT_END = 'SELECT events.position, events.recorded_at FROM events ORDER BY events.position DESC LIMIT 1'
SELECT_HEAD = 'SELECT streams.id, streams.version, streams.hash, streams.epoch FROM streams WHERE streams.name = ?'
INSERT_STREAM = 'INSERT INTO streams (name, version, hash, epoch) VALUES (?, ?, ?, ?)'
UPDATE_STREAM = 'UPDATE streams SET version=?, hash=?, epoch=? WHERE streams.id = ?'
SELECT_TYPE = 'SELECT event_types.id FROM event_types WHERE event_types.name = ?'
INSERT_TYPE = 'INSERT INTO event_types (name) VALUES (?)'
INSERT_EVENT = 'INSERT INTO events (position, stream_id, version, type_id, recorded_at, event_id, record) VALUES (?, ?, ?, ?, ?, ?, ?)'
INSERT_BLOB = 'INSERT INTO blobs (digest, content) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING'
SELECT_KNOWN = 'SELECT streams.name, events.version FROM events JOIN streams ON streams.id = events.stream_id WHERE events.event_id = ?'
PUT_BEAT = 'INSERT INTO liveness (process, beat) VALUES (?, ?) ON CONFLICT (process) DO UPDATE SET beat = excluded.beat'
DELETE_BEAT = 'DELETE FROM liveness WHERE liveness.process = ?'
SELECT_STREAM = 'SELECT events.position, events.recorded_at, events.record FROM events WHERE events.stream_id = (SELECT streams.id FROM streams WHERE streams.name = ?) AND events.version > ? ORDER BY events.version LIMIT ?'
SELECT_BLOBS = 'SELECT blobs.digest, blobs.content FROM blobs WHERE blobs.digest IN'
SELECT_FACTS = 'SELECT facts.name, facts.value FROM facts'
INSERT_FACT = 'INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING'
