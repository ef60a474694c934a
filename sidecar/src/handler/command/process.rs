//! One process of the function, in a process group of its own.

use std::io::{self, PipeReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::CommandOptions;
use super::api::{Ended, Invocation, Life, Owner, RuntimeApi};
use super::environment::{self, absolute_directory};
use super::group::Group;
use super::records::Records;
use super::{output, spawner, tree};
use crate::launch;

/// How long the end of what a process has printed is waited for: an unknown process may hold the pipe.
const TO_READ: Duration = Duration::from_secs(1);

/// A process that runs, or ran. Dropping it kills its group.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) api: Arc<RuntimeApi>,
    pub(super) work: mpsc::Sender<Invocation>,
    pub(super) life: watch::Receiver<Life>,
    pub(super) started: Instant,
    /// Whether it has answered an invocation.
    proven: AtomicBool,
    /// Whether it was ended from here.
    killed: AtomicBool,
    group: Arc<Group>,
}

impl Process {
    /// Starts `options.command` with a Runtime API of its own.
    pub(super) async fn start(
        options: &CommandOptions,
        records: Option<&Arc<Records>>,
    ) -> Result<Self, String> {
        let (options, records) = (options.clone(), records.map(Arc::clone));
        let started = spawner::run(move || Self::spawn(&options, records)).await;
        started.unwrap_or_else(|| Err("the start of the process failed unexpectedly".into()))
    }

    fn spawn(options: &CommandOptions, records: Option<Arc<Records>>) -> Result<Self, String> {
        let program = find_program(options)?;
        let (life_sender, life) = watch::channel(Life::Starting);
        let (work, work_receiver) = mpsc::channel(options.concurrency());
        let (api, listener) = RuntimeApi::bind(life_sender.clone(), work_receiver, options)
            .map_err(|e| format!("no loopback port for the runtime API: {e}"))?;
        let failed = |e: io::Error| format!("cannot start {}: {e}", program.display());
        // Before the start, so that no exit is missed.
        let exits = signal(SignalKind::child()).map_err(failed)?;
        let mark = uuid::Uuid::new_v4().simple().to_string();
        let (mut command, messages) = command(options, &program).map_err(failed)?;
        command
            // One that the sidecar happens to have is not this function's.
            .env_remove("AWS_LAMBDA_MAX_CONCURRENCY")
            .envs(environment::lambda(options))
            .envs(&options.environment)
            .env("AWS_LAMBDA_RUNTIME_API", api.address().to_string())
            .env(tree::MARK, &mark)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(directory) = &options.working_directory {
            command.current_dir(directory);
        }
        let mut child = command.spawn().map_err(failed)?;
        // With it goes our copy of the other end of the pipe.
        drop(command);
        let leader = Pid::from_child(&child);
        let group = Group::new(leader, mark.clone());
        if let Some(records) = &records {
            records.add(group.family());
        }
        api.serve(listener, Owner { leader: leader.as_raw_nonzero().get(), mark });
        let stderr = output::forward(&mut child, &api);
        if let Some(messages) = messages {
            output::forward_messages(messages, child.id(), &api);
        }
        let said = options.launcher.is_some().then(|| (Arc::clone(&api), stderr));
        let exit = watch_exit(child, leader, exits, Arc::clone(&group), records);
        tokio::spawn(async move {
            let (ended, code) = exit.await;
            let reason = match said {
                Some((api, stderr)) if code == Some(launch::NOT_STARTED.into()) => {
                    why_not_started(&api, stderr).await
                }
                _ => None,
            };
            tell_exit(&life_sender, ended, reason);
        });
        Ok(Self {
            api,
            work,
            life,
            started: Instant::now(),
            proven: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            group,
        })
    }

    /// Waits until the process is gone, and returns how it ended.
    pub(super) async fn exited(&self) -> Ended {
        let mut life = self.life.clone();
        match life.wait_for(|life| matches!(life, Life::Exited(_))).await.as_deref() {
            Ok(Life::Exited(ended)) => ended.clone(),
            _ => Ended { how: "its exit was not seen".into(), by_signal: false },
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(*self.life.borrow(), Life::Exited(_))
    }

    /// Asks the group to end.
    pub(super) fn terminate(&self) {
        self.group.signal(Signal::TERM);
    }

    /// Ends the process and all that it has started. A process that is started afterwards starts when they are gone.
    pub(super) fn kill(&self) {
        if self.is_gone() {
            return;
        }
        self.killed.store(true, Ordering::Relaxed);
        // At once, even if the thread is busy: the process does nothing any more until it is killed there.
        self.group.signal(Signal::STOP);
        let group = Arc::clone(&self.group);
        spawner::submit(move || group.end());
    }

    /// Whether it was ended from here.
    pub(super) fn was_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    pub(super) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // Also where the thread gets no time for it any more.
        self.group.signal(Signal::KILL);
        self.api.close();
    }
}

