//! Closed loops: each worker does the next thing as soon as the last is answered.

use std::future::Future;
use std::time::{Duration, Instant};

/// Somebody who does one thing after another.
pub trait Worker: Send + 'static {
    /// Does the next thing and waits for its answer; false where there is nothing left to do.
    fn step(&mut self) -> impl Future<Output = bool> + Send;
}

/// What a turn came to.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub elapsed: Duration,
    /// Of each step.
    pub latencies: Vec<Duration>,
}

impl Run {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Lets all workers work at once, until the time is up or the work is done. They come back for the
/// next turn.
pub async fn drive<W: Worker>(workers: &mut Vec<W>, for_at_most: Duration) -> Run {
    let started = Instant::now();
    let deadline = started + for_at_most;
    let tasks: Vec<_> =
        workers.drain(..).map(|worker| tokio::spawn(until(worker, deadline))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        let (worker, own) = task.await.expect("a worker");
        workers.push(worker);
        latencies.extend(own);
    }
    Run { elapsed: started.elapsed(), latencies }
}

async fn until<W: Worker>(mut worker: W, deadline: Instant) -> (W, Vec<Duration>) {
    let mut latencies = Vec::new();
    loop {
        let begun = Instant::now();
        if begun >= deadline || !worker.step().await {
            return (worker, latencies);
        }
        latencies.push(begun.elapsed());
    }
}
