//! The desk: where changes of a person's entities are decided, with all their consequences.
//!
//! A desk is an in-memory unit of work over plain data. Everything that changes synced entities
//! goes over it — pushed items, REST commands, jobs — so that a change has the same consequences
//! whatever its source:
//!
//! - a consumption is attached to its session, follows it, and leaves it;
//! - the deletion of a session detaches its consumptions by events of their own;
//! - one session is open at most: the one that started last stays, others end;
//! - an open session whose idle deadline has passed ends at that deadline;
//! - a reference to an entity that has not arrived keeps the client's id, and heals when it does;
//! - a payload that loses as a whole is kept in the person's recovery stream.
//!
//! # Use
//!
//! ```text
//! let mut desk = Desk::new(user, now_ms);
//! for (item, ask) in asks.enumerate() {
//!     loop match desk.decide(item, &ask) {
//!         Decision::Needs(needs)  => load the needs, desk.learn(fact) for each, again
//!         Decision::Done          => next ask; the verdict is known after `close`
//!     }
//! }
//! loop match desk.close() { Closing::Needs(needs) => as above, Closing::Done(drafts) => append }
//! ```
//!
//! The desk never loads anything: it says what it [needs](Need) to know and is asked again once
//! somebody has told it. A decision that needs more leaves no trace. A refused ask leaves no trace
//! either, so that asks which do not depend on each other never affect each other.
//!
//! What is to be written comes out as [`Draft`]s. A draft is atomic and independent of the others:
//! asks that share a stream, a client id or a fate are in one draft. When an append fails because
//! the log has moved on, the asks of that draft alone are decided again on a new desk.
//!
//! # References
//!
//! Clients refer to entities by ids of their own. An id is looked up in the person's alias table; a
//! new entity takes the client's UUID as its id where nobody has it yet, so that mostly both are
//! the same. A reference to an id nobody holds is stored as it came, and the child *waits* in the
//! alias table: slot 0 of an alias belongs to the entity itself, or to the first child that waits
//! for it, slot 1 to the second, and so on. Who takes the first free slot excludes everyone who
//! decided at the same time, so no child is ever forgotten.
//!
//! A reference to a deleted or cancelled session is kept but not counted.

mod ask;
mod change;
mod consequences;
mod draft;
mod facts;
mod settle;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

pub use ask::{Ack, Action, Ask, AskError, BasePoint, Effect, Verdict};
pub use draft::{Claim, ClaimAction, ClaimName, Draft, DraftEvent, StreamDraft};
pub use facts::{AliasKey, EntityKey, Fact, History, Known, Need};

use crate::UserId;
use crate::entity::{AnyEntity, Superseded, SyncRecovery};
use draft::Groups;
use facts::Facts;
use work::{Halt, Staged, Work};

/// Version of the folded states that drafts carry.
pub use crate::entity::STATE_VERSION;

/// A unit of work for one person.
#[derive(Debug)]
pub struct Desk {
    user: UserId,
    now_ms: i64,
    facts: Facts,
    staged: BTreeMap<EntityKey, Staged>,
    /// Holders of client ids after this unit of work, where they differ.
    aliases: BTreeMap<AliasKey, Vec<EntityKey>>,
    recovery: Vec<DraftEvent>,
    /// The session somebody asked to start; it stays open whatever else is.
    preferred: Option<Uuid>,
    verdicts: BTreeMap<usize, Result<Verdict, AskError>>,
    groups: Groups,
}

/// What came of an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing happened: tell the desk these things and ask again.
    Needs(BTreeSet<Need>),
    /// Decided; [`Desk::close`] brings the verdicts.
    Done,
}

/// What came of closing the desk.
#[derive(Clone, Debug, PartialEq)]
pub enum Closing {
    Needs(BTreeSet<Need>),
    Done(Closed),
}