/// The program itself, or the launcher that becomes it; with one, what is logged through `_LAMBDA_TELEMETRY_LOG_FD`.
fn command(options: &CommandOptions, program: &Path) -> io::Result<(Command, Option<PipeReader>)> {
    let Some(launcher) = &options.launcher else {
        let mut command = Command::new(program);
        command.args(&options.command[1..]).stdin(Stdio::null()).env_remove(launch::LOG_FD);
        return Ok((command, None));
    };
    // Several processes of a runtime that share the pipe would mix their messages up.
    let logs = options.concurrency() == 1 && is_runtime_client(&options.command);
    let mut command = Command::new(launcher);
    command.args(launch::arguments(program, logs)).args(&options.command[1..]).env_remove(launch::LOG_FD);
    if !logs {
        command.stdin(Stdio::null());
        return Ok((command, None));
    }
    let (reader, writer) = io::pipe()?;
    command.stdin(writer);
    Ok((command, Some(reader)))
}

/// Whether the program that is started is itself the runtime client, which inherits a descriptor and writes to it. A launcher
/// such as npx, or a script that starts the client, may close the descriptor and pass its number on all the same: then the
/// client fails with every line that it logs.
fn is_runtime_client(command: &[String]) -> bool {
    let Some((program, arguments)) = command.split_first() else { return false };
    let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_module = |pair: &[String]| pair == ["-m", "awslambdaric"];
    match name {
        "aws-lambda-ric" => true,
        "node" => arguments.first().is_some_and(|script| script.contains("aws-lambda-ric")),
        _ => name.starts_with("python") && arguments.windows(2).any(is_module),
    }
}

async fn watch_exit(
    child: Child,
    leader: Pid,
    mut exits: tokio::signal::unix::Signal,
    group: Arc<Group>,
    records: Option<Arc<Records>>,
) -> (Ended, Option<i32>) {
    while is_running(leader) && exits.recv().await.is_some() {}
    // Its number is its own until it is reaped, so what it left behind is ended before.
    let status = spawner::run(move || {
        group.close();
        if let Some(records) = records {
            records.remove(leader.as_raw_nonzero().get());
        }
        let mut child = child;
        child.wait()
    });
    let unknown = |how: String| (Ended { how: how.into(), by_signal: false }, None);
    match status.await {
        Some(Ok(status)) => {
            (Ended { how: status.to_string().into(), by_signal: by_signal(status) }, status.code())
        }
        Some(Err(error)) => unknown(format!("its exit status cannot be read: {error}")),
        None => unknown("its exit status was lost".into()),
    }
}

/// What the launcher said last, once all of it is read.
async fn why_not_started(api: &RuntimeApi, stderr: Option<JoinHandle<()>>) -> Option<String> {
    let _ = tokio::time::timeout(TO_READ, stderr?).await;
    api.cannot_start().map(str::to_owned)
}

fn tell_exit(life: &watch::Sender<Life>, ended: Ended, reason: Option<String>) {
    life.send_modify(|life| {
        let how = match (&*life, reason) {
            (Life::InitFailed(error), _) => format!("{} ({})", error.summary, ended.how).into(),
            (Life::Starting, Some(reason)) => format!("{reason} ({})", ended.how).into(),
            _ => ended.how,
        };
        *life = Life::Exited(Ended { how, ..ended });
    });
}

/// Looks without reaping.
fn is_running(leader: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        match waitid(WaitId::Pid(leader), look) {
            Ok(ended) => return ended.is_none(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Whether it ended by one of the signals with which processes are stopped, or reports so as shells do (128 + number).
fn by_signal(status: ExitStatus) -> bool {
    let number = status.signal().or_else(|| status.code().and_then(|code| code.checked_sub(128)));
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::KILL].iter().any(|s| Some(s.as_raw()) == number)
}

/// The file that `command[0]` names: a path, relative to the working directory, or a name on the PATH.
pub(super) fn find_program(options: &CommandOptions) -> Result<PathBuf, String> {
    let program = Path::new(&options.command[0]);
    let directory = absolute_directory(options.working_directory.as_deref())?;
    if program.components().count() > 1 || program.is_absolute() {
        let file = directory.join(program);
        return check_executable(&file).map(|()| file);
    }
    let path = options.environment.get("PATH").map(Into::into).or_else(|| std::env::var_os("PATH"));
    let mut refused = None;
    for folder in std::env::split_paths(&path.unwrap_or_default()) {
        let file = directory.join(folder).join(program);
        match check_executable(&file) {
            Ok(()) => return Ok(file),
            Err(reason) if file.exists() => refused = Some(reason),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| format!("Function.Command: {} is not on the PATH", program.display())))
}

fn check_executable(file: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let describe = |e: io::Error| format!("Function.Command: {}: {e}", file.display());
    let metadata = std::fs::metadata(file).map_err(describe)?;
    if !metadata.is_file() {
        return Err(format!("Function.Command: {} is not a file", file.display()));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!("Function.Command: {} is not executable; chmod +x it", file.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_runtime_client;

    #[test]
    fn incident_107_only_a_runtime_client_gets_a_descriptor_for_its_log() {
        let is_client =
            |text: &str| is_runtime_client(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for direct in [
            "python3 -m awslambdaric app.handler",
            "/venv/bin/python3.13 -u -m awslambdaric app.handler",
            "node_modules/.bin/aws-lambda-ric index.handler",
            "node node_modules/aws-lambda-ric/bin/index.mjs index.handler",
        ] {
            assert!(is_client(direct), "{direct}");
        }
        for launcher in [
            "npx aws-lambda-ric index.handler",
            "python3 wrap.py -m app",
            "sh -c aws-lambda-ric",
            "env node aws-lambda-ric",
            "./bootstrap",
        ] {
            assert!(!is_client(launcher), "{launcher}");
        }
    }
}
