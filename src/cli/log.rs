//! `tidemark log`: what the log holds, as metadata and sizes; content only for a recorded reason.

use std::collections::VecDeque;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use aggregates::{Content, Metadata, Recorded, StreamId, UserId};
use clap::Subcommand;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::output::{Table, Terminal};
use super::{operator, report};
use crate::app::App;
use crate::commands::access::{self, Readability, Reader, Scope};
use crate::config::Config;
use crate::server::stop_signal;
use crate::store::read::{self, PAGE};
use crate::store::{Filter, RawEvent, Store};

/// How long a follower rests where nothing is new.
const POLL: Duration = Duration::from_millis(300);
/// Content is opened for at most so many events at once.
const MAX_REVEAL: usize = 500;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The newest events, or those after a position
    Tail(Tail),
    /// One event
    Show {
        /// Its position in the whole log
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        position: i64,
        #[command(flatten)]
        output: Output,
    },
    /// The events of one stream
    Stream {
        /// Type of the stream, such as session; or type and id as TYPE/ID
        aggregate_type: String,
        /// Its id
        aggregate_id: Option<String>,
        /// Only events after this sequence
        #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
        after: i64,
        /// Events at most
        #[arg(long, value_name = "N", default_value_t = 100,
              value_parser = clap::value_parser!(u16).range(1..=2000))]
        limit: u16,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
struct Tail {
    /// Go on with new events until interrupted
    #[arg(long, short, conflicts_with = "reveal")]
    follow: bool,
    /// Begin after this position instead of near the end
    #[arg(long, value_name = "POSITION")]
    after: Option<i64>,
    /// Events at most, before following
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(1..=2000))]
    limit: u16,
    /// Only events of this type, such as session.started; repeatable
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only events of streams of this type, such as session; repeatable
    #[arg(long = "stream-type", value_name = "TYPE")]
    stream_types: Vec<String>,
    /// Only events of this person
    #[arg(long, value_name = "UUID")]
    user: Option<Uuid>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Output {
    /// Show content too; the person concerned can see that you did
    #[arg(long, requires = "reason")]
    reveal: bool,
    /// Why you need to see it; recorded in the log before anything is shown
    #[arg(long, value_name = "TEXT", requires = "reveal")]
    reason: Option<String>,
    /// Print one JSON object per event
    #[arg(long)]
    json: bool,
}

/// One event as it is printed.
#[derive(Debug, Serialize)]
struct Line {
    position: i64,
    committed_at: String,
    event_id: Uuid,
    event_type: String,
    event_version: String,
    stream_type: String,
    stream_id: String,
    sequence: i64,
    user_id: UserId,
    /// Of the request that caused the event, as its log lines have it.
    correlation_id: Option<Uuid>,
    recorded_at: String,
    content: Readability,
    /// Bytes of the readable payload, and of the sealed part.
    payload_bytes: usize,
    sealed_bytes: usize,
    leaf: String,
    #[serde(flatten)]
    revealed: Option<Revealed>,
}

