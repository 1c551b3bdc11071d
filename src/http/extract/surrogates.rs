//! Mending strings that were cut through a character.
//!
//! JavaScript counts UTF-16 units: a string it cuts inside an emoji ends in half of it, which
//! `JSON.stringify` writes as a lone `\ud83d`. No Unicode text can hold that half, and refusing the
//! body for it would cost everything else in it.

/// Replaces each unpaired surrogate escape by `\uFFFD`, in place.
pub(super) fn mend(json: &mut [u8]) {
    let mut index = 0;
    while let Some(offset) = json[index..].iter().position(|byte| *byte == b'\\') {
        index += offset;
        index += match unit(json, index) {
            Some(0xD800..=0xDBFF) if matches!(unit(json, index + 6), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => {
                json[index + 2..index + 6].copy_from_slice(b"FFFD");
                6
            }
            Some(_) => 6,
            // The escaped byte may be a backslash of its own.
            None => 2,
        };
        index = index.min(json.len());
    }
}

/// The UTF-16 unit of the escape that starts here, if one does.
fn unit(json: &[u8], start: usize) -> Option<u16> {
    let digits = json.get(start..start + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mended(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        mend(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn only_halves_are_replaced() {
        for (given, expected) in [
            (r#""a\ud83d""#, r#""a\uFFFD""#),
            (r#""\ude00b""#, r#""\uFFFDb""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\uD83D\uD83D\uDE00""#, r#""\uFFFD\uD83D\uDE00""#),
            (r#""\ude00\ud83d""#, r#""\uFFFD\uFFFD""#),
            (r#""\ud83d\n""#, r#""\uFFFD\n""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83d""#, r#""\\\uFFFD""#),
            (r#""\ud83"#, r#""\ud83"#),
            (r"\", r"\"),
        ] {
            assert_eq!(mended(given), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_sound_stays_as_it_is(text in any::<String>(), escaped in any::<bool>()) {
            let json = serde_json::to_string(&text).unwrap();
            let json = match escaped {
                false => json,
                true => {
                    let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
                    format!("\"{}\"", units.collect::<String>())
                }
            };
            prop_assert_eq!(mended(&json), json);
        }

        #[test]
        fn any_units_become_text_of_the_same_length(
            units in proptest::collection::vec(
                prop_oneof![0xD7F0_u16..0xE010, any::<u16>()], 0..20),
        ) {
            let escapes = units.iter().map(|unit| format!("\\u{unit:04x}"));
            let json = format!("\"{}\"", escapes.collect::<String>());
            let mended = mended(&json);
            prop_assert_eq!(mended.len(), json.len());
            let text: String = serde_json::from_str(&mended).unwrap();
            prop_assert_eq!(text, String::from_utf16_lossy(&units));
        }

        #[test]
        fn any_bytes_keep_their_length(mut bytes in any::<Vec<u8>>()) {
            let length = bytes.len();
            mend(&mut bytes);
            prop_assert_eq!(bytes.len(), length);
        }
    }
}
