//! Tables that fit the terminal.

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Row, TableStyle};

use super::Terminal;

/// One rule under the headings and no other line: tables are read down their columns.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table: headings, then rows of text.
#[derive(Clone, Debug, Default)]
pub struct Table {
    headings: Vec<String>,
    /// Whether the column of the same place holds numbers, which align right.
    numeric: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings. A heading that starts with `#` is one of a column of numbers
    /// and loses the sign.
    pub fn new<'a>(headings: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = Self::default();
        for heading in headings {
            table.numeric.push(heading.starts_with('#'));
            table.headings.push(heading.trim_start_matches('#').to_owned());
        }
        table
    }

    /// Adds a row. Missing cells stay empty, surplus ones are dropped.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        let mut cells: Vec<String> =
            cells.into_iter().take(self.headings.len()).map(|cell| one_line(cell.into())).collect();
        cells.resize(self.headings.len(), String::new());
        self.rows.push(cells);
        self
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, wrapped to the terminal's width.
    pub fn render(&self, terminal: Terminal) -> String {
        if self.headings.is_empty() {
            return String::new();
        }
        let mut table = comfy_table::Table::new();
        table
            .load_style(STYLE)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(u16::try_from(terminal.width).unwrap_or(u16::MAX))
            .force_no_tty();
        table.set_header(self.cells(&self.headings));
        for row in &self.rows {
            table.add_row(self.cells(row));
        }
        let mut text: Vec<&str> = Vec::new();
        let rendered = table.to_string();
        text.extend(rendered.lines().map(str::trim_end));
        if self.rows.is_empty() {
            text.push(" (none)");
        }
        text.join("\n") + "\n"
    }

    fn cells(&self, texts: &[String]) -> Row {
        let cells = texts.iter().zip(&self.numeric).map(|(text, numeric)| {
            let side = if *numeric { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(text).set_alignment(side)
        });
        Row::from(cells.collect::<Vec<_>>())
    }
}

/// Text from elsewhere cannot steer the terminal.
fn one_line(text: String) -> String {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    } else {
        text
    }
}
