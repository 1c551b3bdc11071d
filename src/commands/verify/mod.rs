//! Is what is kept beside the log still what the log says?
//!
//! Rows, states and marks that commands read are written together with the events they follow
//! from. These checks fold the events anew and name every difference. A finding holds ids and
//! types, never what a person recorded.

pub mod samples;
pub mod streams;

pub use samples::verify_segments;
pub use streams::verify_streams;

use aggregates::{Recorded, UserId};

use crate::store::{Filter, ReadError, Store};

/// Events of one page.
const PAGE: i64 = 500;

/// Calls `fold` with every event of a person and the given types up to `upto`, in order.
async fn each_event(
    store: &Store,
    user: UserId,
    aggregate_types: &[&str],
    upto: i64,
    mut fold: impl FnMut(Recorded),
) -> Result<(), ReadError> {
    let filter = Filter {
        user: Some(user),
        aggregate_types: aggregate_types.iter().map(|&name| name.to_owned()).collect(),
        ..Filter::default()
    };
    let mut after = 0;
    loop {
        let page = store.page(after, upto, PAGE, &filter).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.position;
        page.into_iter().for_each(&mut fold);
    }
}
