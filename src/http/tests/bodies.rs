//! What may be sent.

use std::io::Write;

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;

use super::*;

const UPLOAD: &str = "/api/v1/health/samples/batch-upsert";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A valid order padded with spaces to `length` bytes.
fn padded(length: usize) -> Vec<u8> {
    let mut body = br#"{"itemCount":1}"#.to_vec();
    body.resize(length, b' ');
    body
}

#[tokio::test]
async fn a_good_body_is_read_plain_and_gzipped() {
    let app = App::new();
    let body = r#"{"itemCount":2,"lines":[{"name":"tea"}]}"#;
    let plain = app.post("/orders", &[], body).await;
    assert_eq!(plain.status, 201);
    assert_eq!(plain.json()["data"], json!({ "itemCount": 2, "names": ["tea"] }));
    let zipped = gzip(body.as_bytes());
    for encoding in ["gzip", "GZIP"] {
        let answer = app.post("/orders", &[("content-encoding", encoding)], zipped.clone()).await;
        assert_eq!(answer.json()["data"], plain.json()["data"]);
    }
    let charset = [("content-type", "application/json; charset=utf-8")];
    assert_eq!(app.send(request("POST", "/orders", &charset, body.into())).await.status, 201);
}

#[tokio::test]
async fn half_an_emoji_costs_nothing_but_itself() {
    let app = App::new();
    let body = r#"{"itemCount":1,"lines":[{"name":"tea \ud83d"},{"name":"\ud83c\udf75"}]}"#;
    let answer = app.post("/orders", &[], body).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["data"]["names"], json!(["tea \u{FFFD}", "\u{1F375}"]));
}

#[tokio::test]
async fn a_broken_body_is_invalid_input() {
    let app = App::new();
    let mut cut = gzip(&padded(500));
    cut.truncate(cut.len() - 9);
    let mut corrupt = gzip(&padded(500));
    let last = corrupt.len() - 6;
    corrupt[last] ^= 1;
    let gz: &[(&str, &str)] = &[("content-encoding", "gzip")];
    for (headers, body) in [
        (&[][..], b"{".to_vec()),
        (&[], b"".to_vec()),
        (&[], b"{\"itemCount\":1} x".to_vec()),
        (&[], b"\xff\xfe".to_vec()),
        (&[], [b"[".repeat(65), b"]".repeat(65)].concat()),
        (gz, b"not gzip at all, honestly".to_vec()),
        (gz, cut),
        (gz, corrupt),
        (gz, [gzip(&padded(20)), b"trailing rubbish here".to_vec()].concat()),
    ] {
        let answer = app.post("/orders", headers, body.clone()).await;
        let found = (answer.status.as_u16(), answer.code());
        assert_eq!(found, (400, "INVALID_INPUT".to_owned()), "{body:?}");
    }
}

