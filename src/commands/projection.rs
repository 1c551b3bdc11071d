//! Leaving out an event that a projector cannot handle: an event itself, so that it says who decided
//! it and why, and so that every rebuild repeats it.

use aggregates::projection::{self, Skip, SkipCommand, SkipError};
use aggregates::{Actor, Metadata, StreamId, UserId};

use super::load::handle;
use super::observe::{about, ended, observed};
use super::{CommandError, events_of};
use crate::ids;
use crate::store::{Member, Op, Outcome, Store, StreamChange};

/// Why nothing was skipped.
#[derive(Debug, thiserror::Error)]
pub enum SkipFailure {
    #[error(transparent)]
    Refused(#[from] SkipError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Records a skip; answers its position, with which projectors take it up.
///
/// # Errors
/// [`SkipFailure::Refused`] where the projector is not parked there or who and why are not said,
/// else where the log does not answer.
pub async fn skip(store: &Store, user: UserId, command: SkipCommand) -> Result<i64, SkipFailure> {
    observed(projection::TYPE, "skip", record(store, user, command), ended).await
}

async fn record(store: &Store, user: UserId, command: SkipCommand) -> Result<i64, SkipFailure> {
    let stream = StreamId::new(projection::TYPE, ids::new_id());
    about(&stream);
    let SkipCommand::Skip { by, .. } = &command;
    let metadata =
        Metadata { actor: Actor::Staff { subject: by.clone() }, ..Metadata::owner(ids::new_id()) };
    let events = handle(&mut Skip::default(), command, &()).await?;
    let member = Member {
        streams: vec![StreamChange {
            stream,
            user,
            expected: 0,
            events: events_of(events, &metadata),
            op: Op::Create,
            origin: None,
            state: None,
        }],
        ..Member::default()
    };
    match store.append(member).await.map_err(CommandError::from)? {
        Outcome::Appended { last, .. } => Ok(last),
        _ => Err(CommandError::Busy.into()),
    }
}
