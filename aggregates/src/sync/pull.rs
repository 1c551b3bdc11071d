//! Which rows a page of changes holds.
//!
//! A page is filled type by type, parents first, within a type in the order of the last change.
//! The first page of a run notes where the log ends; children are delivered up to there and parents
//! without bound, so a child never comes before its parent. When a run has reached the end and the
//! log has moved on meanwhile, it goes on with a new end.
//!
//! [`Page`] says what it [wants](Page::wants) to read and is [given](Page::give) it; where rows come
//! from is the caller's business.

use std::collections::BTreeMap;

use super::cursor::Paging;
use super::desk::Ack;
use crate::entity::{CONTRACTS, EntityContract};

/// A row of the feed, as far as paging needs to know it.
pub trait FeedRow {
    /// Of the entity's last change.
    fn position(&self) -> i64;
}

/// A part of the feed to read: rows of a type with `after < position <= upto`, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fetch {
    pub contract: &'static EntityContract,
    pub after: i64,
    pub upto: i64,
    /// Rows at most.
    pub limit: usize,
}

/// Where a page is in its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Reading rows of the type at this index.
    Rows(usize),
    /// Looking whether the type at this index has moved on since the run began.
    Beyond(usize),
    Done,
}

/// A page in the making.
#[derive(Debug)]
pub struct Page<R> {
    types: Vec<&'static EntityContract>,
    positions: BTreeMap<&'static str, i64>,
    head: i64,
    up_to: i64,
    limit: usize,
    stage: Stage,
    rows: Vec<(&'static EntityContract, R)>,
    more: bool,
    next_rank: u8,
    /// The first row after the start, by type, as far as this page looked.
    first: BTreeMap<&'static str, Option<i64>>,
}

/// A finished page.
#[derive(Debug)]
pub struct PageEnd<R> {
    pub rows: Vec<(&'static EntityContract, R)>,
    /// How far each requested type has come.
    pub positions: BTreeMap<&'static str, i64>,
    /// Present while there is more.
    pub paging: Option<Paging>,
}

/// The types of a request in the order in which they are delivered.
pub fn types(wanted: Option<&[&'static EntityContract]>) -> Vec<&'static EntityContract> {
    let mut types: Vec<_> = CONTRACTS
        .into_iter()
        .filter(|known| {
            wanted.is_none_or(|wanted| wanted.iter().any(|w| w.entity_type == known.entity_type))
        })
        .collect();
    types.sort_by_key(|contract| contract.sync_order);
    types
}

impl<R: FeedRow> Page<R> {
    /// Starts a page. `positions` are where each type goes on, `head` is where the log ends now,
    /// `paging` is the state of the run, none in its first page.
    pub fn new(
        types: Vec<&'static EntityContract>,
        positions: BTreeMap<&'static str, i64>,
        head: i64,
        paging: Option<Paging>,
        limit: usize,
    ) -> Self {
        let up_to = paging.map_or(head, |paging| paging.up_to.min(head));
        let rank = paging.map_or(0, |paging| paging.rank);
        let first = types.iter().position(|contract| contract.sync_order >= rank);
        let stage = first.map_or(Stage::Beyond(0), Stage::Rows);
        Self {
            types,
            positions,
            head,
            up_to,
            limit: limit.max(1),
            stage,
            rows: Vec::new(),
            more: false,
            next_rank: 0,
            first: BTreeMap::new(),
        }
        .skip()
    }

    fn position(&self, contract: &EntityContract) -> i64 {
        self.positions.get(contract.entity_type).copied().unwrap_or_default()
    }

    /// Whether other requested types refer to this one.
    fn is_parent(&self, contract: &EntityContract) -> bool {
        self.types.iter().any(|other| {
            other.entity_type != contract.entity_type
                && other.references().any(|(_, target)| target == contract.entity_type)
        })
    }

    /// The next read, or none where the page is finished.
    pub fn wants(&self) -> Option<Fetch> {
        match self.stage {
            Stage::Rows(index) => {
                let contract = self.types[index];
                let upto = if self.is_parent(contract) { self.head } else { self.up_to };
                let limit = self.limit - self.rows.len() + 1;
                Some(Fetch { contract, after: self.position(contract), upto, limit })
            }
            Stage::Beyond(index) => {
                let contract = self.types[index];
                let after = self.position(contract);
                Some(Fetch { contract, after, upto: self.head, limit: 1 })
            }
            Stage::Done => None,
        }
    }

    /// Takes the rows of the last [`wants`](Self::wants).
    pub fn give(mut self, rows: Vec<R>) -> Self {
        match self.stage {
            Stage::Rows(index) => {
                let contract = self.types[index];
                let room = self.limit - self.rows.len();
                let full = rows.len() > room;
                self.first.insert(contract.entity_type, rows.first().map(FeedRow::position));
                for row in rows.into_iter().take(room) {
                    self.positions.insert(contract.entity_type, row.position());
                    self.rows.push((contract, row));
                }
                if full {
                    self.more = true;
                    self.next_rank = contract.sync_order;
                    self.stage = Stage::Done;
                } else {
                    self.stage = Stage::Rows(index + 1);
                }
            }
            Stage::Beyond(index) => {
                if rows.is_empty() {
                    self.stage = Stage::Beyond(index + 1);
                } else {
                    // The log has moved on: another round, with a new end.
                    self.more = true;
                    self.next_rank = 0;
                    self.up_to = self.head;
                    self.stage = Stage::Done;
                }
            }
            Stage::Done => {}
        }
        self.skip()
    }

    /// Steps over what need not be read.
    fn skip(mut self) -> Self {
        if matches!(self.stage, Stage::Rows(index) if index >= self.types.len()) {
            self.stage = Stage::Beyond(0);
        }
        if let Stage::Beyond(index) = self.stage
            && (index >= self.types.len() || self.head <= self.up_to)
        {
            self.stage = Stage::Done;
        }
        self
    }

    /// What a client that asked for this page as the first of a run acknowledges with it: all rows
    /// before the first one it lacks. Who does not ask for all types tells nothing of the others.
    pub fn acknowledges(&self) -> Option<Ack> {
        if self.types.len() < CONTRACTS.len() {
            return None;
        }
        let lacking = self.types.iter().map(|contract| {
            match self.first.get(contract.entity_type) {
                Some(Some(first)) => first - 1,
                // Nothing after its cursor.
                Some(None) => self.head,
                // Not looked at: nothing is known beyond its cursor.
                None => self.position(contract),
            }
        });
        let position = lacking.min().unwrap_or_default().min(self.head);
        Some(Ack { position, head: self.head })
    }

    /// The finished page.
    pub fn finish(self) -> PageEnd<R> {
        let paging = self.more.then_some(Paging { up_to: self.up_to, rank: self.next_rank });
        PageEnd { rows: self.rows, positions: self.positions, paging }
    }
}
