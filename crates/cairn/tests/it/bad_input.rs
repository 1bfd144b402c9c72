//! Every mistake gets a clear message, a hint and its exit code.

use std::net::{Ipv4Addr, TcpListener};

use crate::program::{Place, failed, files_below};

#[test]
fn an_unknown_flag_is_a_usage_error_that_names_it() {
    let (code, said) = failed(&Place::new().run(&["up", "--peeers", "3"]));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--peeers") && said.contains("--peers"), "{said}");
}

#[test]
fn an_instruction_set_that_the_machine_lacks_is_refused_with_those_it_has() {
    let (code, said) = failed(&Place::new().run(&["conformance", "--isa", "abacus"]));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("`abacus`") && said.contains("scalar"), "{said}");
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_place() {
    let place = Place::new();
    let path = place.file("latin1.txt");
    std::fs::write(&path, [b"caf".as_slice(), &[0xe9], b" au lait"].concat()).unwrap();
    let (code, said) = failed(&place.run(&["up", "--data", path.to_str().unwrap(), "--port", "0"]));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("not UTF-8") && said.contains("byte 3") && said.contains("hint:"), "{said}");
}

#[test]
fn too_little_text_is_refused() {
    let place = Place::new();
    let path = place.file("short.txt");
    std::fs::write(&path, "Too short to learn from. ".repeat(4)).unwrap();
    let (code, said) = failed(&place.run(&["train", "--solo", "--data", path.to_str().unwrap()]));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("hint:"), "{said}");
}

#[test]
fn a_recipe_with_a_bad_value_names_the_field() {
    let place = Place::new();
    let recipe = String::from_utf8(place.run(&["train", "--print-recipe"]).stdout).unwrap();
    let path = place.file("bad.toml");
    std::fs::write(&path, recipe.replacen("rounds = ", "rounds = 0 # ", 1)).unwrap();
    let (code, said) = failed(&place.run(&["train", "--solo", "--recipe", path.to_str().unwrap()]));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("`rounds`"), "{said}");
}

#[test]
fn stages_that_cannot_be_made_are_refused() {
    let place = Place::new();
    let up = |options: &[&str]| failed(&place.run(&[&["up", "--preset", "tiny", "--port", "0"], options].concat()));
    for (options, code, expected) in [
        (&["--stages", "2", "--codec", "full,int9"][..], 3, "int9"),
        (&["--stages", "2", "--codec", "subspace,int8"], 3, "subspace"),
        (&["--stages", "2", "--codec", "projector:0,int8"], 3, "rank"),
        (&["--stages", "2", "--peers", "1"], 3, "1 peers cannot hold 2 stages"),
        (&["--stages", "2", "--memory", "20M"], 3, "needs"),
        (&["--memory", "20M"], 3, "of memory, and may take 20 MB"),
        (&["--stages", "2", "--memory", "much"], 2, "--memory"),
        (&["--codec", "full,int8"], 2, "--stages"),
        (&["--release", "maybe"], 3, "`maybe` is no policy"),
        (&["--release", "open-after=soon"], 3, "open-after=20"),
        (&["--release", "open-after=0"], 3, "1 round to all rounds"),
        (&["--release", "open-after=1000"], 3, "1 round to all rounds"),
        (&["--release", "split"], 3, "at least 2 stages"),
        (&["--release", "split", "--stages", "2", "--codec", "projector:8,int8"], 3, "learned bases"),
        (&["--stages", "1"], 2, "--stages"),
        (&["--profile", "f64"], 2, "f32-muladd"),
    ] {
        let (got, said) = up(options);
        assert_eq!(got, code, "{options:?}: {said}");
        assert!(said.contains(expected), "{options:?}: `{said}` does not say {expected}");
    }
}

