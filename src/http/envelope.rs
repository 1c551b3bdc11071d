//! The shape of every success.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{context, time};

/// `{"success":true,"data":…,"metadata":…}`.
///
/// Handlers return it; the metadata is filled in from the request being answered.
#[derive(Debug, Serialize, ToSchema)]
pub struct Envelope<T> {
    /// Always `true`.
    success: bool,
    data: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pagination: Option<Pagination>,
    metadata: Metadata,
    #[serde(skip)]
    #[schema(ignore)]
    status: u16,
}

/// Where a page lies among all pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pagination {
    /// Number of items over all pages.
    pub total: u64,
    /// 1 for the first page.
    pub page: u64,
    pub page_size: u64,
    pub has_more: bool,
    pub total_pages: u64,
    /// Where the next page begins, for lists that can be read on from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl Pagination {
    /// The page `page` (from 1) of `page_size` items out of `total`.
    pub fn new(total: u64, page: u64, page_size: u64) -> Self {
        let total_pages = if page_size == 0 { 0 } else { total.div_ceil(page_size) };
        let has_more = page < total_pages;
        Self { total, page, page_size, has_more, total_pages, next_cursor: None }
    }

    /// Says where the next page begins; none on the last one.
    #[must_use]
    pub fn with_next_cursor(mut self, next_cursor: Option<String>) -> Self {
        self.has_more = next_cursor.is_some();
        self.next_cursor = next_cursor;
        self
    }
}

/// When and for which request an answer was made.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// RFC 3339 in UTC with milliseconds.
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// The same id under the name that the read routes use.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
}

impl<T> Envelope<T> {
    /// An answer with status 200.
    pub fn new(data: T) -> Self {
        Self {
            success: true,
            data,
            message: None,
            pagination: None,
            metadata: Metadata::default(),
            status: 200,
        }
    }

    /// An answer with status 201.
    pub fn created(data: T) -> Self {
        Self::new(data).with_status(StatusCode::CREATED)
    }

    /// An answer with another status of success.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status.as_u16();
        self
    }

    /// Adds a sentence for people.
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Names the request by the id its body carries, where clients match answers by that.
    pub fn with_request_id(mut self, id: impl std::fmt::Display) -> Self {
        self.metadata.request_id = Some(id.to_string());
        self
    }

    /// Says which page this is.
    pub fn with_pagination(mut self, pagination: Pagination) -> Self {
        self.pagination = Some(pagination);
        self
    }
}

impl<T: Serialize> IntoResponse for Envelope<T> {
    fn into_response(mut self) -> Response {
        let id = context::request_id();
        let request_id = self.metadata.request_id.take().or_else(|| id.clone());
        self.metadata = Metadata { timestamp: time::now_iso(), request_id, correlation_id: id };
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        (status, axum::Json(self)).into_response()
    }
}
