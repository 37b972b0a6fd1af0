-- Beside the demo's tables: a sharded table with a column of each kind that the steps ask for.
CREATE TABLE things (
    user_id bigint NOT NULL,
    id      int NOT NULL,
    numbers int[],
    words   text[],
    data    jsonb,
    doc     json,
    at      timestamptz,
    local   timestamp,
    day     date,
    price   numeric(20, 6),
    big     numeric,
    ratio   double precision,
    bytes   bytea,
    flag    boolean,
    note    text,
    PRIMARY KEY (user_id, id)
);
