-- The counter is no longer the owner's sign of life: its worker's heartbeat is. An earlier version that has the file open would take every
-- lease whose counter stands still, so it must fail instead: the column's name is another one.
ALTER TABLE leases RENAME COLUMN lease_counter TO counter;
-- The life in which the owner acquired the lease: workers.epoch.
ALTER TABLE leases ADD COLUMN owner_epoch INTEGER;

DROP TABLE IF EXISTS workers;
-- A row is the last life of a worker. What it has not reported yet is NULL.
CREATE TABLE workers (
    -- No epoch is given out twice, not even after its row was deleted.
    epoch INTEGER PRIMARY KEY AUTOINCREMENT,
    application TEXT NOT NULL,
    worker TEXT NOT NULL,
    heartbeat INTEGER NOT NULL,
    -- 1: others have declared this life dead, so its heartbeat stands still for good.
    evicted INTEGER NOT NULL DEFAULT 0,
    -- The life before, and where its heartbeat stands still; NULL if there was none.
    former_epoch INTEGER,
    former_heartbeat INTEGER,
    lease_ms INTEGER,
    stopping INTEGER,
    leases INTEGER,
    records_per_minute INTEGER,
    maximum_leases INTEGER,
    version TEXT,
    host TEXT,
    started_ms INTEGER,
    process_host TEXT,
    process_pid INTEGER,
    process_started INTEGER,
    UNIQUE (application, worker)
);
