//! Child processes that never outlive the test that started them.
//!
//! Two nets hold them: `Drop` kills and reaps, and for the case that the test
//! process is itself killed, the kernel kills them through the parent-death
//! signal. Setting that from Rust needs `unsafe`, so `setpriv` sets it and then
//! becomes the program, under the same process id.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Part;

/// How many lines of a log an error shows.
const TAIL: usize = 25;

type Job = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts children from one thread that lives as long as this value.
///
/// The "parent" of the parent-death signal is the thread that started the
/// child, not its process. Test threads end with their test, and blocking
/// threads of a runtime end when idle; an instance shared by several tests would
/// be killed with the first of them.
#[derive(Debug)]
pub(super) struct Keeper {
    jobs: mpsc::Sender<Job>,
    has_setpriv: bool,
}

impl Keeper {
    pub(super) fn new() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new().name("kube-keeper".into()).spawn(move || {
            for (mut command, answer) in queue {
                // The asker waits for the answer; without one a child that
                // was just started would have no owner.
                if let Err(mpsc::SendError(Ok(mut orphan))) = answer.send(command.spawn()) {
                    let _ = orphan.kill();
                    let _ = orphan.wait();
                }
            }
        })?;
        Ok(Self { jobs, has_setpriv: has_setpriv() })
    }

    /// Starts `program`; what it prints is appended to `<part>.log` in `dir`.
    pub(super) fn start(
        &self,
        part: Part,
        program: &Path,
        args: &[String],
        dir: &Path,
    ) -> io::Result<Process> {
        let log = log_path(dir, part);
        let output = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = if self.has_setpriv {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C in a terminal goes to the owner only, which stops its
            // children in order.
            .process_group(0);
        let (answer, child) = mpsc::sync_channel(1);
        let gone = || io::Error::other("the thread that starts children is gone");
        self.jobs.send((command, answer)).map_err(|_| gone())?;
        let child = child.recv().map_err(|_| gone())??;
        let process = Process { part, child, log };
        fs::write(dir.join(part.name()).with_extension("pid"), process.pid().to_string())?;
        Ok(process)
    }
}

fn has_setpriv() -> bool {
    // Busybox has a setpriv without this option, so the option itself is tried.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Where the output of a part goes.
pub(super) fn log_path(dir: &Path, part: Part) -> PathBuf {
    dir.join(part.name()).with_extension("log")
}

/// One running child; killed and reaped on drop.
#[derive(Debug)]
pub(super) struct Process {
    part: Part,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn part(&self) -> Part {
        self.part
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(super) fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends a signal that does not end it (stop, continue).
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.pid()).map_err(io::Error::other)?;
        kill(Pid::from_raw(pid), signal).map_err(io::Error::from)
    }

    /// The last lines it logged.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        match text {
            Ok(text) => tail(&text),
            Err(error) => format!("(no log: {error})"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the child has ended and was reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_tail_is_the_end() {
        let text = (0..100).map(|n| format!("line {n}\n")).collect::<String>();
        let tail = tail(&text);
        assert!(tail.starts_with("line 75\n"), "{tail}");
        assert!(tail.ends_with("line 99"), "{tail}");
    }

    #[test]
    fn a_dropped_process_is_killed_and_reaped() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::new().unwrap();
        let process = keeper.start(Part::Etcd, Path::new("/bin/sleep"), &["600".into()], dir.path()).unwrap();
        let proc_entry = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc_entry.exists());
        drop(process);
        assert!(!proc_entry.exists());
    }

    #[test]
    fn a_process_survives_the_thread_that_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::new().unwrap();
        let beat = ["-c".into(), "while echo beat; do sleep 0.02; done".into()];
        let (_process, asker) = thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let process = keeper.start(Part::Etcd, Path::new("/bin/sh"), &beat, dir.path()).unwrap();
                (process, Path::new("/proc").join(fs::read_link("/proc/thread-self").unwrap()))
            });
            asked.join().unwrap()
        });
        let log = log_path(dir.path(), Part::Etcd);
        let beats = || fs::read(&log).unwrap().len();

        // The signal is sent while the thread leaves the process table; a
        // process that goes on beating after that was not meant by it.
        wait_for("the thread to be gone", || !asker.exists());
        let before = beats();
        wait_for("more beats", || beats() > before + 2 * "beat\n".len());
    }

    fn wait_for(what: &str, condition: impl Fn() -> bool) {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < Duration::from_secs(20), "waited for {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
