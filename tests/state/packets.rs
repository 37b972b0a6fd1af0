//! What a statement costs on the wire between proxy and host, whatever the settings: the same packets.
