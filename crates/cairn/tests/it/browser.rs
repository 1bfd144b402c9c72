//! The pages in a real browser, during a real run.

use std::path::PathBuf;
use std::process::Command;

use crate::program::Place;

fn web() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../web")
}

#[test]
fn the_run_page_shows_the_loss_fall_and_chat_streams() {
    let chromium = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .into_iter()
        .find(|path| PathBuf::from(path).exists());
    let node = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    if chromium.is_none() || !node || !web().join("node_modules/playwright-core").exists() {
        eprintln!("SKIPPED: the browser test: it needs chromium, node, and `npm ci` in web/");
        return;
    }
    let pictures = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    std::fs::create_dir_all(&pictures).unwrap();
    let place = Place::new();
    crate::models::import(&place);
    let mut up = place.up(&[]);
    up.wait_for_round(1);
    let output =
        Command::new("node").arg(web().join("browser-test.mjs")).arg(up.url()).arg(&pictures).output().unwrap();
    let said = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("the chosen model answers and is named"), "{said}");
    assert!(pictures.join("run-light.png").exists() && pictures.join("chat.png").exists(), "{said}");
    assert_eq!(up.interrupt(), Some(0));
}
