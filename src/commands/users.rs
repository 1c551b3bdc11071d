//! Accounts: found by what the token says, created at the first request, changed by their owner.

use std::time::Duration;

use aggregates::entity::Context;
use aggregates::user::{self, AccountStatus, User, UserCommand, UserError, UserEvent};
use aggregates::{AnyEvent, Metadata, Purpose, StreamId, UserId};
use moka::future::Cache;
use serde_json::{Map, Value};

use super::load::{self, Stateful};
use super::observe::{about, ended, observed};
use super::subject::create_keys;
use super::{ATTEMPTS, CommandError, events_of};
use crate::keys::lookup::LookupName;
use crate::keys::{Lookup, LookupView};
use crate::store::{
    Claim, Member, Op, Outcome, PrivacyGuard, ReadError, Reservation, Store, StreamChange,
    SubjectChange, SubjectChangeKind,
};
use crate::{clock, ids};

/// Scope of the reservation that leads from an identity to its account.
const IDENTITY: &str = "identity";
/// Scope of the reservations of user names, under the lower-cased name.
const USERNAME: &str = "username";

impl Stateful for User {
    const STATE_VERSION: i32 = 1;
    const PURPOSE: Purpose = Purpose::Identity;

    fn event(event: AnyEvent) -> Option<UserEvent> {
        match event {
            AnyEvent::User(event) => Some(*event),
            _ => None,
        }
    }
}

/// Why there is no account behind an identity, or a command on it had no effect.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The account was erased. It is not created anew.
    #[error("the account was erased")]
    Erased,
    /// Somebody else has this user name, in whatever case.
    #[error("the user name is taken")]
    UsernameTaken,
    #[error(transparent)]
    Refused(#[from] UserError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl From<ReadError> for AccountError {
    fn from(error: ReadError) -> Self {
        Self::Command(error.into())
    }
}

/// Finds and creates accounts. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    store: Store,
    lookup: Lookup,
    known: Cache<[u8; 32], UserId>,
}

impl Accounts {
    /// With the server's lookup key.
    pub fn new(store: Store, lookup: Lookup) -> Self {
        let known =
            Cache::builder().max_capacity(50_000).time_to_live(Duration::from_secs(30)).build();
        Self { store, lookup, known }
    }

    /// The account of an identity, created with `profile` if this is its first request.
    ///
    /// # Errors
    /// [`AccountError::Erased`] for an erased account, else where a database does not answer.
    pub async fn resolve(
        &self,
        issuer: &str,
        subject: &str,
        profile: &Map<String, Value>,
        metadata: &Metadata,
    ) -> Result<UserId, AccountError> {
        let mut view = self.lookup.view().await;
        let mut names = view.names(IDENTITY, &[issuer, subject]);
        let newest = names.first().map(|name| name.hmac).unwrap_or_default();
        if let Some(user) = self.known.get(&newest).await {
            // Only that the identity leads here is remembered, not that the account lives.
            return match self.store.subjects().of(user).await?.is_erased() {
                false => Ok(user),
                true => Err(AccountError::Erased),
            };
        }
        for _ in 0..ATTEMPTS {
            let user = match self.find(&view, &names).await? {
                Some(user) => user,
                None if !view.is_fresh() => {
                    // There may be a newer generation, under which they are known already.
                    view = self.lookup.fresh().await.map_err(ReadError::Key)?;
                    names = view.names(IDENTITY, &[issuer, subject]);
                    continue;
                }
                None => match self.registered(view.claimed(&names), profile, metadata).await? {
                    Some(user) => user,
                    // Two first requests at once: the other one has made the account.
                    None => continue,
                },
            };
            self.known.insert(newest, user).await;
            return Ok(user);
        }
        Err(CommandError::Busy.into())
    }

    async fn find(
        &self,
        view: &LookupView,
        names: &[LookupName],
    ) -> Result<Option<UserId>, AccountError> {
        let hmacs: Vec<_> = names.iter().map(|name| name.hmac.to_vec()).collect();
        let holders = self.store.holders(IDENTITY, &hmacs).await?;
        let Some(holder) = holders.first() else { return Ok(None) };
        let user = holder.user;
        let Some(stream) = &holder.stream else { return Err(AccountError::Erased) };
        if self.store.subjects().of(user).await?.is_erased() {
            return Err(AccountError::Erased);
        }
        if view.is_fresh() {
            let held: Vec<_> = holders.iter().map(|holder| holder.hmac.as_slice()).collect();
            let wanted = view.claimed(names);
            let moves = reservations(IDENTITY, user, stream, wanted, names, &held);
            self.renew(moves).await;
        }
        Ok(Some(user))
    }

