//! What is written in `shardmap.toml`, with the place of each thing.
