//! Policies of release as a person meets them: what `up` says, what `export` writes, and what it refuses.

use crate::program::{Place, failed};

#[test]
fn a_run_is_exported_once_its_weights_are_open() {
    let place = Place::new();
    let folder = place.file("model");
    let to = folder.to_str().unwrap();
    let (code, said) = failed(&place.run(&["export", "--to", to]));
    assert!(code == 3 && said.contains("cairn up"), "{said}");

    let arguments = ["--preset", "tiny", "--peers", "2", "--rounds", "40", "--release", "open-after=40"];
    let mut up = place.up(&arguments);
    up.wait_for("open after 40 rounds");
    up.wait_for_round(2);
    assert_eq!(up.state()["run"]["release"]["open_after"]["rounds"], 40);
    assert_eq!(up.interrupt(), Some(0));
    let (code, said) = failed(&place.run(&["export", "--to", to]));
    assert!(code == 3 && said.contains("after 40 rounds") && said.contains("hint: they open"), "{said}");
    assert!(!folder.exists());

    // The run goes on with its own policy.
    let mut up = place.up(&["--preset", "tiny", "--peers", "2", "--rounds", "40"]);
    up.wait_for("done: 40 rounds");
    let id = up.state()["run"]["id"].as_str().unwrap().to_owned();
    let (code, said) = failed(&place.run(&["export", "--to", to]));
    assert!(code == 5 && said.contains("in use"), "{said}");
    assert_eq!(up.interrupt(), Some(0));
    let written = place.run(&["export", "--run", &id[..10], "--to", to]);
    let said = String::from_utf8_lossy(&written.stdout).into_owned();
    assert!(written.status.success() && said.contains("after round 40"), "{said}{}", failed(&written).1);

    let ours = place.run(&["chat", "--temperature", "0", "--max-tokens", "12", "It was"]);
    let theirs = place.run(&["chat", "--checkpoint", to, "--temperature", "0", "--max-tokens", "12", "It was"]);
    assert!(theirs.status.success(), "{}", failed(&theirs).1);
    assert_eq!(String::from_utf8(ours.stdout), String::from_utf8(theirs.stdout), "the exported model says the same");

    let (code, said) = failed(&place.run(&["export", "--to", to]));
    assert!(code == 3 && said.contains("is there already"), "{said}");
    let elsewhere = place.file("elsewhere");
    let (code, said) = failed(&place.run(&["export", "--run", "zzzz", "--to", elsewhere.to_str().unwrap()]));
    assert!(code == 3 && said.contains("`zzzz`"), "{said}");
}

#[test]
fn a_split_run_trains_and_is_never_put_together() {
    let place = Place::new();
    let arguments = ["--preset", "tiny", "--stages", "2", "--peers", "4", "--rounds", "12", "--release", "split"];
    let mut up = place.up(&arguments);
    let said = up.wait_for("the weights stay split");
    assert!(said.contains("this machine, so it holds every stage"), "{said}");
    up.wait_for("done: 12 rounds");
    let measured = up.wait_for("held-out loss");
    assert!(!measured.contains("not measured"), "{measured}");
    assert_eq!(up.state()["run"]["release"], "split");
    assert_eq!(up.interrupt(), Some(0));
    let folder = place.file("model");
    let to = folder.to_str().unwrap();
    for command in [&["export", "--to", to][..], &["chat", "It was"], &["replay"]] {
        let (code, said) = failed(&place.run(command));
        assert!(code == 3 && said.contains("never put together") && said.contains("hint:"), "{command:?}: {said}");
    }
    assert!(!folder.exists());
}