#[test]
fn what_cannot_be_planned_is_refused_with_what_to_write() {
    let place = Place::new();
    let file = place.file("peers.toml");
    std::fs::write(&file, "[[peers]]\ncount = 3\n").unwrap();
    let like = "4×(4GB,1TFLOPS)";
    for (options, code, expected) in [
        (&["--model", "33b", "--like", like][..], 3, "`33b` is no model"),
        (&["--model", "layers=4,depth=3", "--like", like], 3, "`depth=3`"),
        (&["--model", "1b", "--like", "4×(4GB,fast)"], 3, "`fast`"),
        (&["--model", "1b", "--like", "4GB"], 3, "is no group"),
        (&["--model", "1b", "--peers", file.to_str().unwrap()], 3, "memory"),
        (&["--model", "1b", "--peers", "nowhere.toml"], 3, "`nowhere.toml`"),
        (&["--model", "32b", "--like", like], 3, "peers with"),
        (&["--model", "8b", "--like", "2×(128GB,1TFLOPS)", "--stages", "4"], 3, "cannot hold 4 stages"),
        (&["--model", "1b", "--like", like, "--codec", "full,int9"], 3, "int9"),
        (&["--model", "1b", "--like", like, "--codec", "projector:9999,int8"], 3, "rank"),
        (&["--model", "1b", "--like", like, "--stages", "99"], 3, "stages must be from 1 to 16"),
        (&["--model", "default", "--like", like, "--unit-tokens", "512"], 3, "context"),
        (&["--model", "1b", "--like", like, "--orderer", "quick"], 3, "1Gbps"),
    ] {
        let (got, said) = failed(&place.run(&[&["plan"], options].concat()));
        assert_eq!(got, code, "{options:?}: {said}");
        assert!(said.contains(expected) && said.contains("hint:"), "{options:?}: `{said}` does not say {expected}");
    }
    for options in [
        &["--model", "1b"][..],
        &["--like", like],
        &["--model", "1b", "--like", like, "--tokens", "many"],
        &["--model", "1b", "--like", like, "--churn", "6h"],
        &["--model", "1b", "--like", like, "--peers", "peers.toml"],
    ] {
        let (got, said) = failed(&place.run(&[&["plan"], options].concat()));
        assert_eq!(got, 2, "{options:?}: {said}");
    }
    assert!(!place.home().exists(), "a plan stores nothing");
}

#[test]
fn a_link_that_cannot_be_read_is_refused_with_an_example() {
    let place = Place::new();
    for (link, expected) in [("80m/20m", "`80m/20m`"), ("80M,50ms,40ms", "a second time"), ("80M,150%", "out of range")]
    {
        let (code, said) = failed(&place.run(&["up", "--preset", "tiny", "--port", "0", "--link", link]));
        assert_eq!(code, 3, "{said}");
        assert!(said.contains(expected) && said.contains("hint:"), "`{said}` does not say {expected}, or what to do");
    }
    assert!(!place.home().exists(), "nothing was started");
}

#[test]
fn a_busy_port_says_which_and_how_to_choose_another() {
    let place = Place::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, said) = failed(&place.run(&["up", "--preset", "tiny", "--port", &port]));
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(&port) && said.contains("--port"), "{said}");
    assert!(!place.home().exists(), "nothing was started");
}

#[test]
fn a_data_directory_in_use_is_told() {
    let place = Place::new();
    let mut up = place.up(&["--preset", "tiny"]);
    let (code, said) = failed(&place.run(&["up", "--preset", "tiny", "--port", "0"]));
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("in use") && said.contains("--home"), "{said}");
    up.wait_for("done:");
    assert_eq!(up.interrupt(), Some(0));
}

#[test]
fn damaged_and_foreign_files_are_told_and_nothing_is_lost() {
    let place = Place::new();
    let (code, said) = place.up(&["--preset", "tiny", "--exit-when-done"]).finish();
    assert_eq!(code, Some(0), "{said}");
    let run = files_below(&place.home()).into_iter().find(|path| path.ends_with("charter.json")).unwrap();
    let good = std::fs::read(&run).unwrap();

    let changed = String::from_utf8(good.clone()).unwrap().replacen("\"rounds\": ", "\"rounds\": 9", 1);
    std::fs::write(&run, changed).unwrap();
    let (code, said) = failed(&place.run(&["serve", "--port", "0"]));
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("charter.json") && said.contains("hint:"), "{said}");

    std::fs::write(&run, &good[..good.len() / 2]).unwrap();
    let (code, said) = failed(&place.run(&["piece"]));
    assert_eq!(code, 6, "{said}");

    std::fs::write(&run, &good).unwrap();
    let piece = place.run(&["piece"]);
    assert!(piece.status.success(), "{}", String::from_utf8_lossy(&piece.stderr));
}