/// The client rejects samples for good where it must not retry.
#[tokio::test]
async fn a_fault_of_transport_may_be_retried_and_invalid_data_may_not() {
    let app = App::new();
    let mut cut = gzip(&padded(500));
    cut.truncate(cut.len() - 9);
    let gz: &[(&str, &str)] = &[("content-encoding", "gzip")];
    let broken = stream::iter([Ok(Bytes::from("{")), Err(std::io::Error::other("reset"))]);
    for (headers, body, retryable) in [
        (gz, Body::from("not gzip at all, honestly"), true),
        (gz, Body::from(cut), true),
        (&[], Body::from(r#"{"itemCount":"#), true),
        (&[], Body::from(r#"{"itemCount":1,"lines":[{"name":"te"#), true),
        (&[], Body::from_stream(broken), true),
        (&[], Body::from("{]"), false),
        (&[], Body::from(r#"{"itemCount":"two"}"#), false),
    ] {
        let answer = app.post(UPLOAD, headers, body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "VALIDATION_ERROR"));
        assert_eq!(answer.json()["error"]["retryable"], retryable, "{}", answer.json());
    }
}

#[tokio::test]
async fn another_encoding_or_type_is_415() {
    let app = App::new();
    for encoding in ["br", "deflate", "gzip, gzip", "zstd"] {
        let answer = app.post("/orders", &[("content-encoding", encoding)], padded(20)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (415, "INVALID_INPUT"));
    }
    let headers = [("content-type", "text/plain")];
    let answer = app.send(request("POST", "/orders", &headers, padded(20).into())).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (415, "INVALID_INPUT"));
}

#[tokio::test]
async fn both_limits_hold_to_the_byte_and_the_health_routes_name_them() {
    let app = App::new();
    let gz: &[(&str, &str)] = &[("content-encoding", "gzip")];
    assert_eq!(app.post(UPLOAD, &[], padded(2000)).await.status, 201);
    assert_eq!(app.post(UPLOAD, gz, gzip(&padded(4000))).await.status, 201);
    for answer in [
        app.post(UPLOAD, &[], padded(2001)).await,
        app.post(UPLOAD, gz, gzip(&padded(4001))).await,
        app.post(UPLOAD, &[("content-length", "2001")], padded(20)).await,
    ] {
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
        let error = &answer.json()["error"];
        assert_eq!((&error["retryable"], &error["retryAfterMs"]), (&json!(true), &json!(1000)));
    }
    let elsewhere = app.post("/orders", &[], padded(1024 * 1024 + 1)).await;
    assert_eq!((elsewhere.status.as_u16(), elsewhere.code().as_str()), (413, "INVALID_INPUT"));
}

#[tokio::test]
async fn a_gzip_bomb_is_refused_before_it_unfolds() {
    let app = App::new();
    // 512 MiB of zeros in half a MiB; inflating it all would take far longer than this test.
    let member = gzip(&vec![0; 64 * 1024 * 1024]);
    let bomb: Vec<u8> = member.repeat(8);
    assert!(bomb.len() < 1024 * 1024);
    let answer = app.post("/orders", &[("content-encoding", "gzip")], bomb).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "INVALID_INPUT"));
}

#[tokio::test]
async fn an_endless_body_is_cut_off_at_the_limit() {
    let app = App::new();
    let chunk = Bytes::from(vec![b' '; 64 * 1024]);
    let endless = stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
    let answer = app.post("/orders", &[], Body::from_stream(endless)).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_body_that_never_arrives_is_408() {
    let app = App::hasty();
    let silent = stream::pending::<Result<Bytes, std::io::Error>>();
    let answer = app.post("/orders", &[], Body::from_stream(silent)).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (408, "REQUEST_TIMEOUT"));
    let silent = stream::pending::<Result<Bytes, std::io::Error>>();
    let answer = app.post(UPLOAD, &[], Body::from_stream(silent)).await;
    assert_eq!(answer.code(), "TIMEOUT");
    assert_eq!(answer.json()["error"]["retryable"], true);
}

#[tokio::test]
async fn a_body_of_another_shape_names_the_place() {
    let app = App::new();
    for (body, field) in [
        ("{}", "/itemCount"),
        ("7", ""),
        (r#"{"itemCount":"two"}"#, "/itemCount"),
        (r#"{"itemCount":-1, "lines":[]}"#, "/itemCount"),
        ("{\"lines\":[{\"name\":\"a\"},\n  {\"name\":7}],\"itemCount\":1}", "/lines/1/name"),
        (r#"{"itemCount":1,"lines":[{"name":"a"},{}]}"#, "/lines/1/name"),
        (r#"{"x\"}":[{}],"itemCount":1,"lines":{"a":1}}"#, "/lines"),
    ] {
        let answer = app.post("/orders", &[], body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "VALIDATION_ERROR"));
        assert_eq!(answer.json()["error"]["details"][0]["field"], field, "{body}");
    }
    let secret = r#"{"itemCount":"blood pressure 180"}"#;
    let answer = app.post("/orders", &[], secret).await;
    assert_eq!(answer.json()["error"]["details"][0]["message"], "must be a whole number in range");
    assert!(!answer.json().to_string().contains("180"));
    let upload = app.post(UPLOAD, &[], "{}").await;
    assert_eq!(upload.code(), "VALIDATION_ERROR");
    assert_eq!(upload.json()["error"]["retryable"], false);
}

#[tokio::test]
async fn bad_parameters_name_themselves() {
    let app = App::new();
    for (path, field) in
        [("/orders/seven", "id"), ("/pages", "limit"), ("/pages?limit=many", "limit")]
    {
        let answer = app.get(path, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "VALIDATION_ERROR"));
        let details = &answer.json()["error"]["details"][0];
        assert_eq!(details["field"], field, "{path}: {details}");
        let text = answer.json().to_string();
        assert!(!text.contains("seven") && !text.contains("many"), "quotes the caller: {text}");
    }
    assert_eq!(app.get("/pages?limit=5", &[]).await.json()["data"], 5);
}
