//! Packets on a real test internet. Each test says so and ends when this machine cannot have one.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use testnet::{Host, HostSpec, Internet, InternetError, Nat};

fn internet() -> Option<Internet> {
    match Internet::new(1) {
        Ok(internet) => Some(internet),
        Err(InternetError::Unavailable(why)) => {
            eprintln!("SKIPPED: no test internet here: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn spec(link: &str, nat: Nat) -> HostSpec {
    HostSpec { link: link.parse().expect("a link"), nat, cpu_percent: None }
}

fn socket(host: &Host) -> UdpSocket {
    let socket = host.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7_000))).expect("a host").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(600))).expect("a socket");
    socket
}

/// Who sent the next datagram.
fn heard(socket: &UdpSocket) -> Option<SocketAddr> {
    socket.recv_from(&mut [0; 100]).ok().map(|(_, from)| from)
}

#[test]
fn packets_take_the_time_of_both_links_and_are_counted() {
    let Some(internet) = internet() else { return };
    let one = internet.add("one", &spec("80M/20M,60ms", Nat::None)).unwrap();
    let two = internet.add("two", &spec("80M/20M,60ms", Nat::None)).unwrap();
    let (at_one, at_two) = (socket(&one), socket(&two));
    let started = Instant::now();
    at_one.send_to(b"hello", (two.address(), 7_000)).unwrap();
    assert_eq!(heard(&at_two), Some((one.address(), 7_000).into()));
    let took = started.elapsed();
    assert!((30..200).contains(&took.as_millis()), "half of a round trip: {took:?}");
    let counts = internet.counts(&one);
    assert!(counts.sent.delivered.datagrams >= 1 && counts.sent.delivered.bytes >= 33, "{counts:?}");

    internet.set_side(&two, 1);
    at_one.send_to(b"hello", (two.address(), 7_000)).unwrap();
    assert_eq!(heard(&at_two), None, "the network is parted");
    assert!(internet.stopped().datagrams >= 1);
    internet.set_side(&two, 0);
    internet.set_cut(&one, true);
    at_two.send_to(b"hello", (one.address(), 7_000)).unwrap();
    assert_eq!(heard(&at_one), None, "its plug is pulled");
    internet.set_cut(&one, false);
    at_two.send_to(b"hello", (one.address(), 7_000)).unwrap();
    assert!(heard(&at_one).is_some());
}

#[test]
fn routers_let_in_only_what_was_asked_for() {
    let Some(internet) = internet() else { return };
    let server = internet.add("server", &spec("-", Nat::None)).unwrap();
    let other = internet.add("other", &spec("-", Nat::None)).unwrap();
    let home = internet.add("home", &spec("-", Nat::PortPreserving)).unwrap();
    let office = internet.add("office", &spec("-", Nat::Symmetric)).unwrap();
    let sockets = [&server, &other, &home, &office].map(socket);
    let [at_server, at_other, at_home, at_office] = &sockets;

    at_server.send_to(b"unasked", (home.address(), 7_000)).unwrap();
    assert_eq!(heard(at_home), None, "nobody inside asked for it");
    at_home.send_to(b"hello", (server.address(), 7_000)).unwrap();
    assert_eq!(heard(at_server), Some((home.address(), 7_000).into()), "the port is kept");
    at_server.send_to(b"answer", (home.address(), 7_000)).unwrap();
    assert!(heard(at_home).is_some());

    at_office.send_to(b"hello", (server.address(), 7_000)).unwrap();
    at_office.send_to(b"hello", (other.address(), 7_000)).unwrap();
    let seen = [heard(at_server).unwrap(), heard(at_other).unwrap()];
    assert!(seen.iter().all(|seen| seen.ip() == office.address()), "{seen:?}");
    assert_ne!(seen[0].port(), seen[1].port(), "each connection gets another port");
}

#[test]
fn hosts_of_one_home_share_its_router() {
    let Some(internet) = internet() else { return };
    let server = internet.add("server", &spec("-", Nat::None)).unwrap();
    let home = internet.add("home", &spec("-", Nat::PortPreserving)).unwrap();
    let beside = internet.add_beside("beside", &home).unwrap();
    let [at_server, at_home, at_beside] = [&server, &home, &beside].map(socket);
    at_home.send_to(b"hello", (server.address(), 7_000)).unwrap();
    at_beside.send_to(b"hello", (server.address(), 7_000)).unwrap();
    let seen = [heard(&at_server).unwrap(), heard(&at_server).unwrap()];
    assert!(seen.iter().all(|seen| seen.ip() == home.address()) && seen[0] != seen[1], "{seen:?}");
    assert!(internet.add_beside("nobody", &server).is_err(), "it has no router");
}

#[test]
fn a_slow_host_gets_its_share_of_a_processor() {
    let Some(internet) = internet() else { return };
    let slow = HostSpec { cpu_percent: Some(20), ..HostSpec::default() };
    let slow = internet.add("slow", &slow).unwrap();
    let mut busy = slow.command(Path::new("sh")).args(["-c", "while :; do :; done"]).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", busy.id())).unwrap();
    busy.kill().unwrap();
    busy.wait().unwrap();
    // Fields 14 and 15: time in user and kernel mode, in hundredths of a second.
    let times: Vec<u64> = stat.split(' ').skip(13).take(2).map(|text| text.parse().unwrap()).collect();
    let used = times.iter().sum::<u64>();
    assert!((10..=50).contains(&used), "a fifth of two seconds is 40 hundredths: {used}");
}
