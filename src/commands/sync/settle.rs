//! Load, decide, append, answer; and again for what somebody else was faster with.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aggregates::entity::AnyEntity;
use aggregates::entity::ChangeKind;
use aggregates::sync::desk::{
    Action, Ask, AskError, Claim as DraftClaim, ClaimAction, Closed, Closing, Decision, Desk,
    Draft, DraftEvent, Need, STATE_VERSION, StreamDraft, Verdict,
};
use aggregates::{Metadata, Purpose, UserId};
use futures_util::future::join_all;
use tracing::Instrument;

use super::facts::Teller;
use super::names::Names;
use crate::commands::observe::{self, Ending};
use crate::commands::{ATTEMPTS, CommandError};
use crate::store::streams::StoredReceipt;
use crate::store::{
    AppendError, Claim, Member, NewEvent, NewState, Op, Outcome, Receipt, Reservation, Store,
    StreamChange,
};
use crate::{clock, ids};

/// The longest wait before what met a conflict is decided again, for each attempt made so far.
const JITTER: Duration = Duration::from_millis(8);

/// An ask, and how it is recognised when it is made again.
#[derive(Clone, Debug)]
pub struct Wish {
    pub ask: Ask,
    pub receipt: Option<WishReceipt>,
}

/// Under what a wish's answer is kept. Its outcome is written by [`settle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WishReceipt {
    /// `push` or `rest`.
    pub scope: &'static str,
    pub hmac: Vec<u8>,
    pub content_hmac: Option<Vec<u8>>,
}

impl From<Ask> for Wish {
    fn from(ask: Ask) -> Self {
        Self { ask, receipt: None }
    }
}

/// What became of a wish.
#[derive(Debug)]
pub enum Settled {
    /// Durable.
    Done(Box<Applied>),
    /// The same wish was granted before; this is what it was answered.
    Before(StoredReceipt),
    Refused(AskError),
    /// Somebody else was faster, every time.
    Busy,
    /// The log did not take it. It may be durable where the log did not answer.
    Failed(AppendError),
}

/// A granted wish.
#[derive(Clone, Debug)]
pub struct Applied {
    pub verdict: Verdict,
    /// The entity after everything the request did; none where there is none.
    pub entity: Option<AnyEntity>,
    /// Of the last event written for it; 0 where nothing was.
    pub position: i64,
}

/// What a receipt says: ids, codes and versions.
pub(super) fn outcome_of(verdict: &Verdict) -> String {
    serde_json::json!({
        "type": verdict.key.contract().entity_type,
        "id": verdict.key.id,
        "outcome": verdict.effect.as_str(),
        "version": verdict.version,
    })
    .to_string()
}

/// Grants one wish.
///
/// # Errors
/// As [`settle`].
pub async fn settle_one(
    store: &Store,
    user: UserId,
    metadata: &Metadata,
    wish: impl Into<Wish>,
) -> Result<Settled, CommandError> {
    let settled = settle(store, user, metadata, vec![wish.into()]).await?;
    settled.into_iter().next().ok_or(CommandError::Busy)
}

/// Grants wishes in their order, each with all its consequences. Those that depend on each other
/// are written together; the others stand or fall alone. The answers are in the order of the
/// wishes. Where what depends on each other is too much for one write, it is written in parts, in
/// the order of the wishes.
///
/// # Errors
/// [`CommandError::Read`] where the log cannot be read; what was written before stays.
pub async fn settle(
    store: &Store,
    user: UserId,
    metadata: &Metadata,
    wishes: Vec<Wish>,
) -> Result<Vec<Settled>, CommandError> {
    if wishes.is_empty() {
        return Ok(Vec::new());
    }
    let span = observe::span(same(&wishes, aggregate), same(&wishes, command));
    let result = grant(store, user, metadata, &wishes).instrument(span).await;
    for (item, wish) in wishes.iter().enumerate() {
        let outcome = match &result {
            Ok(settled) => settled.get(item).map_or("busy", outcome),
            Err(error) => error.ending(),
        };
        observe::count(aggregate(wish), command(wish), outcome);
    }
    result
}

