//! `cairn chat`: talks to the newest checkpoint in the terminal.
//!
//! The model is a base model: it continues a text. Every line that is typed is a new beginning.

use std::io::{BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use model::{Config, Decoder, Request, Sampler, Sampling, Tokenizer, generate};
use node::home::Home;
use node::offline::Saved;
use tensor::Context;

use crate::cli::ChatArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::running::{Completion, Running};

/// Who writes.
enum Writer {
    /// The model of a cairn that is running now.
    Running(Running),
    /// A checkpoint, in this process.
    Local(Box<Local>),
}

struct Local {
    ctx: Context,
    decoder: Decoder,
    tokenizer: Arc<Tokenizer>,
}

/// Continues one text, or every line of a conversation.
pub(crate) fn run(args: &ChatArgs, home: &Path) -> Outcome {
    let mut writer = writer(args, home)?;
    if let Some(prompt) = &args.prompt {
        return answer(&mut writer, args, prompt, args.seed);
    }
    let talking = std::io::stdin().is_terminal();
    if talking {
        eprintln!("The model continues what you write. Every line is a new beginning; Ctrl-D ends.\n");
    }
    let mut seed = args.seed;
    loop {
        if talking {
            eprint!("> ");
        }
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(Failure::new(Code::BadInput, format!("cannot read a line: {error}"))),
        }
        if !line.trim().is_empty() {
            answer(&mut writer, args, line.trim(), seed)?;
            seed = seed.wrapping_add(1);
        }
    }
    Ok(())
}

fn writer(args: &ChatArgs, home: &Path) -> Outcome<Writer> {
    if let Some(path) = &args.checkpoint {
        return Ok(Writer::Local(Box::new(from_file(path)?)));
    }
    if let Some(running) = Running::find(home) {
        return Ok(Writer::Running(running));
    }
    let none = || {
        Failure::new(Code::BadInput, format!("no model in `{}` yet", home.display()))
            .hint("`cairn up` trains one; or name a file with `--checkpoint FILE`")
    };
    if !home.exists() {
        return Err(none());
    }
    let saved = Saved::newest(&Home::open(home)?)?.ok_or_else(none)?;
    let checkpoint = saved.checkpoint()?.ok_or_else(none)?;
    local(checkpoint.config, &checkpoint.params, checkpoint.tokenizer).map(|local| Writer::Local(Box::new(local)))
}

fn from_file(path: &Path) -> Outcome<Local> {
    let corrupt = |error: &dyn std::fmt::Display| {
        Failure::new(Code::CorruptData, error).hint("`cairn train --solo --save FILE` writes a checkpoint that works")
    };
    let checkpoint = model::files::load(path).map_err(|error| corrupt(&error))?;
    let beside = path.with_file_name("tokenizer.json");
    let bytes = std::fs::read(&beside)
        .map_err(|error| corrupt(&format!("cannot read the tokenizer `{}`: {error}", beside.display())))?;
    let tokenizer = Tokenizer::from_bytes(&bytes).map_err(|error| corrupt(&error))?;
    if tokenizer.hash() != checkpoint.tokenizer {
        return Err(corrupt(&format!("`{}` is not the tokenizer that the model was trained with", beside.display())));
    }
    local(*checkpoint.stage.config(), &checkpoint.params, Arc::new(tokenizer))
}

fn local(config: Config, params: &[f32], tokenizer: Arc<Tokenizer>) -> Outcome<Local> {
    let decoder = Decoder::new(config, params).map_err(|error| Failure::new(Code::CorruptData, error))?;
    Ok(Local { ctx: Context::new(node::probe::cores()), decoder, tokenizer })
}

fn answer(writer: &mut Writer, args: &ChatArgs, prompt: &str, seed: u64) -> Outcome {
    let request = Completion { prompt, max_tokens: args.max_tokens, temperature: args.temperature, seed };
    print!("{prompt}");
    let show = |text: &str| {
        print!("{text}");
        // A reader that went away is noticed at the next line.
        let _ = std::io::stdout().flush();
    };
    match writer {
        Writer::Running(running) => running.complete(&request, show)?,
        Writer::Local(local) => local.complete(&request, show)?,
    }
    println!("\n");
    Ok(())
}

impl Local {
    fn complete(&mut self, request: &Completion<'_>, mut on_text: impl FnMut(&str)) -> Outcome {
        let sampling = Sampling { temperature: request.temperature, seed: request.seed, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling).map_err(|error| Failure::new(Code::BadInput, error))?;
        let prompt = self.tokenizer.encode(request.prompt);
        let mut cache = self.decoder.cache();
        let mut stream = self.tokenizer.stream();
        let wanted = Request { prompt: &prompt, tokens_max: request.max_tokens as usize, end: Some(model::END_ID) };
        let written = generate(&self.ctx, &mut self.decoder, &mut cache, wanted, &mut sampler, |token| {
            on_text(&stream.push(token));
            ControlFlow::Continue(())
        });
        written.map_err(|error| Failure::new(Code::BadInput, error).hint("give a shorter beginning"))?;
        on_text(&stream.finish());
        Ok(())
    }
}
