//! Children that this process has not started: what a function leaves behind is reparented to it when it is process 1
//! of a container, or because it asked for that (`PR_SET_CHILD_SUBREAPER`). When they end, no other process reaps them.

use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::signal::unix::{SignalKind, signal};

use super::{group, spawner, tree};

/// How often the table of processes is looked through at most.
const PAUSE: Duration = Duration::from_secs(1);

/// Becomes the parent of what functions leave behind, so that it stays known where it came from, and reaps it when it
/// ends. To be called once, inside a tokio runtime.
pub fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "what a function starts in a session of its own may outlive it");
    }
    let Ok(mut exits) = signal(SignalKind::child()) else { return };
    tokio::spawn(async move {
        while exits.recv().await.is_some() {
            // On the thread that starts processes: one that is just starting is known before it can be taken for an orphan.
            let _ = spawner::run(reap).await;
            tokio::time::sleep(PAUSE).await;
        }
    });
}

/// A child that is started here and waited for is a known leader, or shares this process's group, as the program that
/// a profile names for credentials does.
fn reap() {
    let own = tree::own_pid();
    let own_group = rustix::process::getpgrp().as_raw_nonzero().get();
    for entry in tree::all() {
        if entry.parent == own && entry.ended && entry.group != own_group && !group::is_leader(entry.pid) {
            let Some(pid) = Pid::from_raw(entry.pid) else { continue };
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}