async fn grant(
    store: &Store,
    user: UserId,
    metadata: &Metadata,
    wishes: &[Wish],
) -> Result<Vec<Settled>, CommandError> {
    let names = Names::of(store, user).await?;
    let request = Request { store, user, metadata, names };
    let mut settled: BTreeMap<usize, Settled> = BTreeMap::new();
    let mut group = wishes.len().max(1);
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let open: Vec<usize> =
            (0..wishes.len()).filter(|item| !settled.contains_key(item)).collect();
        if open.is_empty() {
            break;
        }
        if attempt > 0 {
            tokio::time::sleep(jitter(attempt)).await;
        }
        let mut too_large = 0;
        for part in open.chunks(group) {
            too_large = too_large.max(request.attempt(wishes, part, &mut settled).await?);
        }
        if too_large == 0 {
            attempt += 1;
        } else {
            // Nobody was faster: that is no attempt. A draft has no more items than its group, so
            // the groups shrink until what is too large is alone.
            group = too_large.div_ceil(2);
        }
    }
    let settled = (0..wishes.len()).map(|item| settled.remove(&item).unwrap_or(Settled::Busy));
    Ok(settled.collect())
}

fn aggregate(wish: &Wish) -> &'static str {
    wish.ask.contract.aggregate_type
}

fn command(wish: &Wish) -> &'static str {
    match &wish.ask.action {
        Action::Change { change, .. } => match change.kind {
            ChangeKind::Create => "create",
            ChangeKind::Update => "update",
            ChangeKind::Delete => "delete",
        },
        Action::Create(_) => "create",
        Action::Session(_) => "lifecycle",
    }
}

fn outcome(settled: &Settled) -> &'static str {
    match settled {
        Settled::Done(applied) => applied.verdict.effect.as_str(),
        Settled::Before(_) => "repeated",
        Settled::Refused(_) => "refused",
        Settled::Busy => "busy",
        Settled::Failed(_) => "failed",
    }
}

/// What wishes have in common, or that they have not.
fn same(wishes: &[Wish], name: impl Fn(&Wish) -> &'static str) -> &'static str {
    let mut names = wishes.iter().map(name);
    let first = names.next().unwrap_or_default();
    if names.all(|name| name == first) { first } else { "several" }
}

/// A random wait, so that two who met do not meet again.
fn jitter(attempt: usize) -> Duration {
    let share = u32::from(ids::new_id().as_bytes()[0]);
    let attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
    JITTER.saturating_mul(attempt).saturating_mul(share) / 256
}

struct Request<'a> {
    store: &'a Store,
    user: UserId,
    metadata: &'a Metadata,
    names: Names,
}

