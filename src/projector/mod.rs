//! The engine of all projectors: from the log to rows, exactly once.
//!
//! ```text
//! log ──page──► route by person ──► compute from current state ──► one transaction:
//!                                                                  checkpoints (compare-and-set)
//!                                                                  rows, progress, parked people
//! ```
//!
//! - **Who wins.** [`checkpoint`]: a lease decides who tries; the update of the checkpoint from
//!   the position a worker started at, under the fence it was given, decides who wins.
//! - **Failure.** [`batch`]: what fails for one person parks that person for that projector before
//!   the event that fails; all others go on. Transient failures fail the step, which is simply taken
//!   again. Attempts are counted before they are made ([`checkpoint::claim`]), so that an event
//!   which kills the process is found too. [`settle`] takes one person's rows from the log instead.
//! - **Rebuild.** [`rebuild`]: a new [`generation`] is folded from the log alone, compared with the
//!   live one ([`compare`]) and swapped in. Checking and repairing one person is the same fold.
//! - **As of.** [`replay`]: the same fold, cut at a position, into a schema of its own.
//! - **Waiting.** [`progress::wait_until`]: a reader waits for their own write.

pub mod batch;
pub mod checkpoint;
pub mod compare;
mod error;
pub mod generation;
mod heartbeat;
pub mod progress;
pub mod rebuild;
pub mod repair;
pub mod replay;
pub mod run;
pub mod service;
pub mod settle;
pub mod source;
pub mod statements;
pub mod store_source;
pub mod worker;

pub use checkpoint::Generation;
pub use error::ProjectorError;
pub use source::{LogReader, Page, SourceError, StateReader, Unreadable};
pub use store_source::StoreSource;
pub use worker::Worker;