    /// Moves names to another generation of the lookup key. Whatever keeps it from happening now,
    /// there will be a next use.
    async fn renew(&self, reservations: Vec<Reservation>) {
        if reservations.is_empty() {
            return;
        }
        let member = Member { reservations, ..Member::default() };
        match self.store.append(member).await {
            Ok(Outcome::Appended { .. }) => tracing::debug!("a name moved to the newest key"),
            Ok(outcome) => tracing::debug!(?outcome, "a name did not move"),
            Err(error) => tracing::debug!(%error, "a name did not move"),
        }
    }

    async fn registered(
        &self,
        claimed: &[LookupName],
        profile: &Map<String, Value>,
        metadata: &Metadata,
    ) -> Result<Option<UserId>, AccountError> {
        let handling = self.register(claimed, profile, metadata);
        let outcome = |result: &Result<Option<UserId>, _>| match result {
            Ok(None) => "busy",
            other => ended(other),
        };
        observed(user::TYPE, "register", handling, outcome).await
    }

    async fn register(
        &self,
        claimed: &[LookupName],
        profile: &Map<String, Value>,
        metadata: &Metadata,
    ) -> Result<Option<UserId>, AccountError> {
        let user = UserId(ids::new_id());
        let mut account = User::default();
        let command = UserCommand::Register { profile: profile.clone() };
        let context = Context::now(clock::now_ms());
        let events = load::handle(&mut account, command, &context).await?;
        let mut member = create_keys(&self.store, user, metadata).await.map_err(ReadError::Key)?;
        let stream = StreamId::new(user::TYPE, user);
        about(&stream);
        member.reservations.extend(reservations(IDENTITY, user, &stream, claimed, claimed, &[]));
        member.streams.push(StreamChange {
            stream,
            user,
            expected: 0,
            events: events_of(events, metadata),
            op: Op::Create,
            origin: None,
            state: Some(load::new_state(&account)),
        });
        let keys: Vec<_> = member.subject_changes.clone();
        match self.store.append(member).await.map_err(CommandError::from)? {
            Outcome::Appended { .. } => {
                tracing::info!(user = %user, "account created");
                Ok(Some(user))
            }
            _ => {
                self.discard(&keys).await;
                Ok(None)
            }
        }
    }

    /// Keys of an account that was not created sealed nothing.
    async fn discard(&self, keys: &[SubjectChange]) {
        for change in keys {
            if let SubjectChangeKind::Created { key_id, .. } = change.kind
                && let Err(error) = self.store.sealer().keyring().destroy(key_id).await
            {
                tracing::warn!(key = %key_id, error = %error, "an unused key was left behind");
            }
        }
    }

    /// The account, with its version.
    ///
    /// # Errors
    /// Where the log does not answer, or there is no such account.
    pub async fn get(&self, user: UserId) -> Result<User, AccountError> {
        let loaded =
            load::load::<User>(&self.store, user, &StreamId::new(user::TYPE, user)).await?;
        match loaded.aggregate.status {
            AccountStatus::Active => Ok(loaded.aggregate),
            AccountStatus::Deleted => Err(AccountError::Erased),
            AccountStatus::Unknown => Err(CommandError::NotFound.into()),
        }
    }

    /// Handles a command of the owner and answers the account after it.
    ///
    /// # Errors
    /// The account's refusal, [`AccountError::UsernameTaken`], or where the log does not answer.
    pub async fn change(
        &self,
        user: UserId,
        command: UserCommand,
        metadata: &Metadata,
    ) -> Result<User, AccountError> {
        let name = match &command {
            UserCommand::Register { .. } => "register",
            UserCommand::UpdateProfile { .. } => "update_profile",
            UserCommand::UpdatePreferences { .. } => "update_preferences",
            UserCommand::RequestErasure => "request_erasure",
        };
        observed(user::TYPE, name, self.handle(user, command, metadata), ended).await
    }

    async fn handle(
        &self,
        user: UserId,
        command: UserCommand,
        metadata: &Metadata,
    ) -> Result<User, AccountError> {
        let stream = StreamId::new(user::TYPE, user);
        about(&stream);
        for _ in 0..ATTEMPTS {
            let mut loaded = load::load::<User>(&self.store, user, &stream).await?;
            let before = username(&loaded.aggregate);
            let context = Context::now(clock::now_ms());
            let events = load::handle(&mut loaded.aggregate, command.clone(), &context).await?;
            if events.is_empty() {
                return Ok(loaded.aggregate);
            }
            let after = username(&loaded.aggregate);
            let mut member =
                change_member(&stream, user, loaded.sequence, events, &loaded.aggregate, metadata);
            if before != after || self.lookup.known().is_rotated() {
                member.reservations = self.rename(user, &stream, [before, after]).await?;
            }
            // Who loses a race for a name looks again and finds it taken.
            match self.store.append(member).await.map_err(CommandError::from)? {
                Outcome::Appended { .. } => return Ok(loaded.aggregate),
                _ => continue,
            }
        }
        Err(CommandError::Busy.into())
    }

