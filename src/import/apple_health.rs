//! Apple Health's `export.xml`, read as a stream.
//!
//! Exports reach gigabytes, so records pass one at a time and memory stays constant. The parser
//! trusts nothing: it expands no entities beyond the five of XML, reads no external ones, bounds
//! depth, token size and attribute count, and counts what it cannot use instead of failing.
//!
//! Only `Record` elements directly under the root count. Those inside a `Correlation` are there a
//! second time at the top level. Workouts and activity summaries have no metric and are skipped.

mod identity;
mod metrics;
mod record;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use quick_xml::errors::SyntaxError;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use crate::client::wire::Sample;
use identity::Identities;
use record::{Outcome, RawRecord};
use source::Source;

pub use record::SOURCE_ID;

/// Real exports nest four deep.
const MAX_DEPTH: usize = 32;
/// Real records have nine attributes.
const MAX_ATTRIBUTES: usize = 64;
/// How many malformed records are named; all of them are counted.
const MAX_PROBLEMS: usize = 20;
/// How many distinct unknown types are named; the rest count together under `other`.
const MAX_UNKNOWN_TYPES: usize = 500;

/// Why an export could not be read further. Samples before it were read correctly.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file could not be read.
    #[error("could not read the export")]
    Io(#[from] io::Error),
    /// A zip archive; only the XML inside is understood.
    #[error(
        "this is a zip archive; unpack it first and pass the file apple_health_export/export.xml"
    )]
    Zip,
    /// XML of another kind, or no XML.
    #[error("this is no Apple Health export: its root element is not HealthData")]
    NotAnExport,
    /// Broken XML.
    #[error("the XML is malformed at line {line}")]
    Xml {
        /// Counted from 1.
        line: u64,
    },
    /// A tag, text or declaration beyond any size a real export has, or nesting as deep.
    #[error("the XML exceeds the limits of an export at line {line}")]
    TooLarge {
        /// Counted from 1.
        line: u64,
    },
    /// The file ends before the root element does.
    #[error("the export ends in the middle, at line {line}; copy it again")]
    Truncated {
        /// Counted from 1.
        line: u64,
    },
}

/// What is wrong with a record that was left out. Never says what the record said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Malformed {
    /// No type.
    Type,
    /// A start or end that is no date with an offset, or lies before 1970.
    Date,
    /// An end before the start.
    Order,
    /// A value that is no finite number, or is negative.
    Value,
    /// A quantity without unit.
    Unit,
    /// Attributes that cannot be read.
    Attributes,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Type => "no type",
            Self::Date => "unreadable date",
            Self::Order => "ends before it starts",
            Self::Value => "unreadable value",
            Self::Unit => "no unit",
            Self::Attributes => "unreadable attributes",
        })
    }
}

/// One record left out, by its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The line the record starts on, from 1.
    pub line: u64,
    /// What is wrong.
    pub reason: Malformed,
}

/// What has been read so far.
///
/// `records = imported + malformed + unknown types`; nothing is left out without being counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ImportStats {
    /// `Record` elements directly under the root.
    pub records: u64,
    /// Records that became samples.
    pub imported: u64,
    /// Samples they became: sleep records become up to three.
    pub samples: u64,
    /// Imported records that say exactly what an earlier one says.
    pub repeated: u64,
    /// Records that could not be read, by reason.
    pub malformed: BTreeMap<Malformed, u64>,
    /// The first malformed records.
    pub problems: Vec<Problem>,
    /// Records of types or category codes outside the catalogue, by type.
    pub unknown: BTreeMap<String, u64>,
    /// Other elements directly under the root, such as `Workout`, by name.
    pub skipped: BTreeMap<String, u64>,
}

/// The samples of one `Record`.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedRecord {
    /// The line the record starts on, from 1.
    pub line: u64,
    /// At least one.
    pub samples: Vec<Sample>,
}

/// An export being read: an iterator of records that ends after the first error.
pub struct Export<R> {
    reader: Reader<Source<R>>,
    buffer: Vec<u8>,
    depth: usize,
    /// The `Record` whose children are being read, and its line.
    open: Option<(u64, Result<RawRecord, Malformed>)>,
    identities: Identities,
    stats: ImportStats,
    in_export: bool,
    done: bool,
}

impl<R> fmt::Debug for Export<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("stats", &self.stats).finish_non_exhaustive()
    }
}

/// Opens the export at `path`.
///
/// # Errors
/// [`ImportError::Io`], and [`ImportError::Zip`] for an archive.
pub fn open(path: &Path) -> Result<Export<BufReader<File>>, ImportError> {
    let mut reader = BufReader::with_capacity(256 * 1024, File::open(path)?);
    if reader.fill_buf()?.starts_with(b"PK\x03\x04") {
        return Err(ImportError::Zip);
    }
    Ok(Export::new(reader))
}

impl<R: BufRead> Export<R> {
    /// Reads an export from `reader`.
    pub fn new(reader: R) -> Self {
        Self {
            reader: Reader::from_reader(Source::new(reader)),
            buffer: Vec::new(),
            depth: 0,
            open: None,
            identities: Identities::default(),
            stats: ImportStats::default(),
            in_export: false,
            done: false,
        }
    }

    /// What has been read so far.
    pub fn stats(&self) -> &ImportStats {
        &self.stats
    }

    /// Bytes read so far, for a progress bar over the file's size.
    pub fn bytes_read(&self) -> u64 {
        self.reader.get_ref().bytes
    }

    fn line(&self) -> u64 {
        self.reader.get_ref().newlines + 1
    }

