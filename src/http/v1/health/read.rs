//! What the health read models share: waiting for a watermark, and refusing parameters.

use std::time::Duration;

use aggregates::UserId;
use chrono::NaiveDate;
use tokio::time::Instant;

use crate::app::App;
use crate::http::error::{ApiError, FieldError, code};
use crate::projector::{StateReader, progress};
use crate::read_models::ReadModel;

/// Longest wait for a watermark, in ms.
const MAX_WAIT_MS: u64 = 2_000;

/// Waits until the read models have folded `min_watermark`, at most `wait_ms`. A watermark that
/// the person has not reached is not waited for.
///
/// # Errors
/// 400 where one of the two is not valid.
pub async fn wait(
    app: &App,
    user: UserId,
    models: &[ReadModel],
    min_watermark: Option<&str>,
    wait_ms: Option<u64>,
) -> Result<(), ApiError> {
    let wait_ms = wait_ms.unwrap_or(0);
    if wait_ms > MAX_WAIT_MS {
        return Err(refused("waitMs", "must be from 0 to 2000"));
    }
    let Some(text) = min_watermark else { return Ok(()) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wanted = text.parse::<i64>().ok().filter(|_| digits);
    let wanted = wanted.ok_or_else(|| refused("minWatermark", "must be a decimal number"))?;
    let head = app.source().user_head(user).await?;
    if wait_ms == 0 || head.health_seq < wanted {
        return Ok(());
    }
    let deadline = Instant::now() + Duration::from_millis(wait_ms);
    for model in models {
        let heard = head.heard(model.spec().hears);
        progress::wait_until(&app.read_pool, *model, user, heard, deadline).await?;
    }
    Ok(())
}

/// The refusal of a parameter.
pub fn refused(field: &str, message: &str) -> ApiError {
    ApiError::new(code::QUERY_VALIDATION_ERROR).with_field_errors(vec![FieldError {
        field: field.to_owned(),
        message: message.to_owned(),
    }])
}

/// A local date as `YYYY-MM-DD`.
///
/// # Errors
/// 400 for anything else.
pub fn date(field: &str, text: &str) -> Result<NaiveDate, ApiError> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| text.len() == 10);
    date.ok_or_else(|| refused(field, "must be a date as YYYY-MM-DD"))
}
