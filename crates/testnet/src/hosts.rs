//! Hosts: network namespaces with real interfaces, the kernel's own address translation, and a share of the processors.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use node::LinkSpec;
use node::links::medium::Tally;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::forwarder::{Forwarded, Forwarder};

/// Most hosts of one internet.
pub const HOSTS_MAX: usize = 200;
/// The period of a group's share of the processors, in microseconds.
const CPU_PERIOD_US: u64 = 50_000;

/// How a host's router translates addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nat {
    /// There is none: the host has a public address.
    #[default]
    None,
    /// As most home routers do: a socket keeps its port as long as that is free, whomever it talks to, so that others can be told of it.
    PortPreserving,
    /// Every connection gets another port: what others are told of a socket is useless to them.
    Symmetric,
}

/// What a host is like.
#[derive(Clone, Debug, Default)]
pub struct HostSpec {
    /// Its access link.
    pub link: LinkSpec,
    /// Its router.
    pub nat: Nat,
    /// Its share of one processor in percent, 1 and up; none for all that there are.
    pub cpu_percent: Option<u32>,
}

/// Why there can be no internet here.
#[derive(Debug, thiserror::Error)]
pub enum InternetError {
    /// Something is missing on this machine, and a test may skip.
    #[error("no test internet here: {0}")]
    Unavailable(String),
    /// A command failed.
    #[error("`{command}` failed: {said}")]
    Command {
        /// The whole command.
        command: String,
        /// What it printed.
        said: String,
    },
    /// A file or a thread.
    #[error("test internet: {0}")]
    Io(#[from] io::Error),
    /// More hosts than addresses.
    #[error("a test internet has at most {HOSTS_MAX} hosts")]
    TooMany,
}

/// A small internet. Dropping it removes what it made; programs on its hosts must have ended.
#[derive(Debug)]
pub struct Internet {
    forwarder: Forwarder,
    /// What its namespaces' names begin with.
    prefix: String,
    hosts: AtomicU32,
    made: std::sync::Mutex<Made>,
}

/// What has to be removed.
#[derive(Debug, Default)]
struct Made {
    namespaces: Vec<String>,
    groups: Vec<PathBuf>,
}

/// A host: a handle, cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    namespace: String,
    address: Ipv4Addr,
    place: usize,
    group: Option<PathBuf>,
    /// The number of the router that it is behind.
    home: Option<u32>,
}

impl Internet {
    /// An internet without hosts. Losses and jitter follow from the seed.
    ///
    /// # Errors
    /// [`InternetError::Unavailable`] when this machine cannot have one.
    pub fn new(seed: u64) -> Result<Self, InternetError> {
        static INTERNETS: AtomicU32 = AtomicU32::new(0);
        let missing = |what: &str| Err(InternetError::Unavailable(what.to_owned()));
        if !rustix::process::geteuid().is_root() {
            return missing("it takes root");
        }
        if !Path::new("/dev/net/tun").exists() {
            return missing("there is no /dev/net/tun");
        }
        for (program, package) in [("ip", "iproute2"), ("iptables", "iptables")] {
            let found = Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
            if !found.is_ok_and(|status| status.success()) {
                return missing(&format!("`{program}` is missing (Debian package {package})"));
            }
        }
        let number = INTERNETS.fetch_add(1, Ordering::Relaxed);
        let internet = Self {
            forwarder: Forwarder::start(seed)?,
            prefix: format!("testnet-{}-{number}", std::process::id()),
            hosts: AtomicU32::new(0),
            made: std::sync::Mutex::default(),
        };
        // Whether the kernel permits namespaces shows when one is made.
        let probe = format!("{}-probe", internet.prefix);
        match internet.make_namespace(&probe) {
            Ok(()) => Ok(internet),
            Err(error) => Err(InternetError::Unavailable(error.to_string())),
        }
    }

