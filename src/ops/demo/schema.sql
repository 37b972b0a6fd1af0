-- The tables of the demo app: plain DDL, as for one Postgres. `presplit provision` makes users, photos, follows and likes
-- in the schema of each shard; countries (reference) and invoices (on one host) in public, as shardmap.toml says.

CREATE TABLE countries (
    code char(2) PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE users (
    id         bigint PRIMARY KEY,
    name       text NOT NULL,
    country    char(2) REFERENCES countries (code),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE photos (
    id         bigserial PRIMARY KEY,           -- in [tables] as an id: its values carry the shard
    user_id    bigint NOT NULL,
    caption    text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX photos_of_user ON photos (user_id, id DESC);

CREATE TABLE follows (
    source_id  bigint NOT NULL,                 -- who follows: the shard key
    target_id  bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_id, target_id)
);

CREATE TABLE likes (
    user_id    bigint NOT NULL,
    photo_id   bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, photo_id)
);

CREATE TABLE invoices (
    id         bigserial PRIMARY KEY,
    user_id    bigint NOT NULL,
    cents      bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
