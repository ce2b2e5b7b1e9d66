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
    'CREATE TABLE inline_projections ( name TEXT NOT NULL, version INTEGER NOT NULL, types TEXT NOT NULL, PRIMARY KEY (name) )',
    'CREATE TABLE inline_states ( projection TEXT NOT NULL, stream_id BIGINT NOT NULL, state BLOB NOT NULL, PRIMARY KEY (projection, stream_id) )',
    'CREATE TABLE archives ( number INTEGER NOT NULL, segment TEXT NOT NULL, digest BLOB NOT NULL, size BIGINT NOT NULL, kind TEXT NOT NULL, first BIGINT NOT NULL, last BIGINT NOT NULL, events INTEGER NOT NULL, positions BLOB NOT NULL, leaves BLOB NOT NULL, PRIMARY KEY (number) )',
    'CREATE TABLE archived_streams ( stream_id BIGINT NOT NULL, first_version INTEGER NOT NULL, last_version INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (stream_id, first_version) ) WITHOUT ROWID',
    'CREATE TABLE archived_blobs ( digest BLOB NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (digest) ) WITHOUT ROWID',
    "CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
    "CREATE TRIGGER events_no_delete BEFORE DELETE ON events WHEN NOT EXISTS (SELECT 1 FROM archived_streams a WHERE a.stream_id = OLD.stream_id AND a.first_version <= OLD.version AND a.last_version >= OLD.version AND a.number = (SELECT e.version FROM events e JOIN streams s ON s.id = e.stream_id AND e.version = s.version + 1 JOIN event_types t ON t.id = e.type_id WHERE s.name = 'archives' AND t.name = 'log.archived' AND e.position = (SELECT max(position) FROM events))) BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
    "CREATE TRIGGER events_no_replace BEFORE INSERT ON events WHEN EXISTS (SELECT 1 FROM events WHERE position = NEW.position) OR EXISTS (SELECT 1 FROM events WHERE event_id = NEW.event_id) OR EXISTS (SELECT 1 FROM events WHERE stream_id = NEW.stream_id AND version = NEW.version) BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
    "CREATE TRIGGER blobs_no_update BEFORE UPDATE ON blobs BEGIN SELECT RAISE(ABORT, 'blobs are immutable'); END",
    "CREATE TRIGGER archives_no_update BEFORE UPDATE ON archives  BEGIN SELECT RAISE(ABORT, 'archives are append-only'); END",
    "CREATE TRIGGER archives_no_delete BEFORE DELETE ON archives WHEN EXISTS (SELECT 1 FROM archived_streams a WHERE a.number = OLD.number) BEGIN SELECT RAISE(ABORT, 'archives are append-only'); END",
    "CREATE TRIGGER archived_streams_no_update BEFORE UPDATE ON archived_streams  BEGIN SELECT RAISE(ABORT, 'archives are append-only'); END",
    "CREATE TRIGGER archived_streams_no_delete BEFORE DELETE ON archived_streams WHEN NOT EXISTS (SELECT 1 FROM events e WHERE e.stream_id = OLD.stream_id AND e.version = OLD.last_version) BEGIN SELECT RAISE(ABORT, 'archives are append-only'); END",
)
ADDED = {
    2: ('CREATE TABLE liveness ( process TEXT NOT NULL, beat BIGINT NOT NULL, PRIMARY KEY (process) )', 'CREATE TABLE subscriptions ( name TEXT NOT NULL, position BIGINT NOT NULL, epoch INTEGER NOT NULL, owner TEXT NOT NULL, lease BIGINT NOT NULL, PRIMARY KEY (name) )'),
    3: ('CREATE TABLE inline_projections ( name TEXT NOT NULL, version INTEGER NOT NULL, types TEXT NOT NULL, PRIMARY KEY (name) )', 'CREATE TABLE inline_states ( projection TEXT NOT NULL, stream_id BIGINT NOT NULL, state BLOB NOT NULL, PRIMARY KEY (projection, stream_id) )'),
    4: ('CREATE TABLE archives ( number INTEGER NOT NULL, segment TEXT NOT NULL, digest BLOB NOT NULL, size BIGINT NOT NULL, kind TEXT NOT NULL, first BIGINT NOT NULL, last BIGINT NOT NULL, events INTEGER NOT NULL, positions BLOB NOT NULL, leaves BLOB NOT NULL, PRIMARY KEY (number) )', 'CREATE TABLE archived_streams ( stream_id BIGINT NOT NULL, first_version INTEGER NOT NULL, last_version INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (stream_id, first_version) ) WITHOUT ROWID', 'CREATE TABLE archived_blobs ( digest BLOB NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (digest) ) WITHOUT ROWID', 'DROP TRIGGER events_no_delete', "CREATE TRIGGER events_no_delete BEFORE DELETE ON events WHEN NOT EXISTS (SELECT 1 FROM archived_streams a WHERE a.stream_id = OLD.stream_id AND a.first_version <= OLD.version AND a.last_version >= OLD.version AND a.number = (SELECT e.version FROM events e JOIN streams s ON s.id = e.stream_id AND e.version = s.version + 1 JOIN event_types t ON t.id = e.type_id WHERE s.name = 'archives' AND t.name = 'log.archived' AND e.position = (SELECT max(position) FROM events))) BEGIN SELECT RAISE(ABORT, 'events are append-only'); END", "CREATE TRIGGER archives_no_update BEFORE UPDATE ON archives  BEGIN SELECT RAISE(ABORT, 'archives are append-only'); END", "CREATE TRIGGER archives_no_delete BEFORE DELETE ON archives WHEN EXISTS (SELECT 1 FROM archived_streams a WHERE a.number = OLD.number) BEGIN SELECT RAISE(ABORT, 'archives are append-only'); END", "CREATE TRIGGER archived_streams_no_update BEFORE UPDATE ON archived_streams  BEGIN SELECT RAISE(ABORT, 'archives are append-only'); END", "CREATE TRIGGER archived_streams_no_delete BEFORE DELETE ON archived_streams WHEN NOT EXISTS (SELECT 1 FROM events e WHERE e.stream_id = OLD.stream_id AND e.version = OLD.last_version) BEGIN SELECT RAISE(ABORT, 'archives are append-only'); END"),
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
SELECT_ALL = 'SELECT events.position, events.recorded_at, events.record FROM events WHERE events.position > ? ORDER BY events.position LIMIT ?'
SELECT_INDEXED = "SELECT events.position, events.recorded_at, events.record, coalesce(streams.name, '') AS coalesce_1, events.version, events.event_id, coalesce(event_types.name, '') AS coalesce_2 FROM events LEFT OUTER JOIN streams ON streams.id = events.stream_id LEFT OUTER JOIN event_types ON event_types.id = events.type_id WHERE events.position > ? ORDER BY events.position LIMIT ?"
SELECT_ENDS = 'SELECT streams.name, streams.version, streams.hash, streams.epoch FROM streams ORDER BY streams.id'
SELECT_BLOBS = 'SELECT blobs.digest, blobs.content FROM blobs WHERE blobs.digest IN'
SELECT_INLINES = 'SELECT inline_projections.name, inline_projections.version, inline_projections.types FROM inline_projections'
PUT_INLINE = 'INSERT INTO inline_projections (name, version, types) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET version = excluded.version, types = excluded.types'
DROP_INLINES = 'DELETE FROM inline_projections'
SELECT_STATE = 'SELECT inline_states.state FROM inline_states WHERE inline_states.projection = ? AND inline_states.stream_id = ?'
SELECT_KEPT = 'SELECT inline_projections.version, coalesce(streams.version, 0) AS coalesce_1, inline_states.state FROM inline_projections LEFT OUTER JOIN streams ON streams.name = ? LEFT OUTER JOIN inline_states ON inline_states.stream_id = streams.id AND inline_states.projection = inline_projections.name WHERE inline_projections.name = ?'
SELECT_STATES = 'SELECT inline_projections.version, streams.name, inline_states.state FROM inline_projections LEFT OUTER JOIN inline_states ON inline_states.projection = inline_projections.name LEFT OUTER JOIN streams ON streams.id = inline_states.stream_id WHERE inline_projections.name = ?'
PUT_STATE = 'INSERT INTO inline_states (projection, stream_id, state) VALUES (?, ?, ?) ON CONFLICT (projection, stream_id) DO UPDATE SET state = excluded.state'
DROP_STATE = 'DELETE FROM inline_states WHERE inline_states.projection = ? AND inline_states.stream_id = ?'
DROP_STATES = 'DELETE FROM inline_states WHERE inline_states.projection = ?'
SELECT_RECORDS = 'SELECT events.stream_id, events.record FROM events WHERE events.type_id IN (SELECT event_types.id FROM event_types WHERE event_types.name IN (%s)) ORDER BY events.stream_id, events.version'
SELECT_ARCHIVES = 'SELECT archives.number, archives.segment, archives.digest, archives.size, archives.kind, archives.first, archives.last, archives.events FROM archives ORDER BY archives.first'
SELECT_PARTS = 'SELECT streams.name, archived_streams.first_version, archived_streams.last_version, archived_streams.hash, archived_streams.epoch, archived_streams.number FROM archived_streams JOIN streams ON streams.id = archived_streams.stream_id WHERE streams.name = ? AND archived_streams.last_version > ? ORDER BY archived_streams.first_version'
SELECT_ARCHIVED_BLOBS = 'SELECT archived_blobs.digest, archived_blobs.number FROM archived_blobs WHERE archived_blobs.digest IN'
SELECT_FACTS = 'SELECT facts.name, facts.value FROM facts'
INSERT_FACT = 'INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING'
