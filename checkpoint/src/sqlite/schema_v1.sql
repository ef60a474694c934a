CREATE TABLE leases (
    -- Two functions on one stream are two applications: they share no checkpoint.
    application TEXT NOT NULL,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    stream TEXT NOT NULL,
    -- Creation time in epoch seconds (Kinesis) or stream label (DynamoDB).
    epoch TEXT NOT NULL,
    shard TEXT NOT NULL,
    -- The fence and the heartbeat: rises with every write by an owner.
    lease_counter INTEGER NOT NULL DEFAULT 0,
    lease_owner TEXT,
    -- During a handoff only: the old owner, who may still renew and checkpoint.
    checkpoint_owner TEXT,
    -- Names one acquisition.
    concurrency_token TEXT,
    -- Kernel boot id, process id namespace and time namespace.
    owner_host TEXT,
    owner_pid INTEGER,
    -- Clock ticks since boot.
    owner_started INTEGER,
    owner_switches_since_checkpoint INTEGER NOT NULL DEFAULT 0,
    -- A sequence number, or TRIM_HORIZON, AT_TIMESTAMP, SHARD_END. Reading goes on after that record.
    checkpoint TEXT NOT NULL,
    -- The index in a KPL aggregate, 0 for a plain record.
    sub_sequence_number INTEGER NOT NULL DEFAULT 0,
    -- With AT_TIMESTAMP: milliseconds since 1970.
    at_timestamp_ms INTEGER,
    -- 1: reading goes on with the record itself.
    inclusive INTEGER NOT NULL DEFAULT 0,
    -- JSON lists of shard names.
    parent_shards TEXT NOT NULL DEFAULT '[]',
    child_shards TEXT NOT NULL DEFAULT '[]',
    starting_hash_key TEXT,
    ending_hash_key TEXT,
    -- A JSON object: what the consumer remembers next to the checkpoint.
    app TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (application, account, region, stream, epoch, shard)
) WITHOUT ROWID;
