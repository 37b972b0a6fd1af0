//! COPY: data passed on as it comes, rows split by shard, data of several shards gathered.

mod context;
mod data;
mod feed;
mod out;
mod pass;
mod rows;
mod server;
