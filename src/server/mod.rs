//! Builds and joins the parts: start, the frame around the workers, periodic work, shutdown.

pub mod boot;
pub mod cron;
pub mod frame;
mod limits;
mod process;

pub use boot::main;
