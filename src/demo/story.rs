//! The story the demo tells, through the public API only, and what must hold at its end.
//!
//! Three people upload a month; one of them has two phones that edit the same session while both
//! are offline; an upload comes twice, a sample is corrected, another deleted; a health export is
//! imported; and a stranger looks around. Each run makes new accounts, so that every count is
//! exact however often it runs on the same log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{Days, NaiveDate};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::people::{Person, Plan, SOURCE_ID, people};
use super::phone::{Phone, PhoneError};
use crate::client::wire::{Batch, BatchResult, Deletion, MAX_BATCH, Sample};
use crate::client::{ApiClient, ClientError};
use crate::import::apple_health::{Export, ImportStats};
use crate::{clock, ids};

/// Longest wait for a projector to reach what was just uploaded.
const PATIENCE: Duration = Duration::from_secs(20);
/// Days of the generated month.
const DAYS: u32 = 30;

/// One thing that must hold.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    pub detail: String,
}

impl Check {
    pub fn new(name: &'static str, ok: bool, detail: impl Into<String>) -> Self {
        Self { name, ok, detail: detail.into() }
    }
}

/// Why the story could not be told to its end.
#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    #[error("the server refused")]
    Client(#[from] ClientError),
    #[error("a phone could not sync")]
    Phone(#[from] PhoneError),
    #[error("the export could not be read")]
    Import(#[from] crate::import::apple_health::ImportError),
    #[error("{0}")]
    Odd(String),
}

/// What the demo shows afterwards.
#[derive(Debug, Default)]
pub struct Report {
    pub checks: Vec<Check>,
    /// Samples uploaded by the three people.
    pub samples: usize,
    pub sessions: usize,
    pub upload_seconds: f64,
    pub import: Option<(ImportStats, u64)>,
    /// Daily rollups of the first person by metric.
    pub rollups: BTreeMap<&'static str, Vec<Value>>,
    pub explained: Value,
    pub freshness: Value,
}

/// The people and their ways to the server.
pub struct Story {
    people: Vec<(Person, ApiClient)>,
    importer: ApiClient,
    report: Report,
}

/// Makes a token for a name.
pub type Issue<'a> = &'a dyn Fn(&str) -> Result<String, String>;

impl Story {
    /// New accounts on the server at `base_url`.
    ///
    /// # Errors
    /// Where tokens cannot be made.
    pub fn new(base_url: &str, issue: Issue<'_>) -> Result<Self, StoryError> {
        let run = ids::new_id().simple().to_string();
        let client = |name: &str| -> Result<ApiClient, StoryError> {
            let token = issue(&format!("{name}-{}", &run[..8])).map_err(StoryError::Odd)?;
            Ok(ApiClient::new(base_url, token, ids::new_id())?)
        };
        let first_day = clock::now().date_naive() - Days::new(u64::from(DAYS) + 2);
        let mut cast = Vec::new();
        for person in people(Plan { seed: 7, first_day, days: DAYS }) {
            let client = client(person.name)?;
            cast.push((person, client));
        }
        Ok(Self { people: cast, importer: client("export")?, report: Report::default() })
    }

    /// Tells the story.
    ///
    /// # Errors
    /// Where the server does not do its part; what was found until then stays in the report.
    pub async fn tell(
        &mut self,
        export: Export<impl std::io::BufRead>,
        say: &dyn Fn(&str),
    ) -> Result<(), StoryError> {
        say("three people upload a month of health data and sessions");
        self.month().await?;
        say("an export of Apple Health is imported, twice");
        self.import(export).await?;
        say("an upload comes twice, a sample is corrected, another is deleted");
        self.second_thoughts().await?;
        say("two phones edit the same session offline");
        self.two_phones().await?;
        self.show().await
    }

    /// What was found.
    pub fn into_report(self) -> Report {
        self.report
    }

    fn check(&mut self, name: &'static str, ok: bool, detail: impl Into<String>) {
        self.report.checks.push(Check::new(name, ok, detail));
    }

    async fn month(&mut self) -> Result<(), StoryError> {
        let began = Instant::now();
        let uploads = self.people.iter().map(|(person, client)| upload(person, client));
        let done = futures_util::future::try_join_all(uploads).await?;
        self.report.upload_seconds = began.elapsed().as_secs_f64();
        self.report.samples = done.iter().map(|one| one.accepted).sum();
        self.report.sessions = done.iter().map(|one| one.sessions).sum();
        let wanted: usize = self.people.iter().map(|(person, _)| person.samples.len()).sum();
        let (accepted, failed) =
            (self.report.samples, done.iter().map(|one| one.failed).sum::<usize>());
        self.check(
            "every_sample_accepted",
            accepted == wanted && failed == 0,
            format!("{accepted} of {wanted} samples accepted, {failed} refused"),
        );

        let (mut right, mut wrong) = (0, Vec::new());
        for (person, client) in &self.people {
            settled(client).await?;
            let days = daily(client, person).await?;
            for ((metric, day), tally) in &person.expected {
                let row = days.get(&(*metric, *day));
                let count = row.and_then(|row| row["countVal"].as_u64());
                let sum = row.and_then(|row| row["sumVal"].as_f64());
                let exact = sum.is_some_and(|sum| (sum - tally.sum()).abs() < 1e-6);
                if count == Some(tally.count) && exact {
                    right += 1;
                } else {
                    wrong.push(format!("{} {metric} {day}", person.name));
                }
            }
        }
        let detail = match wrong.first() {
            None => format!("{right} days of rollups equal an independent count"),
            Some(first) => format!("{} days differ, first {first}", wrong.len()),
        };
        self.check("counts_exact", wrong.is_empty() && right > 0, detail);
        Ok(())
    }

    async fn import(
        &mut self,
        mut export: Export<impl std::io::BufRead>,
    ) -> Result<(), StoryError> {
        let mut samples = Vec::new();
        for record in export.by_ref() {
            samples.extend(record?.samples);
        }
        let stats = export.stats().clone();
        let mut recorded = 0;
        for part in samples.chunks(MAX_BATCH) {
            let batch = Batch::of_content(part.to_vec(), Vec::new());
            recorded += self.importer.batch_upsert(&batch).await?.successful.len();
        }
        let first = settled(&self.importer).await?;
        for part in samples.chunks(MAX_BATCH) {
            let again = Batch::new(ids::new_id(), part.to_vec(), Vec::new());
            self.importer.batch_upsert(&again).await?;
        }
        let second = settled(&self.importer).await?;
        self.check(
            "import_repeats_without_effect",
            recorded > 0 && first == second,
            format!(
                "{} records, {recorded} samples; watermark {first} before and {second} after a \
                 second import",
                stats.records
            ),
        );
        self.report.import = Some((stats, recorded as u64));
        Ok(())
    }

    async fn second_thoughts(&mut self) -> Result<(), StoryError> {
        let (person, client) = &self.people[0];
        let client = client.clone();
        let before = settled(&client).await?;

        let first: Vec<Sample> = person.samples.iter().take(MAX_BATCH).cloned().collect();
        let replayed = Batch::of_content(first.clone(), Vec::new());
        let replays =
            (client.batch_upsert(&replayed).await?, client.batch_upsert(&replayed).await?);
        let again = Batch::new(ids::new_id(), first.clone(), Vec::new());
        let repeated = client.batch_upsert(&again).await?;
        let after = settled(&client).await?;
        let same = same_items(&replays.0, &replays.1) && same_items(&replays.0, &repeated);
        let steps: Vec<Sample> =
            person.samples.iter().filter(|one| one.metric_code == "steps").cloned().collect();
        self.check(
            "reupload_changed_nothing",
            before == after && same,
            format!("watermark {before} before, {after} after three repetitions of an upload"),
        );

        let [corrected, deleted] = steps.get(..2).unwrap_or_default() else {
            return Err(StoryError::Odd("the month has no steps".to_owned()));
        };
        let (day, old) = day_of(&client, corrected).await?;
        let mut sample = corrected.clone();
        sample.value = sample.value.map(|value| value + 100.0);
        client.batch_upsert(&Batch::new(ids::new_id(), vec![sample], Vec::new())).await?;
        settled(&client).await?;
        let (_, new) = day_of(&client, corrected).await?;
        let rise = sum(&new) - sum(&old);
        self.check(
            "correction_counted_once",
            (rise - 100.0).abs() < 1e-6 && count(&new) == count(&old),
            format!("steps of {day} rose by {rise}, still {} samples", count(&new)),
        );

        let (day, old) = day_of(&client, deleted).await?;
        let deletion = Deletion {
            source_id: deleted.source_id.clone(),
            source_record_id: deleted.source_record_id.clone(),
            start_at: Some(deleted.start_at.clone()),
            deleted_at: None,
        };
        client.batch_upsert(&Batch::new(ids::new_id(), Vec::new(), vec![deletion])).await?;
        let revived = Batch::new(ids::new_id(), vec![deleted.clone()], Vec::new());
        let revived = client.batch_upsert(&revived).await?;
        settled(&client).await?;
        let (_, new) = day_of(&client, deleted).await?;
        let listed = listed(&client, deleted).await?;
        let fall = sum(&old) - sum(&new);
        let gone = deleted.value.unwrap_or_default();
        self.check(
            "deleted_counted_nowhere",
            (fall - gone).abs() < 1e-6
                && count(&new) + 1 == count(&old)
                && !listed
                && revived.failed.len() == 1,
            format!(
                "steps of {day}: {} samples, then {}; the sample is {}, and its second upload was \
                 {}",
                count(&old),
                count(&new),
                if listed { "still listed" } else { "not listed" },
                if revived.failed.len() == 1 { "refused" } else { "taken" },
            ),
        );
        Ok(())
    }

    async fn two_phones(&mut self) -> Result<(), StoryError> {
        let ada = self.people[0].1.clone();
        let (at_home, at_work) = (ada.on_device(ids::new_id()), ada.on_device(ids::new_id()));
        let (mut home, mut work) =
            (Phone::new(at_home.device_id()), Phone::new(at_work.device_id()));
        let minute = |n: i64| crate::client::wire::wire_time(ago(30 - n));
        let session = home.create(
            "sessions",
            fields(json!({
                "clientSessionId": ids::new_id(),
                "sessionStartTimestamp": minute(0),
                "notes": "evening walk",
            })),
            &minute(0),
        );
        home.sync(&at_home).await?;
        work.sync(&at_work).await?;

        // Both go offline here.
        home.update(
            "sessions",
            &session,
            fields(json!({"notes": "long evening walk"})),
            &minute(5),
        );
        work.update(
            "sessions",
            &session,
            fields(json!({"notes": "walk by the sea", "sessionTypeHeuristic": "outdoor"})),
            &minute(7),
        );
        home.sync(&at_home).await?;
        work.sync(&at_work).await?;
        home.sync(&at_home).await?;
        work.sync(&at_work).await?;

        let agree = home.agrees_with(&work);
        let row = home.row("sessions", &session);
        let kept = row.is_some_and(|row| row.data.get("sessionTypeHeuristic").is_some());
        self.check(
            "both_phones_equal",
            agree && kept && home.pending() + work.pending() == 0,
            format!(
                "after both synced they hold {} rows; the field only one phone edited is {}",
                if agree { "equal" } else { "different" },
                if kept { "kept" } else { "lost" },
            ),
        );

        self.report.explained = at_home.explain("sessions", &session).await?;
        let text = self.report.explained.to_string();
        let both = text.contains("long evening walk") && text.contains("walk by the sea");
        self.check(
            "conflict_decision_recorded",
            both,
            "the merge of the notes is on record with both texts, the policy and the winner",
        );

        let stranger = &self.people[1].1;
        let session_status = status(stranger.get(&["sessions", &session], &[]).await);
        let mut theirs = Phone::new(stranger.device_id());
        theirs.sync(stranger).await?;
        let in_feed = theirs.row("sessions", &session).is_some();
        let explained = status(stranger.explain("sessions", &session).await);
        self.check(
            "stranger_sees_nothing",
            session_status == Some(404) && explained == Some(404) && !in_feed,
            format!(
                "another person asking for the session: GET {session_status:?}, explain \
                 {explained:?}, {} their feed",
                if in_feed { "in" } else { "not in" },
            ),
        );
        Ok(())
    }

    async fn show(&mut self) -> Result<(), StoryError> {
        let (person, client) = &self.people[0];
        let days = daily(client, person).await?;
        for ((metric, _), row) in days {
            self.report.rollups.entry(metric).or_default().push(row);
        }
        self.report.freshness = client.freshness().await?;
        Ok(())
    }
}

/// What became of one person's uploads.
struct Uploaded {
    accepted: usize,
    failed: usize,
    sessions: usize,
}

async fn upload(person: &Person, client: &ApiClient) -> Result<Uploaded, StoryError> {
    let mut done = Uploaded { accepted: 0, failed: 0, sessions: 0 };
    for batch in person.batches() {
        let result = client.batch_upsert(&batch).await?;
        done.accepted += result.successful.len();
        done.failed += result.failed.len();
    }
    for session in &person.sessions {
        let created = client.post(&["sessions"], &session.body()).await?;
        let id = created["id"].as_str().unwrap_or_default().to_owned();
        for consumption in &session.consumptions {
            client.post(&["consumptions"], &consumption.body(&id)).await?;
        }
        done.sessions += 1;
    }
    Ok(done)
}

/// Waits until the rollups contain everything uploaded so far; answers the watermark.
async fn settled(client: &ApiClient) -> Result<String, StoryError> {
    let began = Instant::now();
    loop {
        let freshness = client.freshness().await?;
        let rollup = &freshness["projections"]["health-rollup"];
        if rollup["state"] == "READY" || rollup["state"] == "EMPTY" {
            return Ok(freshness["watermark"].as_str().unwrap_or_default().to_owned());
        }
        if began.elapsed() > PATIENCE {
            return Err(StoryError::Odd(format!("rollups did not catch up: {rollup}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

type DayRows = BTreeMap<(&'static str, NaiveDate), Value>;

/// All rollups of the metrics a person has.
async fn daily(client: &ApiClient, person: &Person) -> Result<DayRows, StoryError> {
    let mut metrics: Vec<&'static str> =
        person.expected.keys().map(|(metric, _)| *metric).collect();
    metrics.dedup();
    let days: Vec<NaiveDate> = person.expected.keys().map(|(_, day)| *day).collect();
    let (Some(first), Some(last)) = (days.iter().min(), days.iter().max()) else {
        return Ok(DayRows::new());
    };
    let mut rows = DayRows::new();
    for metric in metrics {
        let page = client.rollups(metric, &first.to_string(), &last.to_string()).await?;
        for row in page["items"].as_array().into_iter().flatten() {
            if let Some(day) = row["dayUtc"].as_str().and_then(|day| day.parse().ok()) {
                rows.insert((metric, day), row.clone());
            }
        }
    }
    Ok(rows)
}

/// The rollup of the local day a sample lies on.
async fn day_of(client: &ApiClient, sample: &Sample) -> Result<(String, Value), StoryError> {
    let start = chrono::DateTime::parse_from_rfc3339(&sample.start_at)
        .map_err(|_| StoryError::Odd("a generated sample has no start".to_owned()))?;
    let offset = chrono::Duration::minutes(sample.timezone_offset_minutes.unwrap_or(0).into());
    let day = (start.to_utc() + offset).date_naive().to_string();
    let page = client.rollups(&sample.metric_code, &day, &day).await?;
    Ok((day, page["items"][0].clone()))
}

/// Whether the sample is among the active ones.
async fn listed(client: &ApiClient, sample: &Sample) -> Result<bool, StoryError> {
    let query = [
        ("startTime", sample.start_at.as_str()),
        ("endTime", sample.end_at.as_str()),
        ("metricCode", sample.metric_code.as_str()),
    ];
    let page = client.get(&["health", "samples", "cursor"], &query).await?;
    let items = page["items"].as_array().cloned().unwrap_or_default();
    Ok(items.iter().any(|item| {
        item["sourceRecordId"] == sample.source_record_id.as_str() && item["sourceId"] == SOURCE_ID
    }))
}

fn sum(row: &Value) -> f64 {
    row["sumVal"].as_f64().unwrap_or_default()
}

fn count(row: &Value) -> u64 {
    row["countVal"].as_u64().unwrap_or_default()
}

/// Whether two answers name the same samples with the same ids.
fn same_items(one: &BatchResult, other: &BatchResult) -> bool {
    let ids = |result: &BatchResult| {
        let mut ids: Vec<String> =
            result.successful.iter().map(|item| item.server_id.clone()).collect();
        ids.sort();
        (ids, result.failed.len())
    };
    ids(one) == ids(other)
}

fn status(result: Result<Value, ClientError>) -> Option<u16> {
    match result {
        Ok(_) => Some(200),
        Err(error) => error.status(),
    }
}

fn ago(minutes: i64) -> chrono::DateTime<chrono::Utc> {
    clock::now() - chrono::Duration::minutes(minutes)
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
