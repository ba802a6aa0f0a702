//! IMS, the Image Management Service: facts about boot images.

use async_trait::async_trait;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::answer::{Malformed, json, optional_text, or_default};
use crate::error::ServiceError;
use crate::http::Transport;

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

/// [`Images`] by IMS v3.
pub struct ImsClient {
    http: Transport,
}

impl ImsClient {
    pub(crate) const fn new(http: Transport) -> Self {
        Self { http }
    }

    fn check(&self, call: &'static str, id: &str) -> Result<(), ServiceError> {
        // The id is a part of an S3 path that somebody wrote; it must not turn into another path here.
        let fits = (1..=128).contains(&id.len()) && !matches!(id, "." | "..");
        if fits { Ok(()) } else { Err(ServiceError::refused(self.http.service(), call, format!("{id:?} cannot be the id of an image"))) }
    }
}

#[async_trait]
impl Images for ImsClient {
    async fn image(&self, id: &str) -> Result<Option<Image>, ServiceError> {
        const CALL: &str = "get image";
        self.check(CALL, id)?;
        self.http.read(CALL, Method::GET, &["images", id]).answer(|answer| answer.parse_or_unknown(parse_image)).await
    }

    async fn tag_sbps(&self, id: &str) -> Result<(), ServiceError> {
        const CALL: &str = "patch image";
        self.check(CALL, id)?;
        let body = TagOrder { metadata: Tag { operation: "set", key: "sbps-project", value: "true" } };
        self.http.write(CALL, Method::PATCH, &["images", id]).json(&body).parsed(|body| parse_image(body).map(|_| ())).await
    }
}

#[derive(Serialize)]
struct TagOrder {
    metadata: Tag,
}

#[derive(Serialize)]
struct Tag {
    operation: &'static str,
    key: &'static str,
    value: &'static str,
}

#[derive(Deserialize)]
struct ImageWire {
    // Read so that an answer about something else is noticed.
    #[serde(rename = "id")]
    _id: String,
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "optional_text")]
    arch: Option<String>,
}

fn parse_image(body: &[u8]) -> Result<Image, Malformed> {
    let wire: ImageWire = json(body)?;
    // Records of the time before IMS knew architectures have none; IMS itself takes x86_64 for them.
    let arch = wire.arch.map_or_else(|| "x86_64".to_owned(), |arch| arch.to_ascii_lowercase());
    Ok(Image { arch, name: wire.name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_image() {
        let image = parse_image(
            br#"{"id":"0b1c","name":"img","created":"2026-11-22","arch":"aarch64","metadata":{},
                 "link":{"path":"s3://boot-images/0b1c/manifest.json","etag":"e","type":"s3"}}"#,
        );
        assert_eq!(image.unwrap(), Image { arch: "aarch64".to_owned(), name: "img".to_owned() });
        let bare = parse_image(br#"{"id":"0b1c","name":null,"arch":null,"link":null}"#).unwrap();
        assert_eq!(bare, Image { arch: "x86_64".to_owned(), name: String::new() });
        for body in [&b""[..], b"[]", b"{}", b"<html>"] {
            assert!(parse_image(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }
}
