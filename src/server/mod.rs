//! Builds and joins the parts: start, the frame around the workers, periodic work, shutdown.

mod admin;
mod balance;
pub mod boot;
mod check_aof;
mod check_rdb;
#[allow(unsafe_code)]
mod crash;
mod cron;
mod frame;
mod limits;
mod memory_test;
mod metrics;
mod ports;
#[allow(unsafe_code)]
mod process;
mod shutdown;
#[allow(unsafe_code)]
mod stack;
mod system_check;
#[allow(unsafe_code)]
mod title;
mod users;
mod watchdog;
mod watching;

pub use boot::main;
