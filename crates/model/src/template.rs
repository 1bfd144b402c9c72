//! The chat template of a model: from messages to the text that the model was tuned on.
//!
//! Source: the Jinja templates in `tokenizer_config.json` and in `tokenizer.chat_template` of GGUF files, as Hugging Face
//! transformers renders them (blocks take the line break after them and the blanks before them; `raise_exception`; methods of
//! Python's strings). The result goes through [`Tokenizer::encode_template`](crate::Tokenizer::encode_template); what people
//! wrote should go through [`Tokenizer::shield`](crate::Tokenizer::shield) before.
//!
//! A template comes with a file of anybody's making: it is given a fixed amount of work and of output, and sees nothing but
//! the messages. What it does not do: tools, and the date (`strftime_now` is not defined, so that a prompt depends
//! on its messages only).

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};

/// Most bytes of a template.
pub const TEMPLATE_BYTES_MAX: usize = 1 << 18;

/// Most bytes of a rendered conversation.
pub const RENDERED_BYTES_MAX: usize = 1 << 24;

/// Most instructions of one rendering.
const FUEL: u64 = 1 << 22;

/// One turn of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: &'a str,
    /// What was said.
    pub content: &'a str,
}

/// A template that is ready to be rendered.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    begin: String,
    end: String,
}

/// Why a template could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is larger than any.
    #[error("chat template: {bytes} bytes, and at most {TEMPLATE_BYTES_MAX} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The template is no Jinja.
    #[error("chat template: {reason}")]
    Syntax {
        /// What the reader said, with the line.
        reason: String,
    },
    /// The template refuses these messages, or fails on them.
    #[error("chat template: {reason}")]
    Render {
        /// What the template or its interpreter said.
        reason: String,
    },
    /// The template does not come to an end.
    #[error("chat template: more than {FUEL} steps or {RENDERED_BYTES_MAX} bytes for one conversation")]
    Endless,
}

impl ChatTemplate {
    /// Reads a template. `begin` and `end` are the texts of the tokens that begin and end a sequence, which templates call
    /// `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// The template is too large or no Jinja.
    pub fn new(source: &str, begin: &str, end: &str) -> Result<Self, TemplateError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLarge { bytes: source.len() });
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Syntax { reason: error.to_string() })?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |reason: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason))
        });
        environment
            .add_template_owned("chat", source.to_owned())
            .map_err(|error| TemplateError::Syntax { reason: error.to_string() })?;
        Ok(Self { environment, source: source.to_owned(), begin: begin.to_owned(), end: end.to_owned() })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation; `answer` adds what stands in front of the model's next answer.
    ///
    /// # Errors
    /// The template refuses the messages (most want user and assistant to alternate), fails, or does not come to an end.
    pub fn render(&self, messages: &[Message<'_>], answer: bool) -> Result<String, TemplateError> {
        let failed = |error: minijinja::Error| match error.kind() {
            ErrorKind::OutOfFuel | ErrorKind::WriteFailure => TemplateError::Endless,
            _ => TemplateError::Render { reason: error.to_string() },
        };
        let template = self.environment.get_template("chat").map_err(failed)?;
        let mut text = Bounded(Vec::new());
        let messages = messages.iter().map(|Message { role, content }| context! { role => *role, content => *content });
        let values = context! {
            messages => Value::from_iter(messages), add_generation_prompt => answer, bos_token => self.begin.as_str(), eos_token => self.end.as_str(),
        };
        template.render_captured_to(values, &mut text).map_err(failed)?;
        String::from_utf8(text.0).map_err(|error| TemplateError::Render { reason: error.to_string() })
    }
}

/// Output that ends with an error where it becomes too long.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > RENDERED_BYTES_MAX {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT_ML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
        {{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}\
        {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn message<'a>(role: &'a str, content: &'a str) -> Message<'a> {
        Message { role, content }
    }

    #[test]
    fn chat_ml_reads_as_the_models_were_tuned() {
        let template = ChatTemplate::new(CHAT_ML, "<s>", "<|im_end|>").unwrap();
        let talk = [message("user", "Hi {{ 7 }}"), message("assistant", "Hello."), message("user", "Bye")];
        assert_eq!(
            template.render(&talk, true).unwrap(),
            "<|im_start|>system\nYou are kind.<|im_end|>\n<|im_start|>user\nHi {{ 7 }}<|im_end|>\n\
             <|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
        );
        let own = template.render(&[message("system", "Be brief.")], false).unwrap();
        assert_eq!(own, "<|im_start|>system\nBe brief.<|im_end|>\n");
        assert_eq!(template.render(&[], true).unwrap(), "<|im_start|>assistant\n");
    }

    #[test]
    fn what_templates_of_llama_and_qwen_use_is_there() {
        let source = "{{- bos_token }}\n{%- set system = messages[0]['content']|trim %}\n{%- if system.startswith('Be') %}\n\
            {{- system.split(' ')[-1].strip('.') }}\n{%- endif %}\n{%- for message in messages[::-1] %}\n\
            {%- if message.role == 'tool' %}{{- raise_exception('no tools') }}{%- endif %}\n\
            {%- if loop.index0 > 0 %}{% continue %}{% endif %}{{- message.content | tojson }}{%- endfor %}\n\
            {%- if tools is defined and tools %}{{ tools }}{% endif %}{{ eos_token }}";
        let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
        let talk = [message("system", " Be brief. "), message("user", "Hi")];
        assert_eq!(template.render(&talk, true).unwrap(), "<s>brief\"Hi\"</s>");
        let refused = template.render(&[message("tool", "x")], true).unwrap_err().to_string();
        assert!(refused.contains("no tools"), "{refused}");
    }

    #[test]
    fn a_hostile_template_ends_with_an_error() {
        let render = |source: &str| ChatTemplate::new(source, "", "").unwrap().render(&[], true);
        let loops = "{% for i in range(9999) %}{% for j in range(9999) %}{% set x = i %}{% endfor %}{% endfor %}";
        assert_eq!(render(loops), Err(TemplateError::Endless));
        let long = "{% set a = 'aaaaaaaaaaaaaaaa' * 4096 %}{% for i in range(9999) %}{{ a }}{% endfor %}";
        assert_eq!(render(long), Err(TemplateError::Endless));
        for source in
            ["{{ 'a' * 100000000000 }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ messages.x.y }}"]
        {
            assert!(render(source).is_err(), "{source}");
        }
        assert!(matches!(ChatTemplate::new("{% for %}", "", ""), Err(TemplateError::Syntax { .. })));
        let large = " ".repeat(TEMPLATE_BYTES_MAX + 1);
        assert!(matches!(ChatTemplate::new(&large, "", ""), Err(TemplateError::TooLarge { .. })));
    }
}
