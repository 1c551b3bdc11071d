//! The session that goes on right now.

use aggregates::UserId;
use aggregates::entity::AnyEntity;
use aggregates::session::Session;
use aggregates::sync::desk::{Fact, Known, Need};
use uuid::Uuid;

use super::facts::Teller;
use super::names::Names;
use crate::store::{ReadError, Store};

/// The person's open session, unless its idle deadline has passed at `now_ms`. Only looks: one that
/// is idle is ended by whatever changes something next.
///
/// # Errors
/// Where the log cannot be read.
pub async fn active_session(
    store: &Store,
    user: UserId,
    now_ms: i64,
) -> Result<Option<(Uuid, Session)>, ReadError> {
    let names = Names::of(store, user).await?;
    let teller = Teller { store, user, names: &names };
    let facts = teller.tell(&[Need::OpenSession].into()).await?;
    let session = facts.into_iter().find_map(|fact| match fact {
        Fact::Entity(key, Known::Stored { entity: AnyEntity::Session(session), .. }) => {
            Some((key.id, *session))
        }
        _ => None,
    });
    Ok(session.filter(|(_, session)| session.is_open() && session.idle_end(now_ms).is_none()))
}