    /// Adds a host. `name` is for people.
    ///
    /// # Errors
    /// [`InternetError`] when a command fails.
    pub fn add(&self, name: &str, spec: &HostSpec) -> Result<Host, InternetError> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        if number as usize > HOSTS_MAX {
            return Err(InternetError::TooMany);
        }
        let address = Ipv4Addr::new(198, 18, 0, u8::try_from(number).map_err(|_| InternetError::TooMany)?);
        let namespace = format!("{}-{number}", self.prefix);
        self.make_namespace(&namespace)?;
        let outer = match spec.nat {
            Nat::None => namespace.clone(),
            nat => self.make_home(&namespace, number, nat)?,
        };
        let device = device_in(&outer)?;
        in_namespace(&outer, &["addr", "add", &format!("{address}/16"), "dev", "net0"])?;
        in_namespace(&outer, &["link", "set", "net0", "up"])?;
        in_namespace(&outer, &["route", "add", "default", "dev", "net0"])?;
        let place = self.forwarder.add(address, device, spec.link)?;
        let group = spec.cpu_percent.map(|percent| self.make_group(&namespace, percent)).transpose()?;
        let home = (spec.nat != Nat::None).then_some(number);
        Ok(Host { name: name.to_owned(), namespace, address, place, group, home })
    }

    /// Adds a host to the home of another one that is behind a router: they share a local network, router and link.
    ///
    /// # Errors
    /// [`InternetError`] when a command fails, or the other host has no router.
    pub fn add_beside(&self, name: &str, other: &Host) -> Result<Host, InternetError> {
        let Some(home) = other.home else {
            return Err(InternetError::Unavailable(format!("`{}` has no router", other.name)));
        };
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        if number as usize > HOSTS_MAX {
            return Err(InternetError::TooMany);
        }
        let namespace = format!("{}-{number}", self.prefix);
        self.make_namespace(&namespace)?;
        let router = format!("{}-{home}-router", self.prefix);
        plug_in(&router, &namespace, home, number)?;
        Ok(Host { name: name.to_owned(), namespace, group: None, ..other.clone() })
    }

    /// Changes a host's link, from now on.
    pub fn set_link(&self, host: &Host, link: LinkSpec) {
        self.forwarder.set_link(host.place, link);
    }

    /// Pulls a host's plug, with what is under way to and from it, or puts it back.
    pub fn set_cut(&self, host: &Host, cut: bool) {
        self.forwarder.set_cut(host.place, cut);
    }

    /// Puts a host on a side of a partition: packets between different sides are dropped. All begin on side 0.
    pub fn set_side(&self, host: &Host, side: u8) {
        self.forwarder.set_side(host.place, side);
    }

    /// What a host has sent and received so far, at its access link.
    pub fn counts(&self, host: &Host) -> Forwarded {
        self.forwarder.counts(host.place)
    }

    /// Packets that a partition or an unknown address stopped.
    pub fn stopped(&self) -> Tally {
        self.forwarder.stopped()
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn make_namespace(&self, name: &str) -> Result<(), InternetError> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        self.made().namespaces.push(name.to_owned());
        in_namespace(name, &["link", "set", "lo", "up"])
    }

    /// A router in front of a host, which gets an address that means nothing elsewhere; gives the router's namespace.
    fn make_home(&self, host: &str, number: u32, nat: Nat) -> Result<String, InternetError> {
        let router = format!("{host}-router");
        self.make_namespace(&router)?;
        in_namespace(&router, &["link", "add", "home0", "type", "bridge"])?;
        in_namespace(&router, &["addr", "add", &format!("192.168.{number}.1/24"), "dev", "home0"])?;
        in_namespace(&router, &["link", "set", "home0", "up"])?;
        plug_in(&router, host, number, number)?;
        let forwarding = || fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        inside(&router, forwarding)??;
        let rule = |rule: &str| {
            let arguments = ["netns", "exec", &router, "iptables", "-w"].into_iter().chain(rule.split(' '));
            run(Command::new("ip").args(arguments))
        };
        let masquerade = "-t nat -A POSTROUTING -o net0 -j MASQUERADE";
        match nat {
            Nat::Symmetric => rule(&format!("{masquerade} --random-fully"))?,
            Nat::None | Nat::PortPreserving => rule(masquerade)?,
        }
        // What nobody inside asked for is dropped, on its way in and at the router itself.
        rule("-A FORWARD -i net0 -m conntrack --ctstate NEW,INVALID -j DROP")?;
        rule("-A INPUT -i net0 -m conntrack --ctstate NEW,INVALID -j DROP")?;
        Ok(router)
    }

    /// A group of processes that get a share of the processors.
    fn make_group(&self, name: &str, percent: u32) -> Result<PathBuf, InternetError> {
        let quota_us = CPU_PERIOD_US * u64::from(percent.max(1)) / 100;
        let root = Path::new("/sys/fs/cgroup");
        let first = root.join("cpu").join(name);
        let group = if root.join("cpu").exists() { first } else { root.join(name) };
        fs::create_dir(&group)?;
        self.made().groups.push(group.clone());
        if root.join("cpu").exists() {
            fs::write(group.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
            fs::write(group.join("cpu.cfs_quota_us"), quota_us.to_string())?;
        } else {
            fs::write(group.join("cpu.max"), format!("{quota_us} {CPU_PERIOD_US}"))?;
        }
        Ok(group)
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        let made = std::mem::take(&mut *self.made());
        // What cannot be removed now is gone with the machine's next start.
        for namespace in &made.namespaces {
            let _ = run(Command::new("ip").args(["netns", "del", namespace]));
        }
        for group in &made.groups {
            let _ = fs::remove_dir(group);
        }
    }
}

