//! What a person sees while a command works, and the one JSON object a program gets.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::{Exit, Failure};

/// A line of progress on stderr: a spinner on a terminal, a plain line elsewhere, nothing under `--json`.
pub struct Terminal {
    quiet: bool,
}

/// A stage under way.
pub struct Stage {
    bar: Option<ProgressBar>,
    name: &'static str,
    since: Instant,
    quiet: bool,
}

impl Terminal {
    /// Silent under `--json`.
    pub fn new(json: bool) -> Self {
        Self { quiet: json }
    }

    /// Begins a stage.
    pub fn stage(&self, name: &'static str) -> Stage {
        let bar = (!self.quiet && std::io::IsTerminal::is_terminal(&std::io::stderr())).then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
            let bar = ProgressBar::new_spinner().with_message(name);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Stage { bar, name, since: Instant::now(), quiet: self.quiet }
    }

    /// A line of information.
    pub fn line(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            tell(text);
        }
    }

    /// A check of an appraisal, good or bad.
    pub fn check(&self, good: bool, text: impl std::fmt::Display) {
        let (style, mark) = if good { (colour(AnsiColor::Green), "ok  ") } else { (colour(AnsiColor::Red), "FAIL") };
        self.line(format!("  {style}{mark}{style:#} {}", printable(&text.to_string())));
    }
}

impl Stage {
    /// Shows how far the stage is.
    pub fn say(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {detail}", self.name));
        }
    }

    /// Ends the stage and returns how long it took.
    pub fn done(self, detail: impl std::fmt::Display) -> Timing {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        if !self.quiet {
            tell(format_args!("{:<10} {:>7.2} s  {detail}", self.name, self.since.elapsed().as_secs_f64()));
        }
        Timing { stage: self.name, millis }
    }
}

/// How long a stage took.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// Name of the stage.
    pub stage: &'static str,
    /// Milliseconds.
    pub millis: u64,
}

/// A foreground colour.
pub fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(colour.into())).bold()
}

/// `text` without control characters but newline and tab, and without those that turn lines round or end them: answers,
/// evidence and refusals are the words of strangers, and a terminal obeys what it is told in them.
pub fn printable(text: &str) -> String {
    let turns =
        |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !(c.is_control() || turns(*c))).collect()
}

/// One line of `text`, every character that a terminal might obey or not show written as an escape.
pub fn escaped(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        if c != '\\' && shows(c) { line.push(c) } else { line.extend(c.escape_default()) }
    }
    line
}

/// A path as one word of a shell.
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:,@%=".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Prints on stdout, to the last byte.
///
/// # Errors
/// [`Exit::Failed`]: nobody has what a command was asked for, so it did not end well.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| {
        Failure::new(Exit::Failed, "WRITE", format!("standard output: {e}"))
            .hint("where does it go: a full disk, a reader that ended?")
    })
}

/// A line on stderr. Nobody can be told that it could not be written.
pub fn tell(text: impl std::fmt::Display) {
    drop(writeln!(anstream::stderr(), "{text}"));
}

/// Prints the one JSON object of a command on stdout.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(Exit::Failed, "WRITE", e))?;
    print(&escaped_json(&text))
}

/// The same JSON: what serde_json leaves in strings although a terminal might obey it stands there by its code.
fn escaped_json(text: &str) -> String {
    let mut json = String::new();
    for c in text.chars() {
        if c == '\n' || shows(c) {
            json.push(c);
        } else {
            json.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    json
}

/// Neither a control character nor one that changes how others are shown.
fn shows(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word() {
        for (path, word) in
            [("out/a-1.json", "out/a-1.json"), ("my files/$x", "'my files/$x'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }

    #[test]
    fn a_stranger_does_not_command_the_terminal() {
        let text = "grüße\n\tto you\x1b]52;c;bGVhaw==\x07\x1b[2J\r\u{9b}31m";
        assert_eq!(printable(text), "grüße\n\tto you]52;c;bGVhaw==[2J31m");
        assert_eq!(printable("no\u{202e}\u{2066}\u{200f}\u{2028}pe नी"), "nope नी", "and what shapes letters stays");
        assert_eq!(escaped("grüße\n\\\"\u{202e}\x1b[2J"), r#"grüße\n\\"\u{202e}\u{1b}[2J"#);
        let json = serde_json::to_string(&format!("{text}\u{202e}\u{e0001}")).unwrap();
        let printed = escaped_json(&json);
        assert!(printed.chars().all(|c| c.is_ascii_graphic() || " üß".contains(c)), "{printed}");
        assert_eq!(serde_json::from_str::<String>(&printed).unwrap(), format!("{text}\u{202e}\u{e0001}"));
    }
}
