-- The benchmark's tables: in each shard's schema behind presplit, in `public` of one database without it.

CREATE TABLE accounts (
    user_id bigint PRIMARY KEY,
    balance int NOT NULL DEFAULT 0
);

CREATE TABLE history (
    user_id bigint NOT NULL,
    delta   int NOT NULL,
    at      timestamptz NOT NULL DEFAULT now()
);

-- For bench/stream.py.
CREATE TABLE items (
    user_id bigint NOT NULL,
    body    text
);
