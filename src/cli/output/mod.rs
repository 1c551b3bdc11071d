//! What commands print: tables, plots and progress.
//!
//! Results go to standard output and progress to standard error, so that piping a result gives
//! the result alone. Everything renders to a `String` from plain data; what a terminal allows is
//! asked once, in [`Terminal`].

mod plot;
mod progress;
mod table;

pub use plot::{Point, plot};
pub use progress::Progress;
pub use table::Table;

/// What the place of output allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Columns to fill at most.
    pub width: usize,
    /// Whether escape sequences for colour are welcome.
    pub colour: bool,
}

impl Terminal {
    /// The width used where there is no terminal: fits a page, a log and a review.
    pub const PLAIN_WIDTH: usize = 100;

    /// What standard output allows. `NO_COLOR` with any content turns colour off, as does
    /// output into a file or pipe.
    pub fn of_stdout() -> Self {
        use std::io::IsTerminal;
        let interactive = std::io::stdout().is_terminal();
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        let width = comfy_table::Table::new().width().filter(|_| interactive);
        Self::new(interactive && !dumb && set("NO_COLOR").is_none(), width)
    }

    fn new(colour: bool, width: Option<u16>) -> Self {
        let width = width.map_or(Self::PLAIN_WIDTH, usize::from).clamp(20, 240);
        Self { width, colour }
    }

    /// A plain terminal of `width` columns, for tests and files.
    pub fn plain(width: usize) -> Self {
        Self { width, colour: false }
    }

    /// `text` in one of the eight basic colours, or unchanged.
    pub(crate) fn paint(self, text: &str, code: u8) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A number for people: at most `decimals` places, no trailing zeros, thousands apart.
pub fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let text = format!("{:.*}", decimals.min(12), value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = fraction.trim_end_matches('0');
    let zero = fraction.is_empty() && whole == "0";
    let mut out = String::from(if value < 0.0 && !zero { "−" } else { "" });
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests;