#[derive(Debug, Serialize)]
struct Revealed {
    payload: Box<RawValue>,
    metadata: Metadata,
    /// Bytes of the packed part, which is not shown.
    #[serde(skip_serializing_if = "is_zero")]
    packed_bytes: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Prints events.
pub(super) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let app = App::beside(config).await?;
    let result = print_events(&app.store, args).await;
    app.stop().await;
    match result {
        // The reader of a pipe has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

async fn print_events(store: &Store, args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Tail(tail) => {
            let (events, end) = newest(store, tail).await?;
            print(&lines(store, events, Scope::Events, &tail.output).await?, &tail.output)?;
            if tail.follow {
                follow(store, tail, end).await?;
            }
        }
        Command::Show { position, output } => {
            let all = Filter::default();
            let events = read::raw_page(store.pool(), position - 1, *position, 1, &all).await?;
            if events.is_empty() {
                let head = store.head().await?.position;
                anyhow::bail!("there is no event at {position} (the log ends at {head})");
            }
            let lines = lines(store, events, Scope::Events, output).await?;
            if output.json { print(&lines, output)? } else { print_whole(&lines)? }
        }
        Command::Stream { aggregate_type, aggregate_id, after, limit, output } => {
            let both = aggregate_id.as_deref().map(|id| (aggregate_type.as_str(), id));
            let Some((kind, id)) = both.or_else(|| aggregate_type.split_once('/')) else {
                anyhow::bail!("expected a type and an id, such as session/ID");
            };
            let stream = StreamId::new(kind, id);
            let limit = i64::from(*limit);
            let events = read::raw_stream(store.pool(), &stream, *after, i64::MAX, limit).await?;
            if events.is_empty() && *after == 0 {
                anyhow::bail!("there is no stream {stream} (see `tidemark log tail`)");
            }
            print(&lines(store, events, Scope::Stream, output).await?, output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Tail {
    fn filter(&self) -> Filter {
        Filter {
            event_types: self.types.clone(),
            aggregate_types: self.stream_types.clone(),
            user: self.user.map(UserId),
        }
    }
}

/// The events to begin with, and the position up to which they were sought.
async fn newest(store: &Store, tail: &Tail) -> anyhow::Result<(Vec<RawEvent>, i64)> {
    let filter = tail.filter();
    let limit = usize::from(tail.limit);
    let head = store.head().await?.position;
    if let Some(after) = tail.after {
        let events =
            read::raw_page(store.pool(), after, head, i64::from(tail.limit), &filter).await?;
        let end = match events.last() {
            Some(last) if events.len() == limit => last.position,
            _ => head.max(after),
        };
        return Ok((events, end));
    }
    // Backwards, window by window: a page never holds more than its window.
    let mut found: VecDeque<RawEvent> = VecDeque::new();
    let mut upto = head;
    while upto > 0 && found.len() < limit {
        let after = (upto - PAGE.min(i64::from(tail.limit) * 4)).max(0);
        let window = read::raw_page(store.pool(), after, upto, PAGE, &filter).await?;
        for event in window.into_iter().rev().take(limit - found.len()) {
            found.push_front(event);
        }
        upto = after;
    }
    Ok((found.into(), head))
}

async fn follow(store: &Store, tail: &Tail, mut after: i64) -> anyhow::Result<()> {
    let filter = tail.filter();
    let mut stop = std::pin::pin!(stop_signal());
    loop {
        // The head first: what matches nothing up to there need not be read again.
        let head = store.head().await?.position;
        let events = read::raw_page(store.pool(), after, head, PAGE, &filter).await?;
        let full = i64::try_from(events.len()).unwrap_or(PAGE) == PAGE;
        after = match events.last() {
            Some(last) if full => last.position,
            _ => head.max(after),
        };
        for line in lines(store, events, Scope::Events, &tail.output).await? {
            if tail.output.json { report::json(&line)? } else { print_short(&line)? }
        }
        if !full {
            tokio::select! {
                () = &mut stop => return Ok(()),
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

async fn lines(
    store: &Store,
    events: Vec<RawEvent>,
    scope: Scope,
    output: &Output,
) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::with_capacity(events.len());
    for event in &events {
        lines.push(Line::of(event, access::readability(store, event).await?));
    }
    let Some(reason) = output.reason.as_ref().filter(|_| output.reveal) else { return Ok(lines) };
    if events.len() > MAX_REVEAL {
        anyhow::bail!("content is shown for at most {MAX_REVEAL} events at once (use --limit)");
    }
    let reader = Reader { by: operator::name(), channel: "cli", reason: reason.clone() };
    let opened = access::reveal(store, events, scope, &reader).await?;
    for (line, recorded) in lines.iter_mut().zip(opened) {
        line.reveal(recorded)?;
    }
    Ok(lines)
}

impl Line {
    fn of(event: &RawEvent, content: Readability) -> Self {
        Self {
            position: event.position,
            committed_at: report::time(event.committed_ms),
            event_id: event.event_id,
            event_type: event.event_type.clone(),
            event_version: event.event_version.clone(),
            stream_type: event.stream.aggregate_type.clone(),
            stream_id: event.stream.aggregate_id.clone(),
            sequence: event.sequence,
            user_id: event.user,
            correlation_id: correlation_of(event),
            recorded_at: report::time(event.recorded_at_ms),
            content,
            payload_bytes: event.payload.len(),
            sealed_bytes: event.sealed.as_ref().map_or(0, Vec::len),
            leaf: hex::encode(&event.leaf),
            revealed: None,
        }
    }

    fn reveal(&mut self, recorded: Recorded) -> anyhow::Result<()> {
        match recorded.content {
            Content::Open { event, metadata } => {
                if self.content == Readability::Sealed {
                    self.content = Readability::Open;
                }
                let encoded = event.encode();
                self.revealed = Some(Revealed {
                    payload: RawValue::from_string(encoded.payload)?,
                    metadata,
                    packed_bytes: encoded.blob.len(),
                });
            }
            Content::Shredded => self.content = Readability::Shredded,
        }
        Ok(())
    }

    /// For lines that people scan: without the year and what is smaller than a second.
    fn time(&self) -> String {
        self.committed_at.get(5..19).unwrap_or(&self.committed_at).replace('T', " ")
    }

    fn size(&self) -> String {
        match self.content {
            Readability::Clear => format!("{} B", self.payload_bytes),
            Readability::Sealed => format!("{} B sealed", self.sealed_bytes),
            Readability::Open => format!("{} B opened", self.sealed_bytes),
            Readability::Shredded => "shredded".to_owned(),
        }
    }
}

/// The id is never sealed.
fn correlation_of(event: &RawEvent) -> Option<Uuid> {
    let metadata: serde_json::Value = serde_json::from_str(&event.metadata).ok()?;
    Uuid::try_parse(metadata.get("correlation_id")?.as_str()?).ok()
}

fn print(lines: &[Line], output: &Output) -> io::Result<()> {
    if output.json {
        return lines.iter().try_for_each(report::json);
    }
    let terminal = Terminal::of_stdout();
    let mut table = Table::new(["#position", "committed", "event", "stream", "#seq", "content"]);
    for line in lines {
        table.row([
            line.position.to_string(),
            line.time(),
            line.event_type.clone(),
            format!("{}/{}", line.stream_type, short(&line.stream_id)),
            line.sequence.to_string(),
            line.size(),
        ]);
    }
    report::text(&table.render(terminal))?;
    for line in lines {
        if let Some(revealed) = &line.revealed {
            report::text(&format!("{}  {}\n", line.position, printable(revealed.payload.get())))?;
        }
    }
    Ok(())
}

/// A line of a log that goes on.
fn print_short(line: &Line) -> io::Result<()> {
    report::text(&format!(
        "{:>9}  {}  {:<28}  {}/{} #{}  {}\n",
        line.position,
        line.time(),
        line.event_type,
        line.stream_type,
        short(&line.stream_id),
        line.sequence,
        line.size()
    ))
}

fn print_whole(lines: &[Line]) -> io::Result<()> {
    let mut table = Table::new(["event", ""]);
    for line in lines {
        let mut fact = |name: &str, value: String| {
            table.row([name.to_owned(), value]);
        };
        fact("position", line.position.to_string());
        fact("type", format!("{} v{}", line.event_type, line.event_version));
        fact("id", line.event_id.to_string());
        fact("stream", format!("{}/{}", line.stream_type, line.stream_id));
        fact("sequence", line.sequence.to_string());
        fact("person", line.user_id.to_string());
        if let Some(id) = line.correlation_id {
            fact("correlation", id.to_string());
        }
        fact("recorded", line.recorded_at.clone());
        fact("committed", line.committed_at.clone());
        fact("content", line.size());
        fact("leaf hash", line.leaf.clone());
    }
    report::text(&table.render(Terminal::of_stdout()))?;
    for revealed in lines.iter().filter_map(|line| line.revealed.as_ref()) {
        let pretty = serde_json::to_string_pretty(&serde_json::to_value(revealed)?)?;
        report::text(&format!("\n{}\n", printable(&pretty)))?;
    }
    Ok(())
}

/// JSON escapes control characters below the space; the others cannot steer the terminal either.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Enough of an id to recognise it beside others.
fn short(id: &str) -> &str {
    if id.len() == 36 { &id[..8] } else { id }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
