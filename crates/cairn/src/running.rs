//! Talks to a cairn that is already running on this machine, over its own HTTP API.

use std::io::{BufRead, BufReader};
use std::path::Path;

use node::view::{NetState, PauseView};
use serde_json::{Value, json};

use crate::exit::{Code, Failure, Outcome};

/// The file in the data directory that says where the pages are served.
const SERVING: &str = "serving";

/// Most bytes of a state that are read.
const STATE_BYTES_MAX: u64 = 64 << 20;

/// Another cairn that has the data directory.
#[derive(Debug)]
pub(crate) struct Running {
    url: String,
    agent: ureq::Agent,
}

/// The note in the data directory that says where the pages are; removed when dropped.
#[derive(Debug)]
pub(crate) struct ServingNote(std::path::PathBuf);

impl ServingNote {
    /// Writes the note. It is a convenience: without it, other commands only say that the directory is in use.
    pub(crate) fn write(home: &Path, url: &str) -> Self {
        let path = home.join(SERVING);
        if let Err(error) = std::fs::write(&path, url) {
            tracing::warn!(%error, "other commands will not find this process");
        }
        Self(path)
    }
}

impl Drop for ServingNote {
    fn drop(&mut self) {
        // A note that stays is found to be stale when nobody answers.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Running {
    /// The cairn that serves from this data directory, when one answers.
    pub(crate) fn find(home: &Path) -> Option<Self> {
        let url = std::fs::read_to_string(home.join(SERVING)).ok()?.trim().to_owned();
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let running = Self { url, agent: config.new_agent() };
        running.agent.get(format!("{}/health", running.url)).call().ok()?;
        Some(running)
    }

    /// The state of the network, as its pages show it.
    ///
    /// # Errors
    /// The other process does not answer.
    pub(crate) fn state(&self) -> Outcome<NetState> {
        let mut answer = self.agent.get(format!("{}/net/state", self.url)).call().map_err(|error| lost(&error))?;
        answer.body_mut().with_config().limit(STATE_BYTES_MAX).read_json().map_err(|error| lost(&error))
    }

    /// Asks its peers to `pause` or `resume`, or the process to `stop`; gives why they pause then, if they do.
    ///
    /// # Errors
    /// What the other process answers.
    pub(crate) fn ask(&self, what: &str) -> Outcome<Option<PauseView>> {
        let sent = self.agent.post(format!("{}/net/{what}", self.url)).send_json(json!({}));
        let mut answer = sent.map_err(|error| lost(&error))?;
        let said: Value = answer.body_mut().read_json().unwrap_or_default();
        if !answer.status().is_success() {
            return Err(refused(&said));
        }
        // What a newer version says is not understood here, and not needed.
        Ok(serde_json::from_value(said["paused"].clone()).unwrap_or_default())
    }

    /// The user's piece.
    ///
    /// # Errors
    /// What the other process answers.
    pub(crate) fn piece(&self) -> Outcome<Vec<u8>> {
        let mut answer = self.agent.get(format!("{}/piece", self.url)).call().map_err(|error| lost(&error))?;
        if !answer.status().is_success() {
            return Err(refused(&answer.body_mut().read_json().unwrap_or_default()));
        }
        let limit = ledger::PIECE_BYTES_MAX as u64;
        answer.body_mut().with_config().limit(limit).read_to_vec().map_err(|error| lost(&error))
    }

    /// Continues a text, and hands every piece of it to `on_text`.
    ///
    /// # Errors
    /// What the other process answers.
    pub(crate) fn complete(&self, request: &Completion<'_>, mut on_text: impl FnMut(&str)) -> Outcome {
        let body = json!({
            "prompt": request.prompt,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "stream": true,
        });
        let sent = self.agent.post(format!("{}/v1/completions", self.url)).send_json(body);
        let mut answer = sent.map_err(|error| lost(&error))?;
        if !answer.status().is_success() {
            return Err(refused(&answer.body_mut().read_json().unwrap_or_default()));
        }
        for line in BufReader::new(answer.body_mut().as_reader()).lines() {
            let line = line.map_err(|error| lost(&error.into()))?;
            let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else { continue };
            let chunk: Value = serde_json::from_str(data).unwrap_or_default();
            if chunk.get("error").is_some() {
                return Err(refused(&chunk));
            }
            on_text(chunk["choices"][0]["text"].as_str().unwrap_or_default());
        }
        Ok(())
    }
}

/// What to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion<'a> {
    /// The beginning.
    pub(crate) prompt: &'a str,
    /// Most tokens to add.
    pub(crate) max_tokens: u32,
    /// 0 always takes the likeliest token.
    pub(crate) temperature: f32,
    /// The same seed gives the same text.
    pub(crate) seed: u64,
}

fn lost(error: &ureq::Error) -> Failure {
    Failure::new(Code::Network, format!("the running cairn does not answer: {error}")).hint("try again in a moment")
}

fn refused(answer: &Value) -> Failure {
    let error = &answer["error"];
    let failure = Failure::new(Code::BadInput, error["message"].as_str().unwrap_or("the running cairn refused"));
    match error["hint"].as_str() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
