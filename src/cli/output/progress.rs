//! Progress of long work, on standard error.

use std::borrow::Cow;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar that is there while it works and leaves nothing behind. Where standard error is
/// no terminal there is none at all, so logs and pipes stay clean.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Progress in bytes, such as of a file being read.
    pub fn bytes(total: u64, what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(total, what, "{msg} {bar:30} {bytes}/{total_bytes} {eta}")
    }

    /// Progress in things done.
    pub fn items(total: u64, what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(total, what, "{msg} {bar:30} {human_pos}/{human_len} {eta}")
    }

    fn new(total: u64, what: impl Into<Cow<'static, str>>, template: &str) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(total)
        } else {
            ProgressBar::hidden()
        };
        // A template that does not parse would cost the looks, not the work.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self { bar }
    }

    /// Moves to `position`.
    pub fn set(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Moves by `delta`.
    pub fn advance(&self, delta: u64) {
        self.bar.inc(delta);
    }

    /// Prints a line above the bar, or to standard error where there is no bar.
    pub fn say(&self, line: impl AsRef<str>) {
        self.bar.suspend(|| eprintln!("{}", line.as_ref()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
