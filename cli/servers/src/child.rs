//! A child process that never outlives us: each has a thread of its own that starts it, waits for it and reaps it. The kernel's
//! parent-death signal is bound to the *thread* that forks, so that thread must live as long as the child.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::ServerError;
use crate::log_file::LogFile;

/// A child process. Dropping it ends it with the signal that it would get on our death.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    on_parent_death: Signal,
    // Held while signalling and while reaping, so that a signal never reaches another process that got the number.
    reaped: Arc<Mutex<bool>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Child {
    /// Starts the command. When this process dies, in whatever way, the child gets `on_parent_death`.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn spawn(mut command: Command, on_parent_death: Signal) -> io::Result<Self> {
        die_with_parent(&mut command, on_parent_death);
        let reaped = Arc::new(Mutex::new(false));
        let (exit_sender, exit) = watch::channel(None);
        let (started_sender, started) = mpsc::channel();
        let reaped_by_thread = reaped.clone();
        let name = command.get_program().to_string_lossy().chars().rev().take(15).collect::<Vec<_>>();
        std::thread::Builder::new().name(name.into_iter().rev().collect()).spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    let _ = started_sender.send(Err(error));
                    return;
                }
            };
            let pid = child.id();
            let _ = started_sender.send(Ok(pid));
            wait_without_reaping(pid);
            let mut reaped = reaped_by_thread.lock().unwrap_or_else(PoisonError::into_inner);
            *reaped = true;
            let status = child.wait();
            drop(reaped);
            if let Ok(status) = status {
                exit_sender.send_replace(Some(status));
            }
        })?;
        let pid = started.recv().map_err(|_| io::Error::other("the thread that starts the process ended"))??;
        Ok(Self { pid, on_parent_death, reaped, exit })
    }

    /// Starts a server, in a process group of its own, that writes into this log; the position is where what it writes begins.
    pub(crate) fn spawn_logging(mut command: Command, on_parent_death: Signal, log: &LogFile) -> Result<(Self, u64), ServerError> {
        let doing = format!("start {}", command.get_program().display());
        let system = |source| ServerError::System { doing, source };
        let (output, from) = log.open()?;
        let started = output.try_clone().and_then(|errors| {
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
            own_process_group(&mut command);
            Self::spawn(command, on_parent_death)
        });
        Ok((started.map_err(system)?, from))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; does nothing where the process has ended.
    pub fn signal(&self, signal: Signal) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            // It fails only for a process that has just ended.
            let _ = nix::sys::signal::kill(Pid::from_raw(self.pid.cast_signed()), signal);
        }
    }

    /// How it ended, where it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits for the end.
    pub async fn wait_exit(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        // The sender goes without a value only where waiting itself failed: then there is no such process.
        exit.wait_for(Option::is_some).await.ok().and_then(|status| *status).unwrap_or_default()
    }

    /// Sends `signal`, and SIGKILL where the process has not ended after `patience`. Returns when it has ended.
    pub async fn stop(&self, signal: Signal, patience: Duration) -> ExitStatus {
        self.signal(signal);
        match tokio::time::timeout(patience, self.wait_exit()).await {
            Ok(status) => status,
            Err(_) => {
                tracing::warn!(pid = self.pid, "process did not end within {patience:?} of {signal}; it is killed");
                self.signal(Signal::SIGKILL);
                self.wait_exit().await
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(self.on_parent_death);
    }
}

fn wait_without_reaping(pid: u32) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    while let Err(nix::errno::Errno::EINTR) = waitid(Id::Pid(Pid::from_raw(pid.cast_signed())), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
    {
    }
}

/// Gives the command a process group of its own: Ctrl-C in a terminal goes to the whole group, and servers are stopped by us, in order.
pub(crate) fn own_process_group(command: &mut Command) {
    command.process_group(0);
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong) != 0 {
                return Err(io::Error::last_os_error());
            }
            // A parent that died before the call above sends nothing any more.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

// Elsewhere nothing of the kind exists: after a crash of ours the children stay until they are stopped by hand.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command, _: Signal) {}
