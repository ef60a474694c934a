//! One process of the function, in a process group of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::CommandOptions;
use super::api::{Invocation, Life, RuntimeApi};
use super::output;

/// A process that runs, or ran. Dropping it kills its group.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) api: Arc<RuntimeApi>,
    pub(super) work: mpsc::Sender<Invocation>,
    pub(super) life: watch::Receiver<Life>,
    pub(super) started: Instant,
    /// Whether it has answered an invocation.
    pub(super) proven: AtomicBool,
    group: Arc<Group>,
}

/// A process group that can be signalled as long as its leader has not been reaped.
#[derive(Debug)]
struct Group {
    leader: Mutex<Option<Pid>>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leader) = *leader {
            // It may have ended meanwhile.
            let _ = kill_process_group(leader, signal);
        }
    }

    /// Kills what the leader left behind; its number may be given to a stranger from now on.
    fn close(&self) {
        self.signal(Signal::KILL);
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Process {
    /// Starts `options.command` with a Runtime API of its own.
    pub(super) fn start(options: &CommandOptions) -> Result<Self, String> {
        let program = find_program(options)?;
        let (life_sender, life) = watch::channel(Life::Starting);
        let (work, work_receiver) = mpsc::channel(1);
        let (api, address) = RuntimeApi::start(life_sender.clone(), work_receiver)
            .map_err(|e| format!("no loopback port for the runtime API: {e}"))?;
        let mut command = tokio::process::Command::new(&program);
        command
            .args(&options.command[1..])
            .envs(super::environment::lambda(options))
            .envs(&options.environment)
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(directory) = &options.working_directory {
            command.current_dir(directory);
        }
        let mut child = command.spawn().map_err(|e| {
            api.close();
            format!("cannot start {}: {e}", program.display())
        })?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = Arc::new(Group { leader: Mutex::new(leader) });
        output::forward(&mut child, &api);
        tokio::spawn(watch_exit(child, Arc::clone(&group), life_sender));
        Ok(Self { api, work, life, started: Instant::now(), proven: AtomicBool::new(false), group })
    }

    /// Waits until the process is gone, and says how it ended.
    pub(super) async fn exited(&self) -> Arc<str> {
        let mut life = self.life.clone();
        match life.wait_for(|life| matches!(life, Life::Exited(_))).await.as_deref() {
            Ok(Life::Exited(how)) => Arc::clone(how),
            _ => "its exit was not seen".into(),
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(*self.life.borrow(), Life::Exited(_))
    }

    /// Asks the group to end.
    pub(super) fn terminate(&self) {
        self.group.signal(Signal::TERM);
    }

    /// Ends the group.
    pub(super) fn kill(&self) {
        self.group.signal(Signal::KILL);
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
        self.api.close();
    }
}

async fn watch_exit(mut child: Child, group: Arc<Group>, life: watch::Sender<Life>) {
    let how = match child.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => format!("its exit status cannot be read: {error}"),
    };
    group.close();
    life.send_modify(|life| {
        let how = match life {
            Life::InitFailed(error) => format!("{error} ({how})"),
            _ => how,
        };
        *life = Life::Exited(how.into());
    });
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

/// The directory in which the function runs.
pub(super) fn absolute_directory(configured: Option<&Path>) -> Result<PathBuf, String> {
    let current =
        std::env::current_dir().map_err(|e| format!("the working directory cannot be found out: {e}"))?;
    let Some(configured) = configured else { return Ok(current) };
    let directory = current.join(configured);
    if directory.is_dir() {
        Ok(directory)
    } else {
        Err(format!("Function.WorkingDirectory: {} is not a directory", directory.display()))
    }
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
