//! Rotation of the master key by the program itself, beside a running server and across `kill -9`.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::served::{Served, command};
use crate::support::DataDir;

fn keys(data_dir: &Path, arguments: &[&str]) -> Value {
    let output = command(data_dir).arg("keys").args(arguments).output().expect("the program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// How many people's keys the master keys in this state wrap.
fn wrapped(status: &Value, state: &str) -> i64 {
    let masters = status["master_keys"].as_array().expect("a list").iter();
    masters
        .filter(|key| key["state"] == state)
        .map(|key| key["subject_keys"].as_i64().unwrap())
        .sum()
}

#[tokio::test]
async fn a_rotation_survives_kill_9_beside_a_running_server() {
    let directory = DataDir::new();
    let data_dir = directory.path();
    let server = Served::start(&data_dir);
    for n in 0..40 {
        let client = server.client(&data_dir, &format!("person-{n}"));
        assert_eq!(client.me().await.expect("an answer").status, 200);
    }
    let before = keys(&data_dir, &["status", "--json"]);
    assert_eq!(wrapped(&before, "current"), 120);

    // Killed as soon as something is under the new key, which is some way into it.
    let mut rotating = command(&data_dir)
        .args(["keys", "rotate", "--batch", "1", "--json"])
        .stdout(Stdio::null())
        .spawn()
        .expect("the program");
    while wrapped(&keys(&data_dir, &["status", "--json"]), "accepted") == 0
        && rotating.try_wait().expect("asked").is_none()
    {}
    rotating.kill().expect("killed");
    rotating.wait().expect("dead");
    let halfway = keys(&data_dir, &["status", "--json"]);
    assert_eq!(wrapped(&halfway, "accepted") + wrapped(&halfway, "current"), 120);

    // The server began with the old key alone; it goes on for people old and new.
    for name in ["person-0", "person-39", "somebody-new"] {
        assert_eq!(server.client(&data_dir, name).me().await.expect("an answer").status, 200);
    }
    let rotated = keys(&data_dir, &["rotate", "--json"]);
    let left = wrapped(&halfway, "accepted");
    let done = rotated["rewrapped"].as_i64().unwrap();
    assert!(done == left || left == 0 || done == left + 2, "{rotated} after {halfway}");
    let after = keys(&data_dir, &["status", "--json"]);
    assert_eq!((wrapped(&after, "accepted"), wrapped(&after, "retired")), (0, 0));
    assert_eq!(wrapped(&after, "current"), 123);
    server.kill();

    // A cold process reads everything with what is in the file now.
    let server = Served::start(&data_dir);
    for n in 0..40 {
        let client = server.client(&data_dir, &format!("person-{n}"));
        assert_eq!(client.me().await.expect("an answer").status, 200);
    }
    server.stop();
    let lines = std::fs::read_to_string(data_dir.join("master.key")).expect("the file");
    assert_eq!(lines.lines().count(), 1);
    let retired = after["master_keys"][0]["id"].as_str().expect("an id");
    let kept = data_dir.join(format!("master.key.{retired}.retired"));

    // Killed after the store retired the old key and before the file gave it up: no third key.
    let old = std::fs::read_to_string(&kept).expect("it was kept");
    std::fs::remove_file(&kept).expect("removed");
    std::fs::write(data_dir.join("master.key"), format!("{}\n{}\n", lines.trim(), old.trim()))
        .expect("written");
    let resumed = keys(&data_dir, &["rotate", "--json"]);
    assert_eq!((&resumed["rewrapped"], &resumed["retired"][0]), (&0.into(), &retired.into()));
    assert_eq!(keys(&data_dir, &["status", "--json"])["master_keys"], after["master_keys"]);
    assert_eq!(std::fs::read_to_string(data_dir.join("master.key")).expect("the file"), lines);

    // With the old key alone, the program says what it lacks.
    let old = std::fs::read_to_string(&kept).expect("it was kept");
    let refused = command(&data_dir)
        .env("TIDEMARK_MASTER_KEY", old.trim())
        .args(["serve", "--listen", "127.0.0.1:0"])
        .output()
        .expect("the program");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("which is not at hand"), "{told}");
    assert!(!told.contains(old.trim()));
}