impl Host {
    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its public address, or that of its router.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that runs a program on this host.
    pub fn command(&self, program: &Path) -> Command {
        let enter = ["ip", "netns", "exec", &self.namespace];
        let mut command = match &self.group {
            // The shell joins the group and becomes the program. On the host, whose `/sys` is its own, groups cannot be seen.
            Some(group) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(group.join("cgroup.procs")).args(enter);
                shell
            }
            None => {
                let mut ip = Command::new(enter[0]);
                ip.args(&enter[1..]);
                ip
            }
        };
        command.arg(program);
        command
    }

    /// Does something with sockets that are this host's, on a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot enter the host.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T, InternetError> {
        inside(&self.namespace, act)
    }
}

/// Connects a host to a router's local network, in which its address ends with its number and one more.
fn plug_in(router: &str, host: &str, home: u32, number: u32) -> Result<(), InternetError> {
    let plug = format!("plug{number}");
    in_namespace(router, &["link", "add", &plug, "type", "veth", "peer", "name", "net0", "netns", host])?;
    in_namespace(router, &["link", "set", &plug, "master", "home0", "up"])?;
    in_namespace(host, &["addr", "add", &format!("192.168.{home}.{}/24", number + 1), "dev", "net0"])?;
    in_namespace(host, &["link", "set", "net0", "up"])?;
    in_namespace(host, &["route", "add", "default", "via", &format!("192.168.{home}.1")])
}

/// Does something on a thread of its own inside a namespace.
fn inside<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> Result<T, InternetError> {
    let entrance = File::open(Path::new("/run/netns").join(namespace))?;
    std::thread::scope(|scope| {
        let entered = scope.spawn(move || -> io::Result<T> {
            move_into_link_name_space(entrance.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(act())
        });
        entered.join().map_err(|_| io::Error::other("what ran on a host panicked"))?.map_err(InternetError::from)
    })
}

/// A device in a namespace whose packets come and go here.
fn device_in(namespace: &str) -> Result<SyncDevice, InternetError> {
    let build = || DeviceBuilder::new().name("net0").layer(Layer::L3).enable(false).build_sync();
    Ok(inside(namespace, build)??)
}

fn in_namespace(namespace: &str, arguments: &[&str]) -> Result<(), InternetError> {
    run(Command::new("ip").args(["-n", namespace]).args(arguments))
}

fn run(command: &mut Command) -> Result<(), InternetError> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    let text: Vec<_> = parts.map(|part| part.to_string_lossy()).collect();
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(InternetError::Command { command: text.join(" "), said })
}
