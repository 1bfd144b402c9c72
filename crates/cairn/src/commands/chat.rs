//! `cairn chat`: talks to the newest checkpoint, or to a model that others trained, in the terminal.
//!
//! A base model continues a text: every line that is typed is a new beginning. A model that was tuned for conversations, and so has
//! a chat template, answers, and remembers the conversation.

use std::io::{BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use model::{
    Cache, ChatTemplate, Config, Decoder, Message, Pretrained, Request, Sampler, Sampling, Tokenizer, generate,
};
use node::Models;
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
    ends: Vec<u32>,
    begin: Option<u32>,
    conversation: Option<Conversation>,
}

/// What was said so far, with a model that answers.
struct Conversation {
    template: ChatTemplate,
    /// Roles and what they said.
    turns: Vec<(&'static str, String)>,
    /// The tokens that went through the model, and what it keeps of them.
    tokens: Vec<u32>,
    cache: Cache,
}

/// Continues one text, or every line of a conversation.
pub(crate) fn run(args: &ChatArgs, home: &Path) -> Outcome {
    let mut writer = writer(args, home)?;
    if let Some(prompt) = &args.prompt {
        return answer(&mut writer, args, prompt, args.seed);
    }
    let talking = std::io::stdin().is_terminal();
    if talking {
        eprintln!(
            "{}; Ctrl-D ends.\n",
            match writer.answers() {
                true => "The model answers, and remembers what was said",
                false => "The model continues what you write. Every line is a new beginning",
            }
        );
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
    if let Some(name) = &args.model {
        let models = Models::new(home);
        let model = models.open_decoder(&models.find(name)?)?;
        return Ok(Writer::Local(Box::new(pretrained(model))));
    }
    if let Some(path) = &args.checkpoint {
        return Ok(Writer::Local(Box::new(from_file(path)?)));
    }
    if let Some(running) = Running::find(home) {
        return Ok(Writer::Running(running));
    }
    let none = || {
        Failure::new(Code::BadInput, format!("no model in `{}` yet", home.display()))
            .hint("`cairn up` trains one; or choose another with `--model NAME` or `--checkpoint PATH`")
    };
    if !home.exists() {
        return Err(none());
    }
    let saved = Saved::newest(&Home::open(home)?)?.ok_or_else(none)?;
    let checkpoint = saved.checkpoint()?.ok_or_else(none)?;
    let params = checkpoint.parameters().ok_or_else(none)?;
    local(checkpoint.config, params, checkpoint.tokenizer.clone()).map(|local| Writer::Local(Box::new(local)))
}

/// A GGUF file, a directory of Hugging Face, or a checkpoint of this program.
fn from_file(path: &Path) -> Outcome<Local> {
    Ok(pretrained(Pretrained::open_decoder(path).map_err(node::ModelsError::from)?))
}

fn local(config: Config, params: &[f32], tokenizer: Arc<Tokenizer>) -> Outcome<Local> {
    let decoder = Decoder::new(config, params).map_err(|error| Failure::new(Code::CorruptData, error))?;
    Ok(Local { ctx: context(), decoder, tokenizer, ends: vec![model::END_ID], begin: None, conversation: None })
}

fn pretrained((model, decoder): (Pretrained, Decoder)) -> Local {
    let Pretrained { tokenizer, template, begin, ends, .. } = model;
    let conversation = template.map(|template| {
        let cache = decoder.cache();
        Conversation { template, turns: Vec::new(), tokens: Vec::new(), cache }
    });
    Local { ctx: context(), decoder, tokenizer: Arc::new(tokenizer), begin, ends, conversation }
}

fn context() -> Context {
    Context::new(node::probe::cores())
}

fn answer(writer: &mut Writer, args: &ChatArgs, prompt: &str, seed: u64) -> Outcome {
    let request = Completion { prompt, max_tokens: args.max_tokens, temperature: args.temperature, seed };
    if !writer.answers() {
        print!("{prompt}");
    }
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

impl Writer {
    /// Whether the model answers instead of continuing.
    fn answers(&self) -> bool {
        matches!(self, Self::Local(local) if local.conversation.is_some())
    }
}

impl Local {
    fn complete(&mut self, request: &Completion<'_>, on_text: impl FnMut(&str)) -> Outcome {
        let Some(mut conversation) = self.conversation.take() else {
            let prompt: Vec<u32> = self.begin.into_iter().chain(self.tokenizer.encode(request.prompt)).collect();
            let mut cache = self.decoder.cache();
            return self.write(request, &prompt, &mut cache, on_text).map(drop);
        };
        let done = self.answer(&mut conversation, request, on_text);
        self.conversation = Some(conversation);
        done
    }

    /// Says something in a conversation. What the model read before is not read again.
    fn answer(
        &mut self,
        conversation: &mut Conversation,
        request: &Completion<'_>,
        on_text: impl FnMut(&str),
    ) -> Outcome {
        conversation.turns.push(("user", self.tokenizer.shield(request.prompt).into_owned()));
        let messages: Vec<Message<'_>> =
            conversation.turns.iter().map(|(role, content)| Message { role, content }).collect();
        let text =
            conversation.template.render(&messages, true).map_err(|error| Failure::new(Code::BadInput, error))?;
        let prompt = self.tokenizer.encode_template(&text);
        let known = conversation.tokens.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
        let known = known.min(conversation.cache.len()).min(prompt.len().saturating_sub(1));
        conversation.cache.truncate(known);
        let said = self.write(request, &prompt[known..], &mut conversation.cache, on_text)?;
        let answer = self.tokenizer.decode(&said);
        conversation.turns.push(("assistant", self.tokenizer.shield(&answer).into_owned()));
        conversation.tokens = prompt;
        conversation.tokens.extend(said);
        Ok(())
    }

    /// Generates, and returns the tokens.
    fn write(
        &mut self,
        request: &Completion<'_>,
        prompt: &[u32],
        cache: &mut Cache,
        mut on_text: impl FnMut(&str),
    ) -> Outcome<Vec<u32>> {
        let sampling = Sampling { temperature: request.temperature, seed: request.seed, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling).map_err(|error| Failure::new(Code::BadInput, error))?;
        let mut stream = self.tokenizer.stream();
        let mut said = Vec::new();
        let wanted = Request { prompt, tokens_max: request.max_tokens as usize, ends: &self.ends };
        let written = generate(&self.ctx, &mut self.decoder, cache, wanted, &mut sampler, |token| {
            said.push(token);
            on_text(&stream.push(token));
            ControlFlow::Continue(())
        });
        written.map_err(|error| Failure::new(Code::BadInput, error).hint("give a shorter beginning"))?;
        on_text(&stream.finish());
        Ok(said)
    }
}
