//! A script that runs: a process, awaited by a task.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;

use crate::sentinel::machine::Event;

/// Exit code of a script that cannot be run, as Redis' child has it; it is not tried again.
const CANNOT_RUN: i32 = 2;

/// Starts a script; what comes of it is told. The way to kill it is given, where it runs.
pub fn start(job: u64, argv: &[String], tell: &Sender<Event>) -> Option<oneshot::Sender<()>> {
    let (kill, killed) = oneshot::channel();
    // As it is checked: a name without a slash is one of this directory, and not looked for elsewhere.
    let program = Path::new(".").join(&argv[0]);
    let spawned = Command::new(program)
        .arg0(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .spawn();
    let tell = tell.clone();
    match spawned {
        Ok(mut child) => {
            let pid = child.id().unwrap_or(0);
            tokio::spawn(async move {
                // The driver may have ended.
                let _ = tell.send(Event::Started { job, pid }).await;
                let ended = tokio::select! {
                    ended = child.wait() => ended,
                    Ok(()) = killed => {
                        // One that has ended by itself need not be killed.
                        let _ = child.start_kill();
                        child.wait().await
                    }
                };
                let (code, signal) = match ended {
                    Ok(status) => (status.code().unwrap_or(0), status.signal().unwrap_or(0)),
                    Err(_) => (CANNOT_RUN, 0),
                };
                let _ = tell.send(Event::Ended { job, code, signal }).await;
            });
            Some(kill)
        }
        Err(error) => {
            let none_left = matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::OutOfMemory
            );
            let event = match none_left {
                true => Event::NotStarted { job },
                false => Event::Ended {
                    job,
                    code: CANNOT_RUN,
                    signal: 0,
                },
            };
            tokio::spawn(async move {
                let _ = tell.send(event).await;
            });
            None
        }
    }
}
