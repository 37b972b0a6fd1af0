//! The tables that statements are about: the demo's, with a column of every common type, nulls, quoted names and constraints.

use super::values::Type;

/// As for one Postgres. Defaults are constants: what differs by nature can't be compared.
pub const SCHEMA: &str = r#"
CREATE TABLE countries (
    code char(2) PRIMARY KEY, name text NOT NULL, population integer, rate numeric(6,2)
);
CREATE TABLE users (
    id bigint PRIMARY KEY, name text NOT NULL, country char(2) REFERENCES countries (code), age smallint,
    score numeric, rating double precision, active boolean NOT NULL DEFAULT true, born date, token uuid, avatar bytea,
    prefs jsonb NOT NULL DEFAULT '{}', tags text[] NOT NULL DEFAULT '{}', lucky bigint[],
    created_at timestamptz NOT NULL DEFAULT '2024-01-01 00:00:00+00'
);
CREATE TABLE photos (
    id bigserial PRIMARY KEY, user_id bigint NOT NULL, caption text NOT NULL DEFAULT '', likes integer NOT NULL DEFAULT 0,
    width smallint, price numeric(10,2), public boolean, taken date, meta jsonb, tags text[],
    created_at timestamptz NOT NULL DEFAULT '2024-01-01 00:00:00+00'
);
CREATE INDEX photos_of_user ON photos (user_id, id DESC);
CREATE TABLE follows (
    source_id bigint NOT NULL, target_id bigint NOT NULL, weight double precision CHECK (weight < 1000), note text,
    since date, PRIMARY KEY (source_id, target_id)
);
CREATE TABLE likes (
    user_id bigint NOT NULL, photo_id bigint NOT NULL, emoji text, stars smallint CHECK (stars BETWEEN 0 AND 5),
    created_at timestamptz NOT NULL DEFAULT '2024-01-01 00:00:00+00', PRIMARY KEY (user_id, photo_id)
);
CREATE TABLE albums (
    user_id bigint NOT NULL REFERENCES users (id), name text NOT NULL, position integer, "Cover Photo" bigint,
    PRIMARY KEY (user_id, name)
);
CREATE TABLE "Order" (
    "userId" bigint NOT NULL, "orderNo" integer NOT NULL, total numeric(10,2), paid boolean, note text,
    PRIMARY KEY ("userId", "orderNo")
);
CREATE TABLE invoices (
    id bigint PRIMARY KEY, user_id bigint NOT NULL, cents bigint NOT NULL, paid boolean, issued date
);
"#;

/// The inside of `[tables]`; `billing` is the host of the unsharded table.
pub fn rules(billing: &str) -> String {
    format!(
        "users = {{ key = \"id\" }}\nphotos = {{ ids = [\"id\"] }}\nfollows = {{ key = \"source_id\" }}\n\
         Order = {{ key = \"userId\" }}\ncountries = {{ kind = \"reference\" }}\ninvoices = {{ host = \"{billing}\" }}\n"
    )
}

/// Where the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sharded,
    Reference,
    Unsharded,
}

/// A column besides those of the primary key.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub of: Type,
    pub nullable: bool,
}

/// A table. `key` is the first column of the sharded; `unique` the others that make a row one of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    pub name: &'static str,
    pub kind: Kind,
    pub key: &'static str,
    pub unique: &'static [Column],
    pub others: &'static [Column],
}

const fn c(name: &'static str, of: Type) -> Column {
    Column {
        name,
        of,
        nullable: true,
    }
}

const fn not_null(name: &'static str, of: Type) -> Column {
    Column {
        name,
        of,
        nullable: false,
    }
}

pub const USERS: Table = Table {
    name: "users",
    kind: Kind::Sharded,
    key: "id",
    unique: &[],
    others: &[
        not_null("name", Type::Text),
        c("country", Type::Country),
        c("age", Type::Int2),
        c("score", Type::Numeric),
        c("rating", Type::Float8),
        not_null("active", Type::Bool),
        c("born", Type::Date),
        c("token", Type::Uuid),
        c("avatar", Type::Bytea),
        not_null("prefs", Type::Jsonb),
        not_null("tags", Type::Texts),
        c("lucky", Type::Int8s),
        not_null("created_at", Type::Timestamptz),
    ],
};

