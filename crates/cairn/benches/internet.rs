//! Whole programs on hosts of a test internet: what a run takes behind bad links, and whether it survives what happens to home computers.
//!
//! Each host is a network namespace with its own router and link; the program on it is `cairn`, as people run it. The first host founds the
//! run, the others join with its ticket. Printed for every host: bytes both ways at its line, receipts, how it is reached, how it spent its
//! time; and for the run rounds and tokens per second, from the rounds that the founder's ledger closed while all were members.
//!
//! With `chaos=SECONDS`, something happens every few seconds until then: a guest is killed and joins again, is suspended, loses its link, or
//! half of the hosts are parted from the others; the founder is suspended and once killed, too. Then all come back, and the run goes on to its
//! end. Checked: all hosts end with the same root, every piece verifies, and no unit was paid twice.
//!
//! With `speeds=25,50,100` there is one host for each, with that share of a processor in percent: each trains alone first, then all together,
//! and the rate is compared with the sum. `set=units_per_round=28` gives a round enough units to share.
//!
//! With `first=ROUNDS` and without `rounds=` the recipe is the one of a whole run, which is left after its first rounds.
//!
//! Run as root: `cargo bench -p cairn --bench internet -- [hosts=8] [link=100M/20M,100ms,1%] [nat=2] [slow=1] [cpu=30] [rounds=60] [first=20]
//! [size=350k] [chaos=600] [turns=1] [set=FIELD=VALUE]`; the recipe is what `cairn run new`
//! gives for the size (1M) and the rounds, with one change for each `set`; with several `link=` they take turns, and ratios to the first are printed.

#![cfg_attr(target_os = "linux", expect(clippy::unwrap_used, reason = "a benchmark has nobody to tell of an error"))]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("SKIPPED: hosts of a test internet are made of Linux network namespaces");
}

