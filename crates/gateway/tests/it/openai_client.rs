//! The official Python client against this server. Skips, loudly, where Python or the client is absent.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::checkpoint::NAME;
use crate::imported::{CHATTING, CONTINUING, with_two};

/// An interpreter that can import the client: `CAIRN_PYTHON`, the one that the check script makes, or the system's.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os("CAIRN_PYTHON").map(PathBuf::from);
    let candidates = [named, Some(root.join(".venv-ci/bin/python")), Some(PathBuf::from("python3"))];
    candidates.into_iter().flatten().find(|python| {
        Command::new(python).args(["-c", "import openai"]).output().is_ok_and(|output| output.status.success())
    })
}

#[tokio::test]
async fn the_official_client_understands_every_answer() {
    let Some(python) = python() else {
        // Straight to the terminal: what a passing test prints is not shown.
        let why = "SKIPPED: no Python with the `openai` package; set CAIRN_PYTHON to one, or run .ci/run";
        writeln!(std::io::stderr(), "{why}").unwrap();
        return;
    };
    let (_home, gateway) = with_two().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openai_client.py");
    let url = format!("http://{}/v1", gateway.address);
    let output = tokio::process::Command::new(python)
        .arg(script)
        .arg(url)
        .args([NAME, CHATTING, CONTINUING])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("all good"), "{said}");
}
