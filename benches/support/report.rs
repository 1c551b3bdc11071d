//! The table a bench prints and the file it leaves.

use std::path::Path;

use serde::Serialize;

use super::Scale;
use super::stats::{Series, median, ratios};

/// One finding. A larger ratio is better, whatever the unit.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    /// What the other side came to, in the same unit.
    pub baseline: Option<f64>,
    pub ratio: Option<f64>,
    /// Lowest and highest ratio of a turn.
    #[serde(skip)]
    spread: Option<(f64, f64)>,
}

/// All findings of a bench.
pub struct Report {
    bench: &'static str,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(bench: &'static str, scale: Scale) -> Self {
        let length = if scale.quick { "quick: too short to quote" } else { "full" };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!("\n{bench}: {length}, {cores} cores, fsync on, sides in turns\n");
        Self { bench, rows: Vec::new() }
    }

    /// Rates of both sides, turn by turn.
    pub fn rates(
        &mut self,
        name: &'static str,
        unit: &'static str,
        ours: &Series,
        theirs: &Series,
    ) {
        let ratios = ratios(&ours.rates, &theirs.rates);
        self.push(name, unit, ours.rate(), Some(theirs.rate()), &ratios);
    }

    /// Costs of both sides, of which less is better.
    pub fn costs(&mut self, name: &'static str, unit: &'static str, ours: f64, theirs: f64) {
        self.push(name, unit, ours, Some(theirs), &[theirs / ours]);
    }

    /// A finding without another side.
    pub fn alone(&mut self, name: &'static str, unit: &'static str, value: f64) {
        self.push(name, unit, value, None, &[]);
    }

    fn push(
        &mut self,
        name: &'static str,
        unit: &'static str,
        value: f64,
        baseline: Option<f64>,
        turns: &[f64],
    ) {
        let ratio = (!turns.is_empty()).then(|| rounded(median(turns)));
        let low = turns.iter().copied().reduce(f64::min);
        let spread = low.zip(turns.iter().copied().reduce(f64::max));
        let (value, baseline) = (rounded(value), baseline.map(rounded));
        let row = Row { name, value, unit, baseline, ratio, spread };
        println!("  {}", line(&row));
        self.rows.push(row);
    }

    /// In Markdown, so that it can go into the documentation as it is.
    fn table(&self) -> String {
        let mut lines =
            vec![["name", "ours", "baseline", "unit", "ratio", "turns"].map(str::to_owned)];
        lines.extend(self.rows.iter().map(|row| {
            let spread = row.spread.filter(|(low, high)| low < high);
            [
                row.name.to_owned(),
                number(row.value),
                row.baseline.map_or_else(String::new, number),
                row.unit.to_owned(),
                row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
                spread.map_or_else(String::new, |(low, high)| format!("{low:.2}–{high:.2}")),
            ]
        }));
        let widths: [usize; 6] = std::array::from_fn(|column| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
        });
        let rule = widths.map(|width| "-".repeat(width));
        lines.insert(1, rule);
        let mut table = String::new();
        for line in lines {
            for (cell, width) in line.iter().zip(widths) {
                table.push_str(&format!("| {cell:<width$} "));
            }
            table.push_str("|\n");
        }
        table
    }

    /// Prints the table and writes `bench/<bench>.json` into the target directory.
    pub fn finish(self) {
        println!("\n{}", self.table());
        // Where Cargo keeps everything it builds, wherever that is.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target directory");
        let directory = target.join("bench");
        std::fs::create_dir_all(&directory).expect("a directory for results");
        let file = directory.join(format!("{}.json", self.bench));
        let json = serde_json::to_string_pretty(&self.rows).expect("rows are JSON");
        std::fs::write(&file, json + "\n").expect("the results are written");
        println!("written to {}", file.display());
    }
}

fn line(row: &Row) -> String {
    let Row { name, value, unit, baseline, ratio, .. } = row;
    let value = number(*value);
    match baseline.zip(*ratio) {
        Some((baseline, ratio)) => {
            format!("{name}: {value} against {} {unit}, ratio {ratio:.2}", number(baseline))
        }
        None => format!("{name}: {value} {unit}"),
    }
}

/// More digits than a bench can stand for are noise.
fn rounded(value: f64) -> f64 {
    if value.abs() >= 1000.0 { value.round() } else { (value * 1000.0).round() / 1000.0 }
}

fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => {
            let digits = format!("{value:.0}");
            let mut grouped = String::new();
            for (nth, digit) in digits.chars().enumerate() {
                if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