impl Request<'_> {
    /// Decides and writes the open wishes. Returns how many items the largest of the drafts has
    /// that are too large and may fit in parts, 0 where there is none; they stay open.
    async fn attempt(
        &self,
        wishes: &[Wish],
        open: &[usize],
        settled: &mut BTreeMap<usize, Settled>,
    ) -> Result<usize, CommandError> {
        let (desk, closed) = self.decide(wishes, open).await?;
        let Closed { drafts, verdicts } = closed;
        let mut granted = BTreeMap::new();
        for (item, verdict) in verdicts {
            match verdict {
                Ok(verdict) => {
                    granted.insert(item, verdict);
                }
                Err(error) => {
                    settled.insert(item, Settled::Refused(error));
                }
            }
        }
        if let ([_], Some(verdict)) = (wishes, granted.values().next()) {
            observe::about(&verdict.key.stream());
        }
        let appends = drafts.into_iter().map(|draft| {
            let items = draft.items.clone();
            let member = self.member(draft, wishes, &granted);
            async move {
                let written = !member.streams.is_empty()
                    || !member.reservations.is_empty()
                    || !member.receipts.is_empty();
                let outcome = if written {
                    self.store.append(member).await
                } else {
                    Ok(Outcome::Appended { first: 0, last: 0, committed_ms: 0 })
                };
                (items, outcome)
            }
        });
        let mut too_large = 0;
        for (items, outcome) in join_all(appends).await {
            match outcome {
                Ok(Outcome::Appended { last: position, .. }) => {
                    for item in items {
                        let Some(verdict) = granted.remove(&item) else { continue };
                        let entity = desk.entity(verdict.key).cloned();
                        let applied = Applied { verdict, entity, position };
                        settled.insert(item, Settled::Done(Box::new(applied)));
                    }
                }
                Ok(Outcome::Duplicate) => self.recall(wishes, &items, settled).await?,
                Ok(Outcome::Conflict | Outcome::Reserved | Outcome::Refused) => {}
                Err(AppendError::TooLarge(_)) if items.len() > 1 => {
                    too_large = too_large.max(items.len());
                }
                Err(error) => {
                    for item in items {
                        settled.insert(item, Settled::Failed(error.clone()));
                    }
                }
            }
        }
        Ok(too_large)
    }

    /// Puts the open wishes on a desk of their own.
    async fn decide(
        &self,
        wishes: &[Wish],
        open: &[usize],
    ) -> Result<(Desk, Closed), CommandError> {
        let mut desk = Desk::new(self.user, clock::now_ms());
        let mut foreseen: BTreeSet<Need> =
            open.iter().flat_map(|item| desk.foresee(&wishes[*item].ask)).collect();
        foreseen.insert(Need::OpenSession);
        self.supply(&mut desk, &foreseen).await?;
        for item in open {
            while let Decision::Needs(needs) = desk.decide(*item, &wishes[*item].ask) {
                self.supply(&mut desk, &needs).await?;
            }
        }
        loop {
            match desk.close() {
                Closing::Done(closed) => return Ok((desk, closed)),
                Closing::Needs(needs) => self.supply(&mut desk, &needs).await?,
            }
        }
    }

    async fn supply(&self, desk: &mut Desk, needs: &BTreeSet<Need>) -> Result<(), CommandError> {
        let teller = Teller { store: self.store, user: self.user, names: &self.names };
        for fact in teller.tell(needs).await? {
            desk.learn(fact);
        }
        Ok(())
    }

    /// Finds what wishes were answered that somebody has granted before or at the same time. The
    /// others of the same draft are decided again.
    async fn recall(
        &self,
        wishes: &[Wish],
        items: &[usize],
        settled: &mut BTreeMap<usize, Settled>,
    ) -> Result<(), CommandError> {
        for item in items {
            let Some(receipt) = &wishes[*item].receipt else { continue };
            let hmac = receipt.hmac.clone();
            let stored = self.store.receipts(self.user, receipt.scope, &[hmac]).await?;
            if let Some(stored) = stored.into_iter().next() {
                settled.insert(*item, Settled::Before(stored));
            }
        }
        Ok(())
    }

    fn member(&self, draft: Draft, wishes: &[Wish], granted: &BTreeMap<usize, Verdict>) -> Member {
        let receipts = draft.items.iter().filter_map(|item| {
            let receipt = wishes[*item].receipt.clone()?;
            Some(Receipt {
                user: self.user,
                scope: receipt.scope,
                hmac: receipt.hmac,
                content_hmac: receipt.content_hmac,
                outcome: outcome_of(granted.get(item)?),
            })
        });
        Member {
            receipts: receipts.collect(),
            reservations: draft.claims.iter().map(|claim| self.reservation(claim)).collect(),
            streams: draft.streams.into_iter().map(|stream| self.change(stream, wishes)).collect(),
            ..Member::default()
        }
    }

    fn reservation(&self, claim: &DraftClaim) -> Reservation {
        let (scope, hmac) = self.names.claim(&claim.name);
        let action = match claim.action {
            ClaimAction::Take(key) => Claim::Take(key.stream()),
            ClaimAction::Release(key) => Claim::Release(key.stream()),
            ClaimAction::Pass { from, to } => Claim::Pass { from: from.stream(), to: to.stream() },
        };
        Reservation { scope, hmac, key_id: None, user: self.user, action }
    }

    fn change(&self, draft: StreamDraft, wishes: &[Wish]) -> StreamChange {
        let StreamDraft { stream, key, expected, events, deleted, origin, state } = draft;
        let op = match (expected, deleted) {
            (_, true) => Op::Delete,
            (0, false) => Op::Create,
            (_, false) => Op::Update,
        };
        let purpose = key.and_then(|key| key.contract().purpose).unwrap_or(Purpose::Activity);
        let state =
            state.map(|json| NewState { version: STATE_VERSION, json: json.into_bytes(), purpose });
        let events = events.into_iter().map(|event| self.event(event, wishes)).collect();
        StreamChange { stream, user: self.user, expected, events, op, origin, state }
    }

    fn event(&self, event: DraftEvent, wishes: &[Wish]) -> NewEvent {
        let metadata = match event.item {
            Some(item) => {
                let mut metadata = self.metadata.clone();
                if let Some(request_id) = &wishes[item].ask.request_id {
                    metadata.request_id = Some(request_id.clone());
                }
                metadata
            }
            None => Metadata::system("sessions", self.metadata.correlation_id),
        };
        NewEvent {
            event_id: ids::new_event_id(),
            event: event.event,
            metadata,
            recorded_at_ms: event.now_ms,
        }
    }
}
