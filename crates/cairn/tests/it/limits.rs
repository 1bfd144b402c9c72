//! Limits that people set, as the real program keeps to them.

use crate::program::{Place, failed};

/// Ticks of processor time in a second: what Linux says to programs, on every machine.
#[cfg(target_os = "linux")]
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time that a process has used.
#[cfg(target_os = "linux")]
fn used_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / TICKS_PER_SECOND
}

#[test]
#[cfg(target_os = "linux")]
fn a_share_of_the_processor_is_kept() {
    use std::time::{Duration, Instant};
    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    let place = Place::new();
    let mut up = place.up(&["--preset", "tiny", "--rounds", "100000", "--peers", "2", "--cpu", "20%"]);
    up.wait_for_round(1);
    let (began, before, first) = (Instant::now(), used_seconds(up.id()), up.rounds_done());
    // The mean over a while is what is promised; this is the time over which it is taken.
    std::thread::sleep(Duration::from_secs(8));
    let share = (used_seconds(up.id()) - before) / began.elapsed().as_secs_f64() / cores;
    assert!(up.rounds_done() > first, "it trains");
    // What is owed at the end of the time was not rested yet; and the machine may have had no time for it.
    assert!((0.1..=0.23).contains(&share), "{share:.3} of the machine");
    assert_eq!(up.interrupt(), Some(0));
}

#[test]
fn limits_that_are_none_or_cannot_be_kept_are_refused_before_anything_is_made() {
    let place = Place::new();
    for (options, said, hint) in [
        (&["--cpu", "half"][..], "`half` is no share of the processor", "--cpu 50%"),
        (&["--cpu", "120%"], "1% to 100%", "--cpu 50%"),
        (&["--up", "5 apples"], "`5 apples` is no rate", "`5M`"),
        (&["--down", "56k"], "too slow", "--when"),
        (&["--when", "at night"], "`at night` is no time to work in", "--when idle"),
        (&["--when", "22:00-22:00"], "begins when it ends", "leave `--when` out"),
        (&["--memory", "20M"], "may take 20 MB", "--stages"),
    ] {
        let arguments = [&["up", "--preset", "tiny", "--port", "0"], options].concat();
        let (code, text) = failed(&place.run(&arguments));
        assert_eq!(code, 3, "{text}");
        assert!(text.contains(said) && text.contains("hint:") && text.contains(hint), "{text}");
    }
    assert!(!place.home().exists(), "nothing was made");
}

#[test]
fn a_running_cairn_pauses_goes_on_and_stops_as_other_commands_say() {
    let place = Place::new();
    let printed = |arguments: &[&str]| {
        let output = place.run(arguments);
        assert!(output.status.success(), "{}", failed(&output).1);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let (code, said) = failed(&place.run(&["pause"]));
    assert!(code == 3 && said.contains("no cairn runs") && said.contains("hint:"), "{said}");

    let mut up = place.up(&["--preset", "tiny", "--rounds", "100000", "--peers", "2"]);
    up.wait_for_round(1);
    assert_eq!(printed(&["pause"]), "paused (by you); `cairn resume` goes on");
    up.wait_for("paused (by you)");
    let state = up.state();
    assert_eq!(state["machine"]["paused"]["why"], "person", "{}", state["machine"]);
    assert_eq!(printed(&["resume"]), "it works");
    up.wait_for("goes on");
    let done = up.rounds_done();
    up.wait_for_round(done + 2);
    assert_eq!(printed(&["stop"]), "stopped");
    assert_eq!(up.finish().0, Some(0));
    assert_eq!(failed(&place.run(&["resume"])).0, 3, "it has ended");

    let mut again = place.up(&["--preset", "tiny", "--rounds", "100000", "--peers", "2"]);
    again.wait_for_round(done);
    assert_eq!(again.interrupt(), Some(0), "nothing was lost");
}
