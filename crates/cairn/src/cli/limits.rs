//! What a person lets this machine give.

use clap::Args;
use node::Limits;
use node::limits::{CpuShare, LimitError, When, parse_limit};

use crate::exit::{Code, Failure, Outcome};

/// What this machine gives, for `up` and `join` alike.
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Processor time of all cores that it may take, e.g. `50%`: fewer threads, and pauses between steps
    #[arg(long, value_name = "SHARE")]
    cpu: Option<String>,
    /// Bytes of memory that a peer may take, e.g. `600M` or `4G`: a model or stage that needs more is refused, and a peer in a process
    /// of its own ends when it takes more
    #[arg(long, value_name = "BYTES", value_parser = crate::figures::parse_bytes)]
    memory: Option<u64>,
    /// Bits per second that may go to other machines, e.g. `5M`
    #[arg(long, value_name = "RATE")]
    up: Option<String>,
    /// Bits per second that may come from other machines, e.g. `20M`
    #[arg(long, value_name = "RATE")]
    down: Option<String>,
    /// When it works: `idle` while other programs need little, or `22:00-07:00`, in this machine's time
    #[arg(long, value_name = "WHEN")]
    when: Option<String>,
}

impl LimitArgs {
    /// The limits.
    ///
    /// # Errors
    /// One that cannot be read.
    pub(crate) fn read(&self) -> Outcome<Limits> {
        let failure = |error: LimitError| Failure::new(Code::BadInput, &error).hint(error.hint());
        let cpu = self.cpu.as_deref().map(str::parse::<CpuShare>).transpose().map_err(failure)?;
        let rate = |text: &Option<String>| text.as_deref().map(parse_limit).transpose().map_err(failure);
        let when = self.when.as_deref().map(str::parse::<When>).transpose().map_err(failure)?;
        Ok(Limits {
            cpu,
            memory: self.memory,
            up_bits_per_s: rate(&self.up)?,
            down_bits_per_s: rate(&self.down)?,
            when: when.unwrap_or_default(),
        })
    }
}
