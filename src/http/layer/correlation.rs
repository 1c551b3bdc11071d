//! Choosing the id a request is known by.

use axum::http::HeaderMap;
use uuid::Uuid;

use crate::http::context::Correlation;

/// Headers that may bring an id, most telling first.
const HEADERS: [&str; 5] =
    ["x-correlation-id", "x-request-id", "x-trace-id", "x-b3-traceid", "traceparent"];
const MAX_LENGTH: usize = 128;
/// Namespace of the UUIDs derived from ids that are none.
const NAMESPACE: Uuid = Uuid::from_u128(0x5d3c_64a1_0f9e_4b57_9a86_1c1f_7a20_e4d3);

/// The first usable id among the headers, or a new one. An id with other characters than
/// `A–Z a–z 0–9 - _ . :` is passed over: it would be echoed in headers and written to logs.
pub(super) fn of(headers: &HeaderMap) -> Correlation {
    let mut sent = HEADERS.iter().filter_map(|name| {
        let value = headers.get(*name)?.to_str().ok()?.trim();
        if *name == "traceparent" { trace_id(value) } else { is_safe(value).then_some(value) }
    });
    match sent.next() {
        Some(text) => {
            let id =
                Uuid::try_parse(text).unwrap_or_else(|_| Uuid::new_v5(&NAMESPACE, text.as_bytes()));
            Correlation { text: text.to_owned(), id }
        }
        None => {
            let id = new_id();
            Correlation { text: id.to_string(), id }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "names a request, not anything in the domain")]
fn new_id() -> Uuid {
    Uuid::new_v4()
}

fn is_safe(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

/// The trace id of a W3C `traceparent`: `version-traceid-parentid-flags`.
fn trace_id(value: &str) -> Option<&str> {
    let id = value.split('-').nth(1)?;
    let hex = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hex && id.bytes().any(|byte| byte != b'0')).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(headers: &[(&'static str, &str)]) -> String {
        let pairs = headers.iter().map(|(name, value)| {
            (axum::http::HeaderName::from_static(name), value.parse().unwrap())
        });
        of(&pairs.collect()).text
    }

    #[test]
    fn the_most_telling_header_wins() {
        assert_eq!(text(&[("x-request-id", "r"), ("x-correlation-id", "c")]), "c");
        assert_eq!(text(&[("x-trace-id", "t"), ("x-request-id", "r")]), "r");
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(text(&[("traceparent", parent)]), "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn unsafe_ids_are_passed_over() {
        assert_eq!(text(&[("x-correlation-id", "a b<script>"), ("x-request-id", "r")]), "r");
        assert!(Uuid::try_parse(&text(&[("x-correlation-id", &"x".repeat(129))])).is_ok());
        assert!(Uuid::try_parse(&text(&[("traceparent", "00-zz-1-01")])).is_ok());
    }

    #[test]
    fn an_id_that_is_no_uuid_always_gives_the_same_one() {
        let headers: HeaderMap =
            [(axum::http::HeaderName::from_static("x-request-id"), "upload-7".parse().unwrap())]
                .into_iter()
                .collect();
        assert_eq!(of(&headers).id, of(&headers).id);
        assert_eq!(of(&headers).id.get_version_num(), 5);
    }
}
