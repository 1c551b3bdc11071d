//! What people do in the benches, the same for every side.

use aggregates::session::SessionCommand;
use serde_json::json;
use tidemark::ids;

/// Commands of one session; then the next begins. Short streams keep the loads of a side short
/// that folds all events of a stream.
pub const COMMANDS_PER_SESSION: usize = 10;
/// Events of one large command.
pub const BATCH: usize = 1000;

/// The nth command of a session: a start, then changes of its notes. The events are of some 250
/// bytes.
pub fn command(nth: usize) -> SessionCommand {
    if nth == 0 {
        let fields = [
            ("clientSessionId".to_owned(), json!(ids::new_id().to_string())),
            ("sessionStartTimestamp".to_owned(), json!("2026-01-02T10:00:00.000Z")),
            ("notes".to_owned(), json!("on the balcony")),
        ];
        return SessionCommand::Start { fields: fields.into() };
    }
    let note = format!(
        "{nth:06}: a little less than yesterday, and it holds longer; the headache of the morning \
         is gone, the appetite is back, and the tea helps more than I thought it would"
    );
    SessionCommand::Update {
        fields: [("notes".to_owned(), json!(note))].into(),
        last_known_updated_at_ms: None,
    }
}

/// The commands behind one large command on a new stream.
pub fn batch() -> Vec<SessionCommand> {
    (0..BATCH).map(command).collect()
}
