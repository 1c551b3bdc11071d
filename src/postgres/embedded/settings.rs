//! The server's settings, written to `postgresql.conf` at every start.
//!
//! `ALTER SYSTEM` still works for an operator who tunes: it lives in a file that is read later.

use std::path::Path;

/// What differs from Postgres's own defaults, and why.
const SETTINGS: [(&str, &str); 21] = [
    // Only the socket in our own directory; nothing on the network.
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    // An answered commit survives a power cut.
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    // Small when idle, since it shares the machine with the server.
    ("shared_buffers", "128MB"),
    ("max_connections", "60"),
    // Fewer full-page images under a steady stream of appends.
    ("max_wal_size", "2GB"),
    ("random_page_cost", "1.1"),
    // Statements are short; compiling them costs more than it saves.
    ("jit", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("datestyle", "iso, ymd"),
    ("lc_messages", "C"),
    // The server's log never holds statements, parameters or key values.
    ("log_min_messages", "warning"),
    ("log_min_error_statement", "panic"),
    ("log_error_verbosity", "terse"),
    ("log_parameter_max_length", "0"),
    ("log_checkpoints", "off"),
    ("log_autovacuum_min_duration", "-1"),
    ("log_line_prefix", "%m [%p] "),
];

/// Better values that not every build of Postgres takes; without one its own default stands.
pub const IF_SUPPORTED: [(&str, &str, Option<&str>); 2] = [
    ("wal_compression", "lz4", Some("on")),
    // After a crash everything must be on disk before recovery begins. One call a file system does
    // that in a tenth of the time that one call a file takes, and people wait for it.
    ("recovery_init_sync_method", "syncfs", None),
];

/// The text of `postgresql.conf`; a later line wins over an earlier one.
pub fn render(socket_dir: &Path, supported: &[(&str, &str)], extra: &[(String, String)]) -> String {
    let socket_dir = socket_dir.to_string_lossy();
    let computed = [("unix_socket_directories", socket_dir.as_ref())];
    let computed = computed.into_iter().chain(supported.iter().copied());
    let extra = extra.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut text =
        String::from("# Written by Tidemark at every start. Use ALTER SYSTEM for changes.\n");
    for (name, value) in SETTINGS.into_iter().chain(computed).chain(extra) {
        text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_and_extras_come_last() {
        let extra = [("fsync".to_owned(), "off".to_owned())];
        let text = render(Path::new("/o'brien"), &[("wal_compression", "lz4")], &extra);
        assert!(text.contains("unix_socket_directories = '/o''brien'\n"), "{text}");
        assert!(text.rfind("fsync = 'off'") > text.find("fsync = 'on'"), "{text}");
    }
}
