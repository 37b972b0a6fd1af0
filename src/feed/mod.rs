//! The feed service: a post is written to its author's shard, then fanned out to every follower's bounded list; reads take a few
//! ids from the list and look the objects up in a cache. It talks to the proxy as any client does (ordinary Postgres) and shares
//! only the layout of ids with it.
//!
//! # Words
//!
//! * *media*: a post. *author*: who made it. *source follows target*.
//! * *feed*: one user's list of media ids, newest first, at most [`FEED_MOST`] of them: what its followees posted, and it itself.
//! * *absent*: the store has no list of the user. It is built from Postgres when it is next read; a push to it is for nothing.
//! * *push*: at the time of posting; *pull*: at the time of reading, for authors with very many followers ([`stars`](schema)).
//! * *outbox*: rows that say what is to be done behind a write, in the same transaction as the write.
//!
//! # What must hold
//!
//! * Postgres is the truth; lists and cached objects can be lost at any time and are built anew.
//! * 201 means: media and outbox row are committed together. A worker may die anywhere: the row's lease runs out, another goes on
//!   behind `done_to`, and a push is idempotent.
//! * The truth of an edge is `follow_out` on the reader's own shard. A read shows an author only if the edge says so now; what a
//!   list holds is a candidate. So unfollow, block and mute hold on the next read without touching any list.
//! * An edge begins: `follow_out` committed, then `follow_in`, then the reader's list is dropped. A post that was fanned out before
//!   `follow_in` is found when the list is built; one that comes behind is pushed.

pub mod ahead;
mod alone;
mod apart;
pub mod api;
mod build;
pub mod clock;
pub mod config;
pub mod db;
mod depth;
mod edges;
pub mod fanout;
mod gate;
pub mod graph;
pub mod hook;
pub mod keep;
mod lag;
pub mod metrics;
mod newest;
mod objects;
pub mod outbox;
pub mod page;
pub mod plan;
pub mod post;
mod profile;
mod pulled;
pub mod read;
pub mod reconcile;
pub mod service;
pub mod shed;
mod shown;
pub mod slow;
pub mod stars;
pub mod statsd;
pub mod store;
mod sweep;
pub mod verify;
mod woken;

pub use objects::Object;

/// The SQL of the feed's tables, for `presplit provision`.
pub const SCHEMA: &str = include_str!("schema.sql");

/// What `[tables]` of the map says of them.
pub const TABLES: &str = "media = { ids = [\"id\"] }\nstars = { kind = \"reference\" }";

/// The most ids that a feed holds.
pub const FEED_MOST: usize = 800;

/// The oldest that an entry of a feed may be, in milliseconds: 30 days.
pub const FEED_AGE_MS: u64 = 30 * 24 * 3600 * 1000;

/// A user's id, the shard key of all tables.
pub type UserId = i64;

/// The id of a media row: sorts by time and carries its shard (see [`crate::shardmap`]'s ids).
pub type MediaId = i64;
