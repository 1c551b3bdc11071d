//! What may be said of a value that does not fit.
//!
//! A decoder's sentence quotes what it met. Answers are kept, logged and sent on by others, so none
//! of it reaches them: only words of this table do.

/// The last words of a decoder's sentence, and what is said instead.
const FORMS: [(&[&str], &str); 6] = [
    (&["a string", "a borrowed string", "string"], "must be a string"),
    (&["a boolean", "bool"], "must be true or false"),
    (
        &["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "usize", "isize"],
        "must be a whole number in range",
    ),
    (&["f32", "f64"], "must be a number"),
    (&["a sequence"], "must be an array"),
    (&["a map"], "must be an object"),
];

/// The message for a field of which a decoder says this.
pub(super) fn of(sentence: &str) -> &'static str {
    for (start, message) in [
        ("missing field `", "is required"),
        ("duplicate field `", "is given twice"),
        ("unknown field `", "holds a field that is not known"),
    ] {
        if sentence.starts_with(start) {
            return message;
        }
    }
    let expected = sentence.rsplit_once(", expected ").map(|(_, expected)| expected);
    let form = expected.and_then(|expected| {
        let form = FORMS.iter().find(|(names, _)| names.contains(&expected));
        form.map(|(_, message)| *message)
            .or_else(|| expected.starts_with("struct ").then_some("must be an object"))
    });
    form.unwrap_or("is not valid")
}

/// The field a decoder names as missing or given twice. Both are names of ours.
pub(super) fn named(sentence: &str) -> Option<&str> {
    let rest =
        ["missing field `", "duplicate field `"].iter().find_map(|s| sentence.strip_prefix(s))?;
    rest.strip_suffix('`')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_sentence_is_repeated_but_our_own_names() {
        for (sentence, message) in [
            ("missing field `name`", "is required"),
            ("duplicate field `name`", "is given twice"),
            ("unknown field `secret`, expected `name`", "holds a field that is not known"),
            ("unknown variant `secret`, expected `a` or `b`", "is not valid"),
            ("invalid type: string \"secret\", expected u32", "must be a whole number in range"),
            ("invalid type: string \", expected f64\", expected a string", "must be a string"),
            ("invalid type: null, expected struct Order", "must be an object"),
            ("invalid digit found in string", "is not valid"),
            ("secret", "is not valid"),
        ] {
            assert_eq!(of(sentence), message, "{sentence}");
        }
        assert_eq!(named("missing field `name`"), Some("name"));
        assert_eq!(named("unknown field `secret`, expected `name`"), None);
    }
}
