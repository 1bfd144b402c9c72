//! Runs the real program in a data directory of its own.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
#[cfg(target_os = "linux")]
use testnet::Host;

/// No single wait of a test takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A data directory, removed at the end, and the host on which programs with it run.
pub(crate) struct Place {
    directory: TempDir,
    #[cfg(target_os = "linux")]
    host: Option<Host>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            #[cfg(target_os = "linux")]
            host: None,
        }
    }

    /// A data directory on a host of a test internet.
    #[cfg(target_os = "linux")]
    pub(crate) fn on(host: &Host) -> Self {
        Self { host: Some(host.clone()), ..Self::new() }
    }

    /// The program, run where this place is.
    fn program(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_cairn");
        #[cfg(target_os = "linux")]
        if let Some(host) = &self.host {
            return host.command(Path::new(program));
        }
        Command::new(program)
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The program with this data directory, and nothing of the tester's environment that could change it.
    pub(crate) fn cairn(&self, arguments: &[&str]) -> Command {
        let mut command = self.program();
        command.args(arguments).env("CAIRN_HOME", self.home()).env_remove("CAIRN_LOG").stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.cairn(arguments).output().unwrap()
    }

    /// Starts `cairn up` and waits until it says where the pages are.
    pub(crate) fn up(&self, arguments: &[&str]) -> Up {
        self.start("up", arguments)
    }

    /// Starts a command that trains and serves pages, and waits until it says where they are.
    pub(crate) fn start(&self, command: &str, arguments: &[&str]) -> Up {
        let port = free_port();
        let port_text = port.to_string();
        let mut all = vec![command, "--port", &port_text];
        all.extend_from_slice(arguments);
        let mut up = self.listen(&all, port);
        up.wait_for("pages and API");
        up
    }

    /// As [`Self::start`]; a program that ends at once is started again, as by a person who tries again.
    pub(crate) fn start_until(&self, command: &str, arguments: &[&str], patience: Duration) -> Up {
        let (deadline, port) = (Instant::now() + patience, free_port());
        let port_text = port.to_string();
        let all = [&[command, "--port", &port_text], arguments].concat();
        loop {
            let mut up = self.listen(&all, port);
            if up.says("pages and API") {
                return up;
            }
            assert!(Instant::now() < deadline, "it never started:\n{}", up.said.join("\n"));
        }
    }

    /// Starts a command and listens to what it prints.
    pub(crate) fn listen(&self, all: &[&str], port: u16) -> Up {
        let mut child = self.cairn(all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, heard) = mpsc::channel();
        for stream in [
            Box::new(child.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>,
            Box::new(child.stderr.take().unwrap()),
        ] {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    // The test may be over.
                    let _ = lines.send(line);
                }
            });
        }
        Up {
            child,
            port,
            heard,
            said: Vec::new(),
            #[cfg(target_os = "linux")]
            host: self.host.clone(),
        }
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A running `cairn up`; killed when dropped.
pub(crate) struct Up {
    child: Child,
    pub(crate) port: u16,
    heard: mpsc::Receiver<String>,
    said: Vec<String>,
    #[cfg(target_os = "linux")]
    host: Option<Host>,
}

impl Up {
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits until the program prints a line with `part`.
    pub(crate) fn wait_for(&mut self, part: &str) -> String {
        self.wait_long_for(part, PATIENCE)
    }

    /// As [`Self::wait_for`], for so long.
    pub(crate) fn wait_long_for(&mut self, part: &str, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(error) => panic!("`{part}` was not printed ({error}); printed was:\n{}", self.said.join("\n")),
            }
        }
    }

    /// Waits for a line with `part`; false when the program ends without.
    fn says(&mut self, part: &str) -> bool {
        while let Ok(line) = self.heard.recv_timeout(PATIENCE) {
            let found = line.contains(part);
            self.said.push(line);
            if found {
                return true;
            }
        }
        false
    }

    /// The network's state as the page sees it.
    pub(crate) fn state(&self) -> Value {
        let url = format!("{}/net/state", self.url());
        self.inside(move || {
            let mut answer = ureq::get(url).call().unwrap();
            answer.body_mut().read_json().unwrap()
        })
    }

    /// The state in which something holds, which the page may see a moment after the terminal.
    pub(crate) fn wait_for_state(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let state = self.state();
            if holds(&state) {
                return state;
            }
            assert!(begun.elapsed() < PATIENCE, "{}", state["peers"]);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Does something with sockets of the host on which it runs.
    fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        #[cfg(target_os = "linux")]
        if let Some(host) = &self.host {
            return host.inside(act).unwrap();
        }
        act()
    }

    /// The user's piece as the page sees it, when there is one.
    pub(crate) fn piece(&self) -> Option<Value> {
        let mut answer = ureq::get(format!("{}/piece", self.url())).call().ok()?;
        answer.body_mut().read_json().ok()
    }

    pub(crate) fn rounds_done(&self) -> u64 {
        self.state()["run"]["round"].as_u64().unwrap_or(0)
    }

    /// Waits for the line of a completed round from this one on.
    pub(crate) fn wait_for_round(&mut self, round: u64) {
        loop {
            let line = self.wait_for("round ");
            let text = line.split("round ").nth(1).unwrap_or_default();
            let done: u64 = text.split('/').next().and_then(|number| number.trim().parse().ok()).unwrap_or(0);
            if done >= round {
                return;
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill_hard(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Presses Ctrl-C, and gives the exit code.
    pub(crate) fn interrupt(mut self) -> Option<i32> {
        let sent = Command::new("kill").args(["-INT", &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code()
    }

    /// Waits for the end, and gives exit code and everything that was printed.
    pub(crate) fn finish(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        while let Ok(line) = self.heard.recv_timeout(Duration::from_secs(5)) {
            self.said.push(line);
        }
        (code, self.said.join("\n"))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exit code and standard error of a command.
pub(crate) fn failed(output: &Output) -> (i32, String) {
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// All files below a folder, in a fixed order.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
