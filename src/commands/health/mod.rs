//! Health data on its way in and out: uploads, and pages of what is stored.

pub mod samples;
pub mod upload;

pub(super) mod facts;

pub use samples::{SampleRange, SamplesPage, page};
pub use upload::{Upload, UploadError, Uploaded, upload};