#[test]
fn a_corrupt_checkpoint_file_names_what_is_wrong() {
    let place = Place::new();
    let path = place.file("model.safetensors");
    let saved = place.run(&["train", "--solo", "--preset", "tiny", "--save", path.to_str().unwrap()]);
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    let chat =
        |place: &Place| place.run(&["chat", "--checkpoint", path.to_str().unwrap(), "--max-tokens", "4", "It was"]);
    let good = chat(&place);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(String::from_utf8_lossy(&good.stdout).starts_with("It was"));

    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 7]).unwrap();
    let (code, said) = failed(&chat(&place));
    assert_eq!(code, 6, "{said}");
    std::fs::write(&path, b"not a checkpoint at all").unwrap();
    let (code, said) = failed(&chat(&place));
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("hint:"), "{said}");
}

#[test]
fn a_damaged_model_file_names_what_is_wrong() {
    let place = Place::new();
    let path = place.file("model.gguf");
    for (bytes, expected) in [(&b"GGUF\x03\0\0\0"[..], "truncated"), (b"PK\x03\x04", "`GGUF`"), (b"", "truncated")] {
        std::fs::write(&path, bytes).unwrap();
        let (code, said) = failed(&place.run(&["chat", "--checkpoint", path.to_str().unwrap(), "hello"]));
        assert_eq!(code, 6, "{said}");
        assert!(said.contains(expected) && said.contains("hint:"), "`{said}` does not say {expected}, or what to do");
    }
}

/// A conversation with SmolLM2-135M-Instruct, where `CAIRN_SMOLLM2` names its GGUF file.
#[test]
fn a_pretrained_model_answers_and_ends_its_answer() {
    let Ok(path) = std::env::var("CAIRN_SMOLLM2") else {
        println!("SKIPPED: CAIRN_SMOLLM2 does not name the file SmolLM2-135M-Instruct.Q4_1.gguf");
        return;
    };
    let place = Place::new();
    let question = "What is the capital of Germany?";
    let said = place.run(&["chat", "--checkpoint", &path, "--temperature", "0", "--max-tokens", "60", question]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "The capital of Germany is Berlin.");
}

#[test]
fn there_is_nothing_to_show_before_the_first_run() {
    let place = Place::new();
    for command in [vec!["piece"], vec!["chat", "It was"], vec!["serve", "--port", "0"]] {
        let (code, said) = failed(&place.run(&command));
        assert_eq!(code, 3, "{command:?}: {said}");
        assert!(said.contains("cairn up"), "{command:?}: {said}");
    }
}

/// A full disk: a small file system of its own, which only root can make.
#[test]
fn a_full_disk_is_told_and_the_run_goes_on_once_there_is_space() {
    let place = Place::new();
    std::fs::create_dir(place.home()).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "cairn-test"])
        .arg(place.home())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a full disk: this user cannot mount a small file system");
        return;
    }
    let full = place.run(&["up", "--preset", "tiny", "--exit-when-done", "--port", "0"]);
    let (code, said) = failed(&full);
    let grown = std::process::Command::new("mount").args(["-o", "remount,size=300m"]).arg(place.home()).status();
    let again = place.run(&["up", "--preset", "tiny", "--exit-when-done", "--port", "0"]);
    let unmounted = std::process::Command::new("umount").arg(place.home()).status();
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("disk is full") && said.contains("hint:"), "{said}");
    assert!(grown.unwrap().success());
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(unmounted.unwrap().success());
}
