//! Builds and joins the parts: start, the frame around the workers, periodic work, shutdown.

pub mod boot;
mod cron;
mod frame;
mod limits;
#[allow(unsafe_code)]
mod process;

pub use boot::main;
