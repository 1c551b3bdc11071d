//! Our side: load the state, decide, seal, hash, append with a receipt and the new state.

use std::collections::VecDeque;

use aggregates::entity::Context;
use aggregates::session::{Session, SessionCommand, SessionEvent};
use aggregates::{Purpose, StreamId, UserId};
use tidemark::commands::events_of;
use tidemark::commands::load::ENTITY_STATE_VERSION;
use tidemark::store::{Member, NewState, Op, Outcome, Receipt, Store, StreamChange};
use tidemark::{clock, ids};

use super::load::Worker;
use super::script::{self, COMMANDS_PER_SESSION};
use super::world::metadata;

const SCOPE: &str = "rest";

/// A session as the log has it, and the sequence it is at.
async fn load(store: &Store, user: UserId, stream: &StreamId) -> (Session, i64) {
    let heads = store.heads(std::slice::from_ref(stream)).await.expect("a head");
    let Some(head) = heads.into_iter().find(|head| head.user == user) else {
        return (Session::default(), 0);
    };
    let open = store.open_head(head, Purpose::Activity).await.expect("a state");
    let state = open.state.expect("sessions keep their state");
    (serde_json::from_slice(&state).expect("a session"), open.head.sequence)
}

/// Decides commands one after another, each on what the last one left.
fn decide(session: &mut Session, commands: Vec<SessionCommand>) -> Vec<SessionEvent> {
    let context = Context::now(clock::now_ms());
    let mut events = Vec::with_capacity(commands.len());
    for command in commands {
        for event in session.decide(command, &context).expect("a sound command") {
            session.fold(&event);
            events.push(event);
        }
    }
    events
}

async fn member(
    store: &Store,
    user: UserId,
    stream: &StreamId,
    expected: i64,
    session: &Session,
    events: Vec<SessionEvent>,
) -> Member {
    let key = store.sealer().key(user, Purpose::Identity).await.expect("a key");
    let hashes = key.identity_hashes().expect("an identity key");
    let request = ids::new_id().to_string();
    let receipt = Receipt {
        user,
        scope: SCOPE,
        hmac: hashes.receipt_hash(SCOPE, &request, None).to_vec(),
        content_hmac: Some(hashes.content_hash(SCOPE, request.as_bytes()).to_vec()),
        outcome: format!("{{\"id\":\"{}\"}}", stream.aggregate_id),
    };
    let state = NewState {
        version: ENTITY_STATE_VERSION,
        json: serde_json::to_vec(session).expect("a session is JSON"),
        purpose: Purpose::Activity,
    };
    let change = StreamChange {
        stream: stream.clone(),
        user,
        expected,
        events: events_of(events, &metadata()),
        op: if expected == 0 { Op::Create } else { Op::Update },
        origin: None,
        state: Some(state),
    };
    Member { streams: vec![change], receipts: vec![receipt], ..Member::default() }
}

async fn append(store: &Store, member: Member) {
    let outcome = store.append(member).await.expect("an append");
    assert!(matches!(outcome, Outcome::Appended { .. }), "{outcome:?}");
}

async fn execute(store: &Store, user: UserId, stream: &StreamId, commands: Vec<SessionCommand>) {
    let (mut session, sequence) = load(store, user, stream).await;
    let events = decide(&mut session, commands);
    append(store, member(store, user, stream, sequence, &session, events).await).await;
}

fn new_stream() -> StreamId {
    StreamId::new("session", ids::new_id())
}

/// A person who gives one command after another.
pub struct Commander {
    store: Store,
    user: UserId,
    stream: StreamId,
    nth: usize,
}

impl Commander {
    pub fn new(store: &Store, user: UserId) -> Self {
        Self { store: store.clone(), user, stream: new_stream(), nth: 0 }
    }
}

impl Worker for Commander {
    async fn step(&mut self) -> bool {
        let nth = self.nth % COMMANDS_PER_SESSION;
        if nth == 0 {
            self.stream = new_stream();
        }
        self.nth += 1;
        execute(&self.store, self.user, &self.stream, vec![script::command(nth)]).await;
        true
    }
}

/// A person whose every command makes a thousand events on a new stream.
pub struct Importer {
    pub store: Store,
    pub user: UserId,
}

impl Worker for Importer {
    async fn step(&mut self) -> bool {
        execute(&self.store, self.user, &new_stream(), script::batch()).await;
        true
    }
}

/// A person whose decisions are made already: what is left is to seal, hash and append them.
pub struct Appender {
    store: Store,
    ready: VecDeque<Member>,
}

impl Appender {
    /// With `count` decisions in store.
    pub async fn prepared(store: &Store, user: UserId, count: usize) -> Self {
        let mut ready = VecDeque::with_capacity(count);
        let (mut session, mut stream) = (Session::default(), new_stream());
        for n in 0..count {
            let nth = n % COMMANDS_PER_SESSION;
            if nth == 0 {
                (session, stream) = (Session::default(), new_stream());
            }
            let events = decide(&mut session, vec![script::command(nth)]);
            let expected = i64::try_from(nth).expect("a small number");
            ready.push_back(member(store, user, &stream, expected, &session, events).await);
        }
        Self { store: store.clone(), ready }
    }
}

impl Worker for Appender {
    async fn step(&mut self) -> bool {
        let Some(member) = self.ready.pop_front() else { return false };
        append(&self.store, member).await;
        true
    }
}

/// Sessions of one person, each of ten events, as one member; and their events in plaintext.
pub async fn sessions(
    store: &Store,
    user: UserId,
    count: usize,
) -> (Member, Vec<(StreamId, Vec<SessionEvent>)>) {
    let mut all = Member::default();
    let mut plain = Vec::with_capacity(count);
    for _ in 0..count {
        let (mut session, stream) = (Session::default(), new_stream());
        let commands = (0..COMMANDS_PER_SESSION).map(script::command).collect();
        let events = decide(&mut session, commands);
        let one = member(store, user, &stream, 0, &session, events.clone()).await;
        all.streams.extend(one.streams);
        plain.push((stream, events));
    }
    (all, plain)
}
