//! A daily series as a compact bar chart of block characters.

use super::{Terminal, number};

/// One column of the chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Named under the chart where there is room, such as `03-01`.
    pub label: String,
    /// Absent or not finite: a gap.
    pub value: Option<f64>,
}

impl Point {
    /// A point with a value.
    pub fn new(label: impl Into<String>, value: impl Into<Option<f64>>) -> Self {
        Self { label: label.into(), value: value.into() }
    }
}

const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const GREEN: u8 = 32;
const BOLD: u8 = 1;

/// Draws `points` under `title`, `rows` lines high (2 to 40), no wider than the terminal.
///
/// The scale starts at zero where zero is near, so that bars compare as areas do; a series far
/// from zero, such as a weight, starts below its least value, which the axis names. Where there
/// are more points than columns, neighbours share a column as their mean.
pub fn plot(title: &str, points: &[Point], rows: usize, terminal: Terminal) -> String {
    let rows = rows.clamp(2, 40);
    let finite = |point: &Point| point.value.filter(|v| v.is_finite());
    let (low, high) = points
        .iter()
        .filter_map(finite)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let heading = terminal.paint(&clip(title, terminal.width), BOLD);
    if low > high {
        return format!("{heading}\n(no data)\n");
    }
    let base = base(low, high);
    // Halves, because the distance of two finite numbers need not be finite.
    let half_span = (high / 2.0 - base / 2.0).max(f64::MIN_POSITIVE);
    let axis = [base, base + half_span, high.max(base)].map(|v| number(v, decimals(half_span)));
    let margin = axis.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let room = terminal.width.saturating_sub(margin + 2).max(1);
    let columns = share(points, room);
    let width = (room / columns.len().max(1)).clamp(1, 3);
    let levels: Vec<Option<usize>> =
        columns.iter().map(|(value, _)| value.map(|v| level(v, base, half_span, rows))).collect();

    let mut lines = vec![heading];
    for row in (0..rows).rev() {
        let label = match row {
            r if r + 1 == rows => &axis[2],
            0 => &axis[0],
            r if r == rows / 2 && rows > 4 => &axis[1],
            _ => "",
        };
        let bars: String = levels.iter().map(|level| bar(*level, row, width)).collect();
        let bars = terminal.paint(bars.trim_end(), GREEN);
        let gap = " ".repeat(margin.saturating_sub(label.chars().count()));
        lines.push(format!("{gap}{label} ┤{bars}").trim_end().to_owned());
    }
    lines.push(labels(&columns, width, margin + 2));
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// Where the scale starts.
fn base(low: f64, high: f64) -> f64 {
    if low >= 0.0 && low / 2.0 <= high / 2.0 - low / 2.0 {
        return 0.0;
    }
    // A tenth of the span below the least value, so that its bar can be seen.
    let base = low - (high / 10.0 - low / 10.0).max(low.abs() / 1000.0);
    if base.is_finite() { base } else { low }
}

fn decimals(half_span: f64) -> usize {
    match half_span {
        s if s >= 50.0 => 0,
        s if s >= 1.0 => 1,
        s if s >= 0.05 => 2,
        _ => 4,
    }
}

/// Eighths of a row, at least one, so that a value is told from a gap.
fn level(value: f64, base: f64, half_span: f64, rows: usize) -> usize {
    let share = ((value / 2.0 - base / 2.0) / half_span).clamp(0.0, 1.0);
    let eighths = (rows * 8) as f64;
    ((share * eighths).round() as usize).max(1)
}

fn bar(level: Option<usize>, row: usize, width: usize) -> String {
    let filled = level.map_or(0, |level| level.saturating_sub(row * 8).min(8));
    let block = if level.is_none() && row == 0 { '·' } else { BLOCKS[filled] };
    // A space between bars that are wide enough to have one.
    let thick = if width == 1 { 1 } else { width - 1 };
    let mut cell = block.to_string().repeat(thick);
    cell.push_str(&" ".repeat(width - thick));
    cell
}

/// At most `room` columns, each with the label of its first point.
fn share(points: &[Point], room: usize) -> Vec<(Option<f64>, &str)> {
    let size = points.len().div_ceil(room).max(1);
    points
        .chunks(size)
        .map(|chunk| {
            let values: Vec<f64> =
                chunk.iter().filter_map(|p| p.value).filter(|v| v.is_finite()).collect();
            let n = values.len() as f64;
            let mean = values.iter().map(|v| v / n).sum::<f64>();
            let label = chunk.first().map_or("", |point| point.label.as_str());
            ((!values.is_empty()).then_some(mean), label)
        })
        .collect()
}

/// The labels that fit under their columns, with two spaces between.
fn labels(columns: &[(Option<f64>, &str)], width: usize, margin: usize) -> String {
    let mut line = " ".repeat(margin);
    let mut used = margin;
    let end = margin + columns.len() * width;
    for (n, (_, label)) in columns.iter().enumerate() {
        let (start, length) = (margin + n * width, label.chars().count());
        let free = n == 0 || start >= used + 2;
        if free && length > 0 && (n == 0 || start + length <= end) {
            line.push_str(&" ".repeat(start.saturating_sub(used)));
            line.push_str(label);
            used = start + length;
        }
    }
    line.trim_end().to_owned()
}

fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}