/// All that a unit of work comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    pub drafts: Vec<Draft>,
    /// By item. Refused asks are in no draft.
    pub verdicts: BTreeMap<usize, Result<Verdict, AskError>>,
}

impl Desk {
    /// An empty desk. `now_ms` is when the request is handled, in ms since the Unix epoch.
    pub fn new(user: UserId, now_ms: i64) -> Self {
        Self {
            user,
            now_ms,
            facts: Facts::default(),
            staged: BTreeMap::new(),
            aliases: BTreeMap::new(),
            recovery: Vec::new(),
            preferred: None,
            verdicts: BTreeMap::new(),
            groups: Groups::default(),
        }
    }

    /// Tells the desk something it may need.
    pub fn learn(&mut self, fact: Fact) {
        self.facts.learn(fact);
    }

    /// What a decision on the ask will certainly need, to load many at once.
    pub fn foresee(&self, ask: &Ask) -> BTreeSet<Need> {
        let mut needs: BTreeSet<Need> =
            change::foreseen_aliases(ask).into_iter().map(Need::Alias).collect();
        needs.extend(change::foreseen_keys(ask).into_iter().map(Need::Entity));
        needs.insert(Need::OpenSession);
        self.facts.unknown(needs)
    }

    /// Decides one ask. `item` is the caller's number for it, each used once.
    pub fn decide(&mut self, item: usize, ask: &Ask) -> Decision {
        let mut work = Work::new(self, ask.ctx);
        match work.ask(ask) {
            Ok(verdict) => {
                let done = work.finish();
                if matches!(
                    ask.action,
                    Action::Session(crate::session::SessionCommand::Start { .. })
                ) {
                    self.preferred = Some(verdict.key.id);
                }
                self.keep(item, done);
                self.verdicts.insert(item, Ok(verdict));
                Decision::Done
            }
            Err(Halt::Needs(needs)) => Decision::Needs(needs),
            Err(Halt::Refused(error)) => {
                self.verdicts.insert(item, Err(error));
                Decision::Done
            }
        }
    }

    /// Ends what must end, and hands over everything that is to be written.
    pub fn close(&mut self) -> Closing {
        match self.settle() {
            Ok(open) => Closing::Done(self.hand_over(open)),
            Err(needs) => Closing::Needs(needs),
        }
    }

    /// The entity as it stands after what was decided so far, if it is known and exists.
    pub fn entity(&self, key: EntityKey) -> Option<&AnyEntity> {
        self.staged
            .get(&key)
            .map(|staged| &staged.entity)
            .or_else(|| self.facts.stored(key).map(|(entity, _)| entity))
            .filter(|entity| entity.state().exists())
    }

    fn keep(&mut self, item: usize, done: work::Done) {
        self.groups.add(item);
        for other in done.depends_on {
            self.groups.link_entity(item, other);
        }
        for (key, staged) in done.entities {
            self.groups.link_entity(item, key);
            let slot = self.staged.entry(key).or_insert_with(|| Staged::new(staged.entity.clone()));
            slot.entity = staged.entity;
            slot.events.extend(staged.events.into_iter().map(|event| event.of_item(item)));
        }
        for (alias, holders) in done.aliases {
            self.groups.link_alias(item, &alias);
            self.aliases.insert(alias, holders);
        }
        for (key, superseded, request_id, ctx) in done.superseded {
            self.groups.link_recovery(item);
            let event = recovery_event(key, superseded, request_id, &ctx);
            self.recovery.push(DraftEvent { item: Some(item), event, now_ms: ctx.now_ms });
        }
    }
}

fn recovery_event(
    key: EntityKey,
    superseded: Superseded,
    request_id: Option<String>,
    ctx: &crate::entity::Context,
) -> crate::AnyEvent {
    let command = crate::entity::RecoveryCommand {
        entity_type: key.contract().entity_type.to_owned(),
        entity_id: key.id,
        superseded,
        request_id,
    };
    SyncRecovery::default().decide(command, ctx).into()
}
