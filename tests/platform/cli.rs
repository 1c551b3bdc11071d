//! The program as an operator runs it: one data directory, no server, command after command.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::DataDir;

/// The program on a data directory of its own. Nobody listens on its address.
struct Operator {
    directory: DataDir,
}

impl Operator {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.env_remove("DATABASE_URL").env_remove("TIDEMARK_TOKEN").env_remove("TIDEMARK_JWKS");
        command.arg("--data-dir").arg(self.directory.path());
        command.args(["--listen", "127.0.0.1:9", "--log", "error"]).args(arguments);
        command.output().expect("the program")
    }

    /// The lines of JSON that a command prints, after it ended as it should.
    fn json(&self, code: i32, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    }
}

#[test]
fn an_operator_imports_looks_and_verifies() {
    let operator = Operator { directory: DataDir::new() };
    let export = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/apple-health");
    let export = export.join("export.xml");
    let import = ["import", "apple-health", export.to_str().unwrap(), "--user", "ada", "--json"];
    let first = operator.json(0, &import);
    assert!(first[0]["accepted"].as_u64() > Some(500), "{}", first[0]);
    assert_eq!(first[0]["accepted"], first[0]["read"]["samples"]);
    let position = |status: &Value| status["log"]["position"].as_i64().unwrap();
    let before = position(&operator.json(0, &["status", "--json"])[0]);
    assert_eq!(operator.json(0, &import)[0]["accepted"], first[0]["accepted"]);

    let product = &operator.json(0, &["catalogue", "define", "--set", "name=Blend", "--json"])[0];
    assert_eq!(product["fields"]["name"], "Blend");
    let status = &operator.json(0, &["status", "--json"])[0];
    assert_eq!(position(status), before + 1, "the second import changed nothing");
    assert_eq!(
        (&status["server"]["running"], &status["keys"]["reachable"]),
        (&false.into(), &true.into())
    );

    let tail = operator.json(0, &["log", "tail", "--json", "--type", "health_batch.applied"]);
    assert!(!tail.is_empty() && tail.iter().all(|event| event.get("payload").is_none()));
    let at = tail[0]["position"].to_string();
    let shown = operator.json(0, &["log", "show", &at, "--json", "--reveal", "--reason", "a test"]);
    assert!(shown[0]["payload"]["counts"]["recorded"].as_u64() > Some(0));
    assert_eq!((&tail[0]["content"], &shown[0]["content"]), (&"sealed".into(), &"open".into()));
    let field = |name: &str| tail[0][name].as_str().unwrap().to_owned();
    let stream = format!("{}/{}", field("stream_type"), field("stream_id"));
    let of_stream = operator.json(0, &["log", "stream", &stream, "--json"]);
    assert_eq!(of_stream[0]["stream_id"], tail[0]["stream_id"]);
    operator.refused(1, &["log", "stream", "session"]);
    let projectors = &operator.json(0, &["projectors", "list", "--json"])[0]["projectors"];
    assert!(projectors[0]["compute_version"].is_i64() && projectors[0]["lag"].is_i64());
    let access = operator.json(0, &["log", "tail", "--json", "--stream-type", "access"]);
    assert_eq!(access.len(), 1);
    assert_eq!(access[0]["user_id"], tail[0]["user_id"]);

    let verified = &operator.json(0, &["verify", "all", "--json"])[0];
    assert_eq!(verified["ok"], true, "{verified}");
    let replay = |as_of: &str, into: &str| {
        let arguments = ["replay", "--as-of", as_of, "--into", into, "--json"];
        operator.json(0, &arguments).remove(0)
    };
    let head = position(status);
    let now = replay(&head.to_string(), "now");
    let rollup = |of: &Value| {
        let models = of["models"].as_array().unwrap().iter();
        models.clone().find(|one| one["model"] == "health-rollup").unwrap()["rows"].clone()
    };
    assert!(rollup(&now).as_u64() > Some(0), "{now}");
    let committed_at = now["committed_at"].as_str().unwrap();
    assert_eq!(replay(committed_at, "then")["position"], head, "the time of the head is the head");
    assert_eq!(rollup(&replay("1", "early")), 0);
    let ahead = (head + 100).to_string();
    let wrong =
        [("1", "now"), ("1", "live"), ("1", "P"), (&*ahead, "x"), ("2999-01-01T00:00:00Z", "x")];
    for (as_of, into) in wrong {
        operator.refused(1, &["replay", "--as-of", as_of, "--into", into]);
    }

    let healthy = &operator.json(0, &["doctor", "--json"])[0];
    assert_eq!(healthy["ok"], true, "{healthy}");

    assert!(operator.refused(1, &["log", "show", "99999"]).starts_with("tidemark: "));
    assert!(operator.refused(1, &["catalogue", "define", "{}"]).contains("name"));
    operator.refused(2, &["log", "show", "1", "--reveal"]);
    let no_export = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    for file in ["no-such-file", env!("CARGO_MANIFEST_DIR"), no_export.to_str().unwrap()] {
        let error = operator.refused(1, &["import", "apple-health", file, "--user", "ada"]);
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    for wrong in [["--sub", "", "--ttl", "5"], ["--sub", "ada", "--ttl", "0"]] {
        operator.refused(2, &[&["token"][..], &wrong].concat());
    }
    operator.refused(2, &["token", "--sub", "ada", "--ttl", "43201"]);
}
