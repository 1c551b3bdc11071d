//! A session's fields as clients see them.

use serde_json::Value;

use super::state::Session;
use crate::entity::Fields;
use crate::entity::time::format_instant;

impl Session {
    /// The declared fields with the derived values in place. The end of an open session is its
    /// idle deadline, of one that is over the time it ended.
    pub fn visible_fields(&self) -> Fields {
        let derived = self.derived();
        let mut fields = self.entity.fields.clone();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        put("eventCount", derived.event_count.into());
        put("totalDurationMs", derived.total_duration_ms.into());
        put("avgEventDurationMs", derived.avg_event_duration_ms.into());
        put("sessionStartTimestamp", format_instant(derived.start_ms).into());
        put("sessionEndTimestamp", format_instant(self.end_ms()).into());
        if let Some(product) = derived.primary_product_id {
            put("primaryProductId", product.into());
        }
        fields
    }
}
