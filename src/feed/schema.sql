-- The tables of the feed service, sharded by user_id like any app's. In the map: media = { ids = ["id"] } (and no other line);
-- stars is a reference table. An object is of its author's shard; an edge is of its source's shard (follow_out, the truth)
-- and mirrored on its target's (follow_in), so that an author, its media, its outbox and its followers are on one shard.

CREATE TABLE media (
    id         bigserial PRIMARY KEY,                       -- an id: its values carry the shard and sort by time
    user_id    bigint NOT NULL,                             -- the author
    body       jsonb NOT NULL,                              -- what the app wants to see again
    idem_key   text,                                        -- Idempotency-Key of the call that made it
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,                                 -- a tombstone; the row stays until it is swept
    UNIQUE (user_id, idem_key)
);
CREATE INDEX media_of_user ON media (user_id, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX media_deleted ON media (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE follow_out (
    user_id    bigint NOT NULL,                             -- the source: who follows
    target     bigint NOT NULL,
    status     text NOT NULL CHECK (status IN ('following', 'requested', 'blocking', 'gone')),
    muted      boolean NOT NULL DEFAULT false,
    rev        bigint NOT NULL,                             -- goes up with every change of the status
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, target)
);
CREATE INDEX follow_out_gone ON follow_out (changed_at) WHERE status = 'gone';

CREATE TABLE follow_in (
    user_id    bigint NOT NULL,                             -- the target: who is followed
    source     bigint NOT NULL,
    status     text NOT NULL CHECK (status IN ('following', 'requested', 'blocking', 'gone')),
    rev        bigint NOT NULL,                             -- of the follow_out row that it mirrors: an older one changes nothing
    PRIMARY KEY (user_id, source)
);
CREATE INDEX followers ON follow_in (user_id, source) WHERE status = 'following';

CREATE TABLE user_state (
    user_id    bigint PRIMARY KEY,
    private    boolean NOT NULL DEFAULT false,              -- who follows is asked for
    changed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE counters (
    user_id    bigint NOT NULL,
    name       text NOT NULL,                               -- 'posts', 'followers', 'following'
    slot       smallint NOT NULL DEFAULT 0,                 -- several rows for hot ones, summed on read
    value      bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, name, slot)
);

-- What is to be done behind a write, written in the same transaction. A worker takes a row by pushing `due_at` into the future
-- (its lease), and deletes it when all is done; if the webhook has yet to hear of it, it stays with `due_at` at infinity.
CREATE TABLE outbox (
    id         bigserial PRIMARY KEY,
    user_id    bigint NOT NULL,                             -- whose shard it is on: the author, the source
    kind       text NOT NULL CHECK (kind IN ('post', 'delete', 'edge')),
    object     bigint NOT NULL,                             -- the media id, or the edge's target
    rev        bigint NOT NULL DEFAULT 0,                   -- of the edge
    cut        bigint,                                      -- of an edge that blocks, or did: edges back that are older than this `rev` end
    done_to    bigint,                                      -- the last follower who has it: where to go on
    due_at     timestamptz NOT NULL DEFAULT now(),
    attempts   integer NOT NULL DEFAULT 0,
    error      text,                                        -- of the last attempt
    dead_at    timestamptz,                                 -- set aside: it failed too often
    hook_at    timestamptz,                                 -- when the webhook is to hear of it; none: it has, or need not
    hook_tries integer NOT NULL DEFAULT 0,                  -- how often it did not take it
    hook_error text,                                        -- what it said last
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_due ON outbox (due_at) WHERE dead_at IS NULL;
CREATE INDEX outbox_hook ON outbox (hook_at) WHERE hook_at IS NOT NULL;

-- Authors with so many followers that their posts are not pushed but pulled when a feed is read: those with
-- pull_from <= id < pull_to. Boundaries lie some seconds ahead when they are set, so that every reader knows in time.
CREATE TABLE stars (
    author     bigint PRIMARY KEY,
    pull_from  bigint NOT NULL,
    pull_to    bigint                                       -- none: still pulled
);
