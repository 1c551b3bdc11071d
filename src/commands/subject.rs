//! A person's keys: created before the first event they seal, destroyed at the person's request.

use aggregates::subject::{self, KeyCreated, KeyDestroyed, SubjectEvent};
use aggregates::{Metadata, Purpose, StreamId, UserId};

use super::observe::{about, ended, observed};
use super::{CommandError, events_of};
use uuid::Uuid;

use crate::keys::KeyError;
use crate::store::{
    Member, Op, Outcome, ReadError, Store, StreamChange, SubjectChange, SubjectChangeKind,
};

/// Creates a key for each purpose and returns what announces them. The keys are durable when this
/// returns; they become active with the member.
///
/// # Errors
/// [`KeyError`] where the key store does not answer.
pub async fn create_keys(
    store: &Store,
    user: UserId,
    metadata: &Metadata,
) -> Result<Member, KeyError> {
    let mut member = Member::default();
    let mut events = Vec::new();
    for purpose in Purpose::ALL {
        let key = store.sealer().keyring().create(user, purpose).await?;
        events.push(SubjectEvent::KeyCreated(KeyCreated {
            key_id: key.key_id(),
            purpose,
            commitment: key.commitment().to_string(),
        }));
        member.subject_changes.push(SubjectChange {
            user,
            purpose,
            kind: SubjectChangeKind::Created { key_id: key.key_id(), commitment: key.commitment() },
        });
    }
    member.streams.push(StreamChange {
        stream: StreamId::new(subject::TYPE, user),
        user,
        expected: 0,
        events: events_of(events, metadata),
        op: Op::Create,
        origin: None,
        state: None,
    });
    Ok(member)
}

/// Destroys a person's keys for the given purposes, and with them everything they sealed: first
/// the event that refuses every further use, then the key bytes, then what was kept inline.
///
/// Each step can be repeated: calling again after a failure finishes what is left.
///
/// # Errors
/// [`CommandError`] where a database does not answer; nothing is taken back.
pub async fn shred(
    store: &Store,
    user: UserId,
    purposes: &[Purpose],
    reason: &str,
    metadata: &Metadata,
) -> Result<(), CommandError> {
    let handling = async {
        let mut lane = store.lane(user).await?;
        let result = shred_in(store, &mut lane, purposes, reason, metadata).await;
        lane.release().await;
        result
    };
    observed(subject::TYPE, "destroy_keys", handling, ended).await
}

async fn shred_in(
    store: &Store,
    lane: &mut crate::store::lane::UserLane,
    purposes: &[Purpose],
    reason: &str,
    metadata: &Metadata,
) -> Result<(), CommandError> {
    let user = lane.user();
    let subject = store.subjects().fresh(user).await?;
    let stream = StreamId::new(subject::TYPE, user);
    about(&stream);
    let heads = store.heads(std::slice::from_ref(&stream)).await?;
    let Some(head) = heads.first() else { return Err(CommandError::NotFound) };
    let mut member = Member::default();
    let mut events = Vec::new();
    for &purpose in purposes {
        let Some(key) = subject.key(purpose) else { continue };
        if key.status == crate::keys::KeyStatus::Destroyed {
            continue;
        }
        let data = KeyDestroyed { key_id: key.key_id, purpose, reason: reason.to_owned() };
        events.push(SubjectEvent::KeyDestroyed(data));
        let kind = SubjectChangeKind::Destroyed;
        member.subject_changes.push(SubjectChange { user, purpose, kind });
    }
    if !events.is_empty() {
        member.streams.push(StreamChange {
            stream,
            user,
            expected: head.sequence,
            events: events_of(events, metadata),
            op: Op::Update,
            origin: None,
            state: None,
        });
        match lane.append(member, None).await? {
            Outcome::Appended { .. } => {}
            _ => return Err(CommandError::Busy),
        }
    }
    for &purpose in purposes {
        if let Some(key) = subject.key(purpose) {
            purge(store, user, purpose, key.key_id).await?;
        }
    }
    Ok(())
}

/// Carries recorded erasures through that a crash or an absent key store left unfinished. The
/// person cannot ask again: their account answers that it is gone. Answers how many keys it was.
///
/// # Errors
/// [`CommandError`] where a database does not answer; the next call goes on.
pub async fn finish_erasures(store: &Store) -> Result<usize, CommandError> {
    let mut finished = 0;
    loop {
        let unfinished = store.subjects().unfinished().await?;
        if unfinished.is_empty() {
            return Ok(finished);
        }
        for (user, purpose, key_id) in unfinished {
            let lane = store.lane(user).await?;
            let purged = purge(store, user, purpose, key_id).await;
            lane.release().await;
            purged?;
            finished += 1;
        }
    }
}

/// The key bytes first: what is left afterwards is ciphertext nobody can open.
async fn purge(
    store: &Store,
    user: UserId,
    purpose: Purpose,
    key_id: Uuid,
) -> Result<(), CommandError> {
    store.sealer().keyring().destroy(key_id).await.map_err(ReadError::Key)?;
    Ok(store.forget(user, purpose).await?)
}
