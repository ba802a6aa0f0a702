//! IMS, the Image Management Service: facts about boot images.

use async_trait::async_trait;

use crate::error::ServiceError;

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `x86_64` or `aarch64`, in lower case.
    pub arch: String,
    /// The name for people; may be empty.
    pub name: String,
}

/// Boot images.
#[async_trait]
pub trait Images: Send + Sync {
    /// The image of this id; `None` when IMS does not have it.
    ///
    /// # Errors
    /// When IMS cannot be asked.
    async fn image(&self, id: &str) -> Result<Option<Image>, ServiceError>;

    /// Marks the image for projection by SBPS, the Scalable Boot Projection Service. Doing it twice does no harm.
    ///
    /// # Errors
    /// When IMS cannot be asked or refuses; an unknown image is `Rejected(404)`.
    async fn tag_sbps(&self, id: &str) -> Result<(), ServiceError>;
}
