//! What the bus' thread is told by its links, its file and those who work beside it.

use std::io;

use bytes::Bytes;

use crate::cluster::id::NodeId;
use crate::cluster::node::LinkId;
use crate::wire::Socket;

/// What the thread is told.
pub enum Happened {
    /// Somebody connected.
    Accepted(Socket),
    /// A connection that we wanted is there, or not to be had.
    Connected(LinkId, io::Result<Socket>),
    /// A message came.
    Message(LinkId, Bytes),
    /// A link ended.
    Ended(LinkId),
    /// A node's name was looked up: the addresses that it has.
    LookedUp(NodeId, Vec<String>),
    /// The name by which this server is found; empty without one.
    Named(String),
    /// A write of the file ended.
    Saved(u64, Result<(), String>),
    /// Nobody's write is under way any more.
    Paused,
    /// This server is the primary that it was told to be.
    Leads(u64),
    /// The data set was dropped.
    Emptied,
}