#[cfg(target_os = "linux")]
#[path = "../../node/benches/shared/arguments.rs"]
mod arguments;
#[cfg(target_os = "linux")]
#[path = "../tests/it/program.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod program;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeSet;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use ledger::Piece;
    use serde_json::Value;
    use testnet::{Host, HostSpec, Internet, Nat};

    use crate::arguments::{number, values};
    use crate::program::{Place, Up, failed};

    /// How long all hosts have to become members, and after a storm to come to the end.
    const PATIENCE: Duration = Duration::from_secs(900);

    /// What is measured.
    #[derive(Clone, Debug)]
    struct Scenario {
        link: String,
        hosts: usize,
        /// So many of them are behind routers, the first one that keeps ports and then in turn.
        behind: usize,
        /// So many get a share of a processor.
        slow: usize,
        cpu_percent: u32,
        /// The share of each host, instead of `slow` and `cpu_percent`.
        shares: Vec<u32>,
        /// The run's description, as arguments of `cairn run new`.
        arguments: Vec<String>,
        chaos: Duration,
        /// The run is left after so many rounds.
        first: Option<u64>,
        seed: u64,
    }

    /// A host with its program.
    struct Machine {
        host: Host,
        place: Place,
        up: Option<Up>,
        id: String,
        away_until: Option<(Instant, Away)>,
    }

    /// Why a machine is away.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Away {
        Killed,
        Suspended,
        Unplugged,
        Parted,
    }

    #[derive(Clone, Copy, Debug)]
    struct Figures {
        tokens_per_s: f64,
        rounds_per_hour: f64,
        up_bytes_per_token: f64,
        idle: f64,
        communication: f64,
    }

    pub(crate) fn main() {
        let first = values("first").first().map(|rounds| rounds.parse().unwrap());
        let mut arguments = Vec::new();
        if first.is_none() || !values("rounds").is_empty() {
            arguments.extend(["--rounds".to_owned(), number("rounds", 60).to_string()]);
        }
        if let Some(size) = values("size").first() {
            arguments.extend(["--size".to_owned(), size.clone()]);
        }
        for set in values("set") {
            arguments.extend(["--set".to_owned(), set]);
        }
        let links = match values("link") {
            links if links.is_empty() => vec!["100M/20M,100ms,1%".to_owned()],
            links => links,
        };
        let mut rates = vec![Vec::new(); links.len()];
        for turn in 0..number("turns", 1) {
            for (place, link) in links.iter().enumerate() {
                let scenario = Scenario {
                    link: link.clone(),
                    hosts: number("hosts", 5) as usize,
                    behind: number("nat", 2) as usize,
                    slow: number("slow", 1) as usize,
                    cpu_percent: number("cpu", 30) as u32,
                    shares: Vec::new(),
                    arguments: arguments.clone(),
                    chaos: Duration::from_secs(number("chaos", 0)),
                    first,
                    seed: number("seed", 1) + turn,
                };
                if let Some(speeds) = values("speeds").first() {
                    compare_speeds(&scenario, speeds);
                    continue;
                }
                let figures = run(&scenario);
                let Figures { tokens_per_s, rounds_per_hour, up_bytes_per_token, idle, communication } = figures;
                println!(
                    "turn {turn}, link {link}: {tokens_per_s:.0} tokens/s, {rounds_per_hour:.0} rounds/h, {up_bytes_per_token:.1} B up per \
                     token, communication {:.0} %, idle {:.0} %",
                    100.0 * communication,
                    100.0 * idle,
                );
                rates[place].push(tokens_per_s);
                let ratio = tokens_per_s / rates[0][turn as usize];
                println!("  {:.1} % of the rate with {}", 100.0 * ratio, links[0]);
            }
        }
    }

    /// The rate of hosts of several speeds together, against the sum of what each reaches alone.
    fn compare_speeds(scenario: &Scenario, speeds: &str) {
        let speeds: Vec<u32> = speeds.split(',').map(|speed| speed.parse().unwrap()).collect();
        let rate = |shares: &[u32]| {
            let scenario = Scenario { hosts: shares.len(), behind: 0, shares: shares.to_vec(), ..scenario.clone() };
            run(&scenario).tokens_per_s
        };
        let alone: Vec<f64> = speeds.iter().map(|speed| rate(&[*speed])).collect();
        let together = rate(&speeds);
        let sum: f64 = alone.iter().sum();
        println!("alone {alone:.0?} tokens/s, together {together:.0}: {:.1} % of the sum", 100.0 * together / sum);
    }

    fn run(scenario: &Scenario) -> Figures {
        let internet = Internet::new(scenario.seed).unwrap();
        let link = scenario.link.parse().unwrap();
        let spec = |nat, cpu_percent| HostSpec { link, nat, cpu_percent };
        let public = internet.add("relay", &spec(Nat::None, None)).unwrap();
        let at_relay = Place::on(&public);
        let mut relay = at_relay.listen(&["relay"], 0);
        let url = relay.wait_for("cairn up --relay").split_whitespace().last().unwrap().to_owned();

        let mut machines: Vec<Machine> = Vec::new();
        let mut ticket = String::new();
        for number in 0..scenario.hosts {
            let nat = match scenario.hosts - number {
                from_the_end if from_the_end > scenario.behind => Nat::None,
                from_the_end if from_the_end % 2 == 0 => Nat::PortPreserving,
                _ => Nat::Symmetric,
            };
            let slow = (1..=scenario.slow).contains(&number).then_some(scenario.cpu_percent);
            let slow = if scenario.shares.is_empty() { slow } else { scenario.shares.get(number).copied() };
            let host = internet.add(&format!("host {number}"), &spec(nat, slow)).unwrap();
            let place = Place::on(&host);
            let up = if number == 0 { found(&place, scenario, &url) } else { place.start("join", &[&ticket]) };
            let mut machine = Machine { host, place, up: Some(up), id: String::new(), away_until: None };
            let running = machine.up.as_ref().unwrap();
            let state = running.wait_for_state(|state| state["peers"][0]["id"].is_string());
            machine.id = state["peers"][0]["id"].as_str().unwrap().to_owned();
            if number == 0 {
                ticket = state["run"]["ticket"].as_str().unwrap().to_owned();
            }
            println!(
                "  {}: {nat:?}{}",
                machine.host.name(),
                slow.map_or(String::new(), |cpu| format!(", {cpu} % of a core"))
            );
            machines.push(machine);
        }
        let joined = wait_for_receipts(&mut machines);
        println!("  all have receipts {:.1} s after the last joined", joined.as_secs_f64());
        let before = machines[0].state();
        let counts: Vec<_> = machines.iter().map(|machine| internet.counts(&machine.host)).collect();
        let began = Instant::now();
        if !scenario.chaos.is_zero() {
            storm(&internet, &mut machines, &ticket, &url, scenario);
        }
        if let Some(rounds) = scenario.first {
            wait_for_rounds(&machines[0], rounds);
        } else {
            let roots: BTreeSet<String> = machines.iter_mut().map(|machine| machine.root()).collect();
            assert_eq!(roots.len(), 1, "different roots: {roots:?}");
            println!("  the same on all hosts:{}", roots.first().unwrap());
        }
        let seconds = began.elapsed().as_secs_f64();
        let after = machines[0].state();
        let gained = |field: &str| after["run"][field].as_f64().unwrap() - before["run"][field].as_f64().unwrap();
        let (tokens, rounds) = (gained("tokens"), gained("round"));
        let mut sent = 0;
        for (machine, before) in machines.iter_mut().zip(&counts) {
            let now = internet.counts(&machine.host);
            let up = now.sent.offered.bytes - before.sent.offered.bytes;
            let down = now.received.delivered.bytes - before.received.delivered.bytes;
            sent += up;
            let view =
                after["peers"].as_array().unwrap().iter().find(|view| view["id"] == machine.id.as_str()).cloned();
            let view = view.unwrap_or_default();
            let path = match view["path"]["relayed"].as_bool() {
                Some(true) => "relayed",
                Some(false) => "direct",
                None => "",
            };
            let time = machine.state()["run"]["time"].clone();
            println!(
                "  {}: {:.2} MB up, {:.2} MB down, {} receipts {path}, compute {:.0} %, communication {:.0} %, idle {:.0} %",
                machine.host.name(),
                up as f64 / 1e6,
                down as f64 / 1e6,
                view["receipts"],
                100.0 * time["compute"].as_f64().unwrap(),
                100.0 * time["communication"].as_f64().unwrap(),
                100.0 * time["idle"].as_f64().unwrap(),
            );
        }
        let time = |field: &str| {
            let all = machines.iter().map(|machine| machine.state()["run"]["time"][field].as_f64().unwrap());
            all.sum::<f64>() / machines.len() as f64
        };
        let figures = Figures {
            tokens_per_s: tokens / seconds,
            rounds_per_hour: rounds / seconds * 3600.0,
            up_bytes_per_token: sent as f64 / tokens,
            idle: time("idle"),
            communication: time("communication"),
        };
        for machine in machines.iter_mut().rev() {
            assert_eq!(machine.up.take().unwrap().interrupt(), Some(0));
        }
        relay.interrupt();
        check_pieces(&machines);
        figures
    }

    fn found(place: &Place, scenario: &Scenario, relay: &str) -> Up {
        if !place.home().exists() {
            let mut described = vec!["run", "new", "--yes", "--peers", "1"];
            described.extend(scenario.arguments.iter().map(String::as_str));
            let output = place.run(&described);
            assert!(output.status.success(), "{}", failed(&output).1);
        }
        place.start("up", &["--listen", "0.0.0.0:7071", "--relay", relay])
    }

    impl Machine {
        fn state(&self) -> Value {
            self.up.as_ref().unwrap().state()
        }

        fn signal(&self, signal: &str) {
            let id = self.up.as_ref().unwrap().id().to_string();
            assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        }

        /// The root that it prints at the end of the run.
        fn root(&mut self) -> String {
            let line = self.up.as_mut().unwrap().wait_long_for("state root", PATIENCE);
            line.replace("state root", "").trim_end().to_owned()
        }
    }

    /// Waits until the run has closed so many rounds.
    fn wait_for_rounds(founder: &Machine, rounds: u64) {
        let began = Instant::now();
        while founder.up.as_ref().unwrap().rounds_done() < rounds {
            assert!(began.elapsed() < PATIENCE, "not {rounds} rounds");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until every machine was paid for something; gives how long that took.
    fn wait_for_receipts(machines: &mut [Machine]) -> Duration {
        let began = Instant::now();
        loop {
            let state = machines[0].state();
            let views = state["peers"].as_array().unwrap();
            let paid = |machine: &Machine| {
                let view = views.iter().find(|view| view["id"] == machine.id.as_str());
                view.is_some_and(|view| view["receipts"].as_u64().is_some_and(|receipts| receipts > 0))
            };
            if machines.iter().all(paid) {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "not all take part: {}", state["peers"]);
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// Lets things happen to the machines for a while, then brings all back.
    fn storm(internet: &Internet, machines: &mut [Machine], ticket: &str, relay: &str, scenario: &Scenario) {
        let (began, mut draws) = (Instant::now(), 0_u64);
        let mut draw = |below: u64| {
            draws += 1;
            let hash = blake3::hash(&[scenario.seed.to_le_bytes(), draws.to_le_bytes()].concat());
            u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()) % below
        };
        let mut happened = [0_u32; 4];
        let mut founder_dies = true;
        while began.elapsed() < scenario.chaos {
            std::thread::sleep(Duration::from_secs(2 + draw(4)));
            bring_back(internet, machines, ticket, relay, scenario, false);
            let victim = draw(machines.len() as u64) as usize;
            let half = began.elapsed() > scenario.chaos / 2;
            if machines[victim].away_until.is_some() {
                continue;
            }
            let away = match (victim, draw(4)) {
                (0, _) if half && founder_dies => {
                    founder_dies = false;
                    Away::Killed
                }
                // What stops the founder stops all, so that it happens less often.
                (0, luck) if luck > 0 => continue,
                (0, _) => Away::Suspended,
                (_, 0) => Away::Killed,
                (_, 1) => Away::Suspended,
                (_, 2) => Away::Unplugged,
                _ => Away::Parted,
            };
            happened[away as usize] += 1;
            let until = Instant::now() + Duration::from_secs(3 + draw(if victim == 0 { 5 } else { 20 }));
            let machine = &mut machines[victim];
            match away {
                Away::Killed => machine.up.take().unwrap().kill_hard(),
                Away::Suspended => machine.signal("-STOP"),
                Away::Unplugged => internet.set_cut(&machine.host, true),
                Away::Parted => internet.set_side(&machine.host, 1),
            }
            println!("  {:5.0} s: {} is {away:?}", began.elapsed().as_secs_f64(), machine.host.name());
            machine.away_until = Some((until, away));
        }
        bring_back(internet, machines, ticket, relay, scenario, true);
        let [killed, suspended, unplugged, parted] = happened;
        println!("  killed {killed}, suspended {suspended}, unplugged {unplugged}, parted {parted} times");
    }

    /// Brings those back whose time is over, or all.
    fn bring_back(
        internet: &Internet,
        machines: &mut [Machine],
        ticket: &str,
        relay: &str,
        scenario: &Scenario,
        all: bool,
    ) {
        for number in 0..machines.len() {
            let founder_is_away = machines[0].away_until.is_some();
            let machine = &mut machines[number];
            let Some((_, away)) = machine.away_until.filter(|(until, _)| all || *until <= Instant::now()) else {
                continue;
            };
            // While the founder is away its ticket leads nowhere.
            if number > 0 && founder_is_away {
                continue;
            }
            machine.away_until = None;
            match away {
                Away::Killed if number == 0 => machine.up = Some(found(&machine.place, scenario, relay)),
                Away::Killed => machine.up = Some(machine.place.start_until("join", &[ticket], PATIENCE)),
                Away::Suspended => machine.signal("-CONT"),
                Away::Unplugged => internet.set_cut(&machine.host, false),
                Away::Parted => internet.set_side(&machine.host, 0),
            }
        }
    }

    /// Every piece verifies, and no unit was paid twice.
    fn check_pieces(machines: &[Machine]) {
        let mut units = BTreeSet::new();
        let (mut paid, mut accounts) = (0, 0);
        for machine in machines {
            let output = machine.place.run(&["piece", "--json"]);
            assert!(output.status.success(), "{}", failed(&output).1);
            let piece = Piece::from_json(&output.stdout).unwrap();
            let summary = piece.verify().unwrap();
            accounts += summary.receipts;
            for receipt in &piece.receipts {
                paid += 1;
                assert!(units.insert(receipt.body.unit), "a unit was paid twice");
            }
        }
        println!("  {paid} receipts of {accounts} in the accounts, of as many different units");
        assert_eq!(paid, accounts);
    }
}
