use proptest::prelude::*;

use super::*;

fn month() -> Vec<Point> {
    (1..=30)
        .map(|day| {
            let value = (day != 12).then(|| 6000.0 + 2500.0 * f64::from(day * 7 % 11) - 900.0);
            Point::new(format!("03-{day:02}"), value)
        })
        .collect()
}

#[test]
fn a_month_of_steps() {
    insta::assert_snapshot!("plot_steps", plot("steps per day", &month(), 8, Terminal::plain(80)));
}

#[test]
fn a_weight_far_from_zero_shows_its_changes() {
    let points: Vec<_> = [68.4, 68.3, 68.35, 68.1, 68.0]
        .iter()
        .zip(1..)
        .map(|(v, day)| Point::new(format!("03-{day:02}"), *v))
        .collect();
    insta::assert_snapshot!("plot_weight", plot("weight, kg", &points, 5, Terminal::plain(40)));
}

#[test]
fn a_narrow_terminal_shares_columns() {
    let text = plot("steps per day", &month(), 4, Terminal::plain(24));
    insta::assert_snapshot!("plot_narrow", text);
}

#[test]
fn nothing_to_draw_says_so() {
    assert_eq!(plot("steps", &[], 8, Terminal::plain(80)), "steps\n(no data)\n");
    let nan = [Point::new("a", f64::NAN), Point::new("b", None)];
    assert_eq!(plot("steps", &nan, 8, Terminal::plain(80)), "steps\n(no data)\n");
}

#[test]
fn a_table_aligns_numbers_and_wraps_long_text() {
    let mut table = Table::new(["metric", "day", "#sum", "#samples"]);
    table.row(["steps", "2026-03-01", "10,412", "74"]);
    table.row(["schöne Strecke", "2026-03-02", "9", "1"]).row(["short"]);
    insta::assert_snapshot!("table", table.render(Terminal::plain(60)));
    insta::assert_snapshot!("table_narrow", table.render(Terminal::plain(34)));
    insta::assert_snapshot!("table_empty", Table::new(["a", "b"]).render(Terminal::plain(60)));
    assert_eq!((table.len(), table.is_empty()), (3, false));
}

#[test]
fn text_from_elsewhere_cannot_steer_the_terminal() {
    let mut table = Table::new(["notes"]);
    table.row(["a\x1b[31mred\nline"]);
    assert!(!table.render(Terminal::plain(60)).contains('\x1b'));
}

#[test]
fn colour_appears_only_where_it_is_welcome() {
    let colourful = Terminal { width: 60, colour: true };
    assert!(plot("steps", &month(), 4, colourful).contains("\x1b[32m"));
    assert!(!plot("steps", &month(), 4, Terminal::plain(60)).contains('\x1b'));
    assert_eq!(Terminal::new(false, None), Terminal::plain(Terminal::PLAIN_WIDTH));
    assert_eq!(Terminal::new(false, Some(3)).width, 20);
}

#[test]
fn numbers_are_written_for_people() {
    for (value, decimals, text) in [
        (1_234_567.0, 0, "1,234,567"),
        (999.0, 2, "999"),
        (1000.5, 2, "1,000.5"),
        (-0.001, 2, "0"),
        (-1234.0, 0, "−1,234"),
        (73.135_417, 2, "73.14"),
        (f64::NAN, 2, "–"),
        (f64::INFINITY, 2, "–"),
    ] {
        assert_eq!(number(value, decimals), text);
    }
}

#[test]
fn progress_without_a_terminal_is_silent() {
    let progress = Progress::items(10, "uploading");
    progress.advance(3);
    progress.set(20);
    let bytes = Progress::bytes(0, "reading");
    bytes.set(u64::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn any_series_fits_the_terminal(
        values in prop::collection::vec(prop::option::of(any::<f64>()), 0..200),
        rows in 0..50usize,
        width in 0..200usize,
        title in ".{0,20}",
    ) {
        let points: Vec<_> = values.into_iter().map(|v| Point::new("03-01", v)).collect();
        let text = plot(&title, &points, rows, Terminal::plain(width));
        prop_assert!(text.ends_with('\n'));
    }

    #[test]
    fn believable_series_never_overflow_the_width(
        values in prop::collection::vec(0.0..1e6f64, 1..200),
        width in 30..200usize,
    ) {
        let points: Vec<_> = values.into_iter().map(|v| Point::new("03-01", v)).collect();
        for line in plot("t", &points, 6, Terminal::plain(width)).lines() {
            prop_assert!(line.chars().count() <= width, "{}", line);
        }
    }
}
