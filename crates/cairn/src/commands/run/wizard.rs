//! The questions of `cairn run new`: one a line, each with a default that an empty answer takes.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use learn::recipe::Size;
use node::description::{PEERS, RunDescription, SIZE};
use wire::Release;

/// Asks what the description does not say yet.
///
/// # Errors
/// The answers end, or cannot be read.
pub(crate) fn ask(input: &mut dyn BufRead, output: &mut dyn Write, description: &mut RunDescription) -> io::Result<()> {
    writeln!(output, "\n  A few questions; Enter takes what is in brackets.\n")?;
    if description.size.is_none() {
        let names: Vec<&str> = Size::NAMES.iter().map(|(name, _)| *name).collect();
        let question = format!("parameters of the model, such as 350k or 10M, or {}", names.join(", "));
        let right = |text: &str| text.parse::<Size>().map(drop).map_err(|error| error.to_string());
        description.size = Some(one(input, output, &question, SIZE, &right)?);
    }
    if description.data.path.is_none() {
        let right = |text: &str| match text == NOVELS || Path::new(text).exists() {
            true => Ok(()),
            false => Err(format!("`{text}` is not there")),
        };
        let data = one(input, output, "text to train on: a file, or a folder with .txt files", NOVELS, &right)?;
        description.data.path = Some(data).filter(|data| data != NOVELS).map(PathBuf::from);
    }
    if description.data.path.is_some() && description.data.licence.is_none() {
        let licence = one(input, output, "its licence; whoever joins gets the text", "not stated", &|_| Ok(()))?;
        description.data.licence = Some(licence).filter(|licence| licence != "not stated");
    }
    if description.peers.is_none() {
        let right = |text: &str| match text.parse::<u32>() {
            Ok(1..) => Ok(()),
            _ => Err("write a number from 1 on".to_owned()),
        };
        let peers = one(input, output, "peers that the first round waits for", &PEERS.to_string(), &right)?;
        description.peers = peers.parse().ok();
    }
    if description.release.is_none() {
        let right = |text: &str| text.parse::<Release>().map(drop).map_err(|error| error.to_string());
        let question = "when the weights may leave: open-now, open-after=ROUNDS, or split (with stages)";
        description.release = Some(one(input, output, question, "open-now", &right)?);
    }
    if description.name.is_none() {
        let right = |text: &str| if text.len() <= 64 { Ok(()) } else { Err("at most 64 bytes".to_owned()) };
        let name = one(input, output, "what to call it", MADE, &right)?;
        description.name = Some(name).filter(|name| name != MADE);
    }
    Ok(())
}

/// Whether to go on.
///
/// # Errors
/// The answers end, or cannot be read.
pub(crate) fn confirm(input: &mut dyn BufRead, output: &mut dyn Write) -> io::Result<bool> {
    let right = |text: &str| match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "n" | "no" => Ok(()),
        _ => Err("write yes or no".to_owned()),
    };
    Ok(one(input, output, "found it?", "yes", &right)?.to_ascii_lowercase().starts_with('y'))
}

/// The answer that stands for the bundled text.
const NOVELS: &str = "the bundled novels";
/// The answer that stands for a name from data and size.
const MADE: &str = "made from data and size";

/// Asks one question until the answer is right.
fn one(
    input: &mut dyn BufRead,
    output: &mut dyn Write,
    question: &str,
    default: &str,
    right: &dyn Fn(&str) -> Result<(), String>,
) -> io::Result<String> {
    loop {
        write!(output, "  {question} [{default}]: ")?;
        output.flush()?;
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "there are no more"));
        }
        let answer = line.trim();
        let answer = if answer.is_empty() { default } else { answer };
        match right(answer) {
            Ok(()) => return Ok(answer.to_owned()),
            Err(wrong) => writeln!(output, "    {wrong}")?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answers: &str, mut description: RunDescription) -> io::Result<(RunDescription, String)> {
        let mut said = Vec::new();
        ask(&mut answers.as_bytes(), &mut said, &mut description)?;
        Ok((description, String::from_utf8(said).expect("it writes text")))
    }

    #[test]
    fn empty_answers_take_the_defaults() {
        let (description, said) = answered("\n\n\n\n\n", RunDescription::default()).expect("five questions");
        let defaults = RunDescription {
            size: Some(SIZE.to_owned()),
            peers: Some(PEERS),
            release: Some("open-now".to_owned()),
            ..RunDescription::default()
        };
        assert_eq!(description, defaults);
        assert_eq!(said.matches("]: ").count(), 5, "{said}");
    }

    #[test]
    fn wrong_answers_are_asked_again_and_what_is_known_is_not_asked() {
        let known = RunDescription { peers: Some(2), ..RunDescription::default() };
        let (description, said) =
            answered("huge\n80k\n/no such text\n/\nCC0\nnever\nsplit\nmine\n", known).expect("answers enough");
        assert_eq!((description.size.as_deref(), description.peers), (Some("80k"), Some(2)));
        assert_eq!(description.data.path.as_deref(), Some(Path::new("/")));
        assert_eq!(description.data.licence.as_deref(), Some("CC0"));
        assert_eq!((description.release.as_deref(), description.name.as_deref()), (Some("split"), Some("mine")));
        for part in ["`huge` is no size", "`/no such text` is not there", "`never` is no policy"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("first round waits for"), "{said}");
    }

    #[test]
    fn an_end_of_the_answers_is_an_error() {
        assert!(answered("1M\n", RunDescription::default()).is_err());
    }

    #[test]
    fn only_a_yes_goes_on() {
        let confirmed = |answers: &str| confirm(&mut answers.as_bytes(), &mut Vec::new()).ok();
        assert_eq!(
            ["\n", "y\n", "maybe\nYES\n", "no\n", ""].map(confirmed),
            [Some(true), Some(true), Some(true), Some(false), None]
        );
    }
}