    /// Gives up the old user name, if the account holds it, and takes the new one; or moves the one
    /// that stays to the newest generation of the lookup key.
    async fn rename(
        &self,
        user: UserId,
        stream: &StreamId,
        [before, after]: [Option<String>; 2],
    ) -> Result<Vec<Reservation>, AccountError> {
        let view = self.lookup.fresh().await.map_err(ReadError::Key)?;
        let names = |name: &Option<String>| {
            name.as_ref().map_or_else(Vec::new, |name| view.names(USERNAME, &[name]))
        };
        let renamed = before != after;
        let (before, after) = (names(&before), names(&after));
        let all = if renamed { [before, after.clone()].concat() } else { after.clone() };
        let hmacs: Vec<_> = all.iter().map(|name| name.hmac.to_vec()).collect();
        let holders = self.store.holders(USERNAME, &hmacs).await?;
        let (own, others): (Vec<_>, Vec<_>) =
            holders.iter().partition(|holder| holder.user == user);
        if renamed && others.iter().any(|other| after.iter().any(|name| other.hmac == name.hmac)) {
            return Err(AccountError::UsernameTaken);
        }
        let held: Vec<_> = own.iter().map(|holder| holder.hmac.as_slice()).collect();
        // A name that came with the token was never reserved, and need not move.
        if !renamed && held.is_empty() {
            return Ok(Vec::new());
        }
        Ok(reservations(USERNAME, user, stream, view.claimed(&after), &all, &held))
    }
}

/// What leads from the names that are held to those that are wanted, among `all`.
fn reservations(
    scope: &'static str,
    user: UserId,
    stream: &StreamId,
    wanted: &[LookupName],
    all: &[LookupName],
    held: &[&[u8]],
) -> Vec<Reservation> {
    let is_held = |name: &LookupName| held.contains(&name.hmac.as_slice());
    let reservation = |name: &LookupName, action| Reservation {
        scope,
        hmac: name.hmac.to_vec(),
        key_id: Some(name.key_id),
        user,
        action,
    };
    let taken = wanted.iter().filter(|name| !is_held(name));
    let given = all.iter().filter(|name| is_held(name) && !wanted.contains(name));
    taken
        .map(|name| reservation(name, Claim::Take(stream.clone())))
        .chain(given.map(|name| reservation(name, Claim::Release(stream.clone()))))
        .collect()
}

/// The account's user name as names are compared.
fn username(account: &User) -> Option<String> {
    account.profile.get("username").and_then(Value::as_str).map(str::to_lowercase)
}

/// A change of the rules for health data is a change of the subject too: batches that were decided
/// under the old rules are refused from here on.
fn change_member(
    stream: &StreamId,
    user: UserId,
    expected: i64,
    events: Vec<UserEvent>,
    account: &User,
    metadata: &Metadata,
) -> Member {
    let rules = events.iter().any(|event| matches!(event, UserEvent::HealthPrivacyChanged(_)));
    let subject_changes = rules
        .then_some(SubjectChange {
            user,
            purpose: Purpose::Health,
            kind: SubjectChangeKind::RulesChanged,
        })
        .into_iter()
        .collect();
    Member {
        streams: vec![StreamChange {
            stream: stream.clone(),
            user,
            expected,
            events: events_of(events, metadata),
            op: Op::Update,
            origin: None,
            state: Some(load::new_state(account)),
        }],
        subject_changes,
        ..Member::default()
    }
}

/// The rules for a person's health data and the guard that ties a decision to them.
///
/// # Errors
/// Where the rules cannot be read or there is no active account: callers store nothing then.
pub async fn health_rules(
    store: &Store,
    user: UserId,
) -> Result<(user::HealthPrivacy, PrivacyGuard), AccountError> {
    // The version first: rules that change in between are newer than the guard, which then fails.
    let subject = store.subjects().fresh(user).await?;
    if subject.is_erased() {
        return Err(AccountError::Erased);
    }
    let guard = PrivacyGuard {
        user,
        purpose: Purpose::Health,
        version: subject.privacy_version(Purpose::Health),
    };
    let loaded = load::load::<User>(store, user, &StreamId::new(user::TYPE, user)).await?;
    // An account that is not there would have the default rules, which allow everything.
    match loaded.aggregate.status {
        AccountStatus::Active => Ok((loaded.aggregate.health, guard)),
        AccountStatus::Deleted => Err(AccountError::Erased),
        AccountStatus::Unknown => Err(CommandError::NotFound.into()),
    }
}