    /// Reads tokens until a record is complete. `None` at the end of the export.
    fn advance(&mut self) -> Result<Option<ParsedRecord>, ImportError> {
        loop {
            self.buffer.clear();
            self.reader.get_mut().next_token();
            let mut buffer = std::mem::take(&mut self.buffer);
            let start_line = self.line();
            let complete = match self.reader.read_event_into(&mut buffer) {
                Ok(Event::Start(element)) => {
                    self.depth += 1;
                    let (line, depth) = (self.start_of(&element), self.depth);
                    if depth > MAX_DEPTH {
                        return Err(ImportError::TooLarge { line });
                    }
                    self.element(&element, depth, line)?;
                    None
                }
                Ok(Event::Empty(element)) => {
                    let (line, depth) = (self.start_of(&element), self.depth + 1);
                    self.element(&element, depth, line)?;
                    if depth == 2 { self.open.take() } else { None }
                }
                Ok(Event::End(_)) => {
                    let closed = if self.depth == 2 { self.open.take() } else { None };
                    self.depth = self.depth.saturating_sub(1);
                    closed
                }
                Ok(Event::Eof) if self.depth > 0 => {
                    return Err(ImportError::Truncated { line: self.line() });
                }
                Ok(Event::Eof) if !self.in_export => return Err(ImportError::NotAnExport),
                Ok(Event::Eof) => return Ok(None),
                // Declarations, comments, text and entity references carry nothing we read.
                Ok(_) => None,
                Err(error) => return Err(self.explain(error, start_line)),
            };
            self.buffer = buffer;
            if let Some((line, record)) = complete
                && let Some(parsed) = self.finish(line, record)
            {
                return Ok(Some(parsed));
            }
        }
    }

    /// The line `element` starts on: the reader stands at its end.
    fn start_of(&self, element: &BytesStart<'_>) -> u64 {
        let inside = element.bytes().filter(|byte| *byte == b'\n').count() as u64;
        self.line() - inside
    }

    fn explain(&self, error: quick_xml::Error, start_line: u64) -> ImportError {
        let line = self.line().max(start_line);
        match error {
            _ if self.reader.get_ref().exhausted() => ImportError::TooLarge { line },
            quick_xml::Error::Io(error) => {
                ImportError::Io(io::Error::new(error.kind(), error.to_string()))
            }
            _ if !self.in_export => ImportError::NotAnExport,
            quick_xml::Error::Syntax(SyntaxError::InvalidBangMarkup) => ImportError::Xml { line },
            quick_xml::Error::Syntax(_) => ImportError::Truncated { line },
            _ => ImportError::Xml { line },
        }
    }

    fn element(
        &mut self,
        element: &BytesStart<'_>,
        depth: usize,
        line: u64,
    ) -> Result<(), ImportError> {
        let name = element.name();
        match (depth, name.as_ref()) {
            (1, "HealthData") => self.in_export = true,
            (1, _) => return Err(ImportError::NotAnExport),
            (2, "Record") => {
                self.stats.records += 1;
                self.open = Some((line, attributes(element)));
            }
            (2, "ExportDate" | "Me") => {}
            (2, other) => count(&mut self.stats.skipped, other),
            (3, "MetadataEntry") => {
                if let Some((_, Ok(record))) = &mut self.open
                    && user_entered(element)
                {
                    record.user_entered = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, line: u64, record: Result<RawRecord, Malformed>) -> Option<ParsedRecord> {
        let outcome = record.and_then(|record| {
            let outcome = record.samples(&mut self.identities)?;
            if matches!(outcome, Outcome::Unknown) {
                count(&mut self.stats.unknown, &record.hk_type);
            }
            Ok(outcome)
        });
        match outcome {
            Ok(Outcome::Samples { samples, repeated }) => {
                self.stats.imported += 1;
                self.stats.samples += samples.len() as u64;
                self.stats.repeated += u64::from(repeated);
                Some(ParsedRecord { line, samples })
            }
            Ok(Outcome::Unknown) => None,
            Err(reason) => {
                *self.stats.malformed.entry(reason).or_default() += 1;
                if self.stats.problems.len() < MAX_PROBLEMS {
                    self.stats.problems.push(Problem { line, reason });
                }
                None
            }
        }
    }
}

impl<R: BufRead> Iterator for Export<R> {
    type Item = Result<ParsedRecord, ImportError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.advance().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Counts `name`, but never more than [`MAX_UNKNOWN_TYPES`] different ones.
fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    let known = counts.len() < MAX_UNKNOWN_TYPES || counts.contains_key(name);
    let name: String = if known { name.chars().take(128).collect() } else { "other".to_owned() };
    *counts.entry(name).or_default() += 1;
}

fn attributes(element: &BytesStart<'_>) -> Result<RawRecord, Malformed> {
    let mut record = RawRecord::default();
    for (n, attribute) in element.attributes().with_checks(false).enumerate() {
        let attribute = attribute.map_err(|_| Malformed::Attributes)?;
        if n >= MAX_ATTRIBUTES {
            return Err(Malformed::Attributes);
        }
        let field = match attribute.key.as_ref() {
            "type" => &mut record.hk_type,
            "sourceName" => &mut record.source_name,
            "sourceVersion" => &mut record.source_version,
            "device" => &mut record.device,
            "unit" => &mut record.unit,
            "startDate" => &mut record.start,
            "endDate" => &mut record.end,
            "value" => &mut record.value,
            _ => continue,
        };
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|_| Malformed::Attributes)?;
        *field = value.into_owned();
    }
    Ok(record)
}

/// Whether the entry says that a person typed the record in.
fn user_entered(entry: &BytesStart<'_>) -> bool {
    let value = |name: &str| entry.try_get_attribute(name).ok().flatten().map(|a| a.value);
    value("key").as_deref() == Some("HKWasUserEntered") && value("value").as_deref() == Some("1")
}
