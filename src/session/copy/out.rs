//! COPY TO STDOUT of several shards: their data one after the other, with what is said once for all of it said once.
