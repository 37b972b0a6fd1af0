//! An operator's work: commands that change hosts or maps. An operation never touches a session.

pub mod cluster;
pub mod connect;
pub mod deadlock;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod health;
pub mod provision;
pub mod recovery;
