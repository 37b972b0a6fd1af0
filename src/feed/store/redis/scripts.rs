//! The scripts, which a server knows by their hashes once they are loaded.

use redis::{Cmd, Pipeline, Script, cmd};

pub(super) struct Scripts {
    pub(super) push: Script,
    pub(super) read: Script,
    /// The same, writing nothing.
    pub(super) read_replica: Script,
    pub(super) begin: Script,
    pub(super) complete: Script,
    pub(super) remove: Script,
    pub(super) epoch: Script,
    pub(super) put: Script,
    pub(super) wake: Script,
    pub(super) maps: Script,
    all: [&'static str; 10],
}

const PUSH: &str = concat!(
    "local REPLICA = false\n",
    include_str!("common.lua"),
    include_str!("push.lua")
);
const READ: &str = concat!(
    "local REPLICA = false\n",
    include_str!("common.lua"),
    include_str!("read.lua")
);
const READ_REPLICA: &str = concat!(
    "local REPLICA = true\n",
    include_str!("common.lua"),
    include_str!("read.lua")
);
const BEGIN: &str = concat!(
    "local REPLICA = false\n",
    include_str!("common.lua"),
    include_str!("begin.lua")
);
const COMPLETE: &str = concat!(
    "local REPLICA = false\n",
    include_str!("common.lua"),
    include_str!("complete.lua")
);
const REMOVE: &str = concat!(
    "local REPLICA = false\n",
    include_str!("common.lua"),
    include_str!("remove.lua")
);
const EPOCH: &str = concat!(
    "local REPLICA = false\n",
    include_str!("common.lua"),
    include_str!("epoch.lua")
);
const PUT: &str = concat!(
    "local REPLICA = false\n",
    include_str!("common.lua"),
    include_str!("put.lua")
);
const WAKE: &str = include_str!("wake.lua");
const MAPS: &str = include_str!("maps.lua");

impl Scripts {
    pub(super) fn new() -> Scripts {
        Scripts {
            push: Script::new(PUSH),
            read: Script::new(READ),
            read_replica: Script::new(READ_REPLICA),
            begin: Script::new(BEGIN),
            complete: Script::new(COMPLETE),
            remove: Script::new(REMOVE),
            epoch: Script::new(EPOCH),
            put: Script::new(PUT),
            wake: Script::new(WAKE),
            maps: Script::new(MAPS),
            all: [
                PUSH,
                READ,
                READ_REPLICA,
                BEGIN,
                COMPLETE,
                REMOVE,
                EPOCH,
                PUT,
                WAKE,
                MAPS,
            ],
        }
    }

    /// Makes them known to a server: a restart and SCRIPT FLUSH make it forget them.
    pub(super) fn load(&self) -> Pipeline {
        let mut load = Pipeline::new();
        for text in self.all {
            load.cmd("SCRIPT").arg("LOAD").arg(text).ignore();
        }
        load
    }
}

/// The call of a script; its arguments are to be added.
pub(super) fn call(script: &Script, keys: &[Vec<u8>]) -> Cmd {
    let mut call = cmd("EVALSHA");
    call.arg(script.get_hash()).arg(keys.len()).arg(keys);
    call
}