pub const PHOTOS: Table = Table {
    name: "photos",
    kind: Kind::Sharded,
    key: "user_id",
    unique: &[not_null("id", Type::Id)],
    others: &[
        not_null("caption", Type::Text),
        not_null("likes", Type::Int4),
        c("width", Type::Int2),
        c("price", Type::Numeric),
        c("public", Type::Bool),
        c("taken", Type::Date),
        c("meta", Type::Jsonb),
        c("tags", Type::Texts),
        not_null("created_at", Type::Timestamptz),
    ],
};

pub const FOLLOWS: Table = Table {
    name: "follows",
    kind: Kind::Sharded,
    key: "source_id",
    unique: &[not_null("target_id", Type::Key)],
    others: &[
        c("weight", Type::Float8),
        c("note", Type::Text),
        c("since", Type::Date),
    ],
};

pub const LIKES: Table = Table {
    name: "likes",
    kind: Kind::Sharded,
    key: "user_id",
    unique: &[not_null("photo_id", Type::Int8)],
    others: &[
        c("emoji", Type::Text),
        c("stars", Type::Stars),
        not_null("created_at", Type::Timestamptz),
    ],
};

pub const ALBUMS: Table = Table {
    name: "albums",
    kind: Kind::Sharded,
    key: "user_id",
    unique: &[not_null("name", Type::Text)],
    others: &[c("position", Type::Int4), c("\"Cover Photo\"", Type::Int8)],
};

pub const ORDERS: Table = Table {
    name: "\"Order\"",
    kind: Kind::Sharded,
    key: "\"userId\"",
    unique: &[not_null("\"orderNo\"", Type::Int4)],
    others: &[
        c("total", Type::Numeric),
        c("paid", Type::Bool),
        c("note", Type::Text),
    ],
};

pub const COUNTRIES: Table = Table {
    name: "countries",
    kind: Kind::Reference,
    key: "code",
    unique: &[],
    others: &[
        not_null("name", Type::Text),
        c("population", Type::Int4),
        c("rate", Type::Numeric),
    ],
};

pub const INVOICES: Table = Table {
    name: "invoices",
    kind: Kind::Unsharded,
    key: "id",
    unique: &[],
    others: &[
        not_null("user_id", Type::Key),
        not_null("cents", Type::Int8),
        c("paid", Type::Bool),
        c("issued", Type::Date),
    ],
};

/// In an order in which they can be filled; emptied in the reverse.
pub const TABLES: [Table; 8] = [
    COUNTRIES, USERS, PHOTOS, FOLLOWS, LIKES, ALBUMS, ORDERS, INVOICES,
];

/// The shard keys in use. The last two have no rows at first.
pub const KEYS: [i64; 20] = [
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    17,
    33,
    64,
    100,
    1023,
    -1,
    -7,
    2_147_483_648,
    9_007_199_254_740_993,
    65,
    500,
];

pub const CODES: [&str; 6] = ["at", "br", "jp", "ke", "us", "x "];

impl Table {
    /// The columns of the primary key.
    pub fn primary(&self) -> Vec<&'static str> {
        let mut names = vec![self.key];
        names.extend(self.unique.iter().map(|c| c.name));
        names
    }

    /// The type of the first column.
    pub fn key_type(&self) -> Type {
        match self.kind {
            Kind::Sharded => Type::Key,
            Kind::Reference => Type::Country,
            Kind::Unsharded => Type::Int8,
        }
    }

    /// Every column, the key first.
    pub fn columns(&self) -> Vec<Column> {
        let mut columns = vec![not_null(self.key, self.key_type())];
        columns.extend(self.unique);
        columns.extend(self.others);
        columns
    }
}
