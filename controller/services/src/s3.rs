//! S3, the object store: manifests and boot artifacts.

use async_trait::async_trait;
use bytes::Bytes;

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The whole content.
    pub bytes: Bytes,
    /// The etag without quotes.
    pub etag: String,
}

/// What S3 says about an object without sending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// The etag without quotes.
    pub etag: String,
    /// The size in bytes, where S3 says it.
    pub size: Option<u64>,
}

/// Why an object could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum S3ErrorKind {
    /// No such object or no such bucket.
    NotFound,
    /// The object is larger than what was allowed.
    TooLarge,
    /// S3 does not let us see this object.
    AccessDenied,
    /// The name cannot be the name of an object; nothing was sent.
    InvalidName,
    /// S3 cannot be asked now, our keys do not work, or the answer is not one of S3.
    Unavailable,
}

/// A failed read from S3.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("S3 {call} s3://{bucket}/{key}: {detail}")]
pub struct S3Error {
    /// `get object` or `head object`.
    pub call: &'static str,
    /// The bucket asked for.
    pub bucket: String,
    /// The key asked for.
    pub key: String,
    /// The kind of failure.
    pub kind: S3ErrorKind,
    /// What S3 answered or what the network said, for people; bounded, one line.
    pub detail: String,
}

impl S3Error {
    /// Whether waiting may help. The other kinds are facts about the object.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self.kind {
            S3ErrorKind::Unavailable => true,
            S3ErrorKind::NotFound | S3ErrorKind::TooLarge | S3ErrorKind::AccessDenied | S3ErrorKind::InvalidName => false,
        }
    }
}

/// Objects by bucket and key.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// The whole object, if it has at most `max_bytes`.
    ///
    /// # Errors
    /// See [`S3ErrorKind`].
    async fn get(&self, bucket: &str, key: &str, max_bytes: usize) -> Result<Object, S3Error>;

    /// Whether the object is there, with its etag.
    ///
    /// # Errors
    /// See [`S3ErrorKind`].
    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectHead, S3Error>;
}
