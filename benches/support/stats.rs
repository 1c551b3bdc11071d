//! Medians and percentiles.

use std::time::Duration;

use super::load::Run;

/// What one side came to over all its turns.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Per second, one of each turn.
    pub rates: Vec<f64>,
    /// Of all turns.
    pub latencies: Vec<Duration>,
}

impl Series {
    /// Adds a turn in which each step stood for `weight` things.
    pub fn add(&mut self, run: Run, weight: f64) {
        self.rates.push(run.per_second() * weight);
        self.latencies.extend(run.latencies);
    }

    pub fn rate(&self) -> f64 {
        median(&self.rates)
    }

    /// A percentile of the latencies in ms, `of` in 0..=1.
    pub fn latency_ms(&self, of: f64) -> f64 {
        percentile_ms(&self.latencies, of)
    }
}

/// The middle value, or the mean of the two in the middle; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Nearest-rank percentile in ms, `of` in 0..=1; 0 of nothing.
pub fn percentile_ms(durations: &[Duration], of: f64) -> f64 {
    let mut sorted = durations.to_vec();
    sorted.sort();
    let rank = (of * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |at| at.as_secs_f64() * 1e3)
}

/// Turn by turn `ours / theirs`.
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}
