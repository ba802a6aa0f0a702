//! Boot images, whole and broken.

use bytes::Bytes;
use serde_json::{Value, json};

use super::config::{ImageDefect, ImageSpec};
use super::ims::{Image, Link};
use super::world::World;

const KERNEL: &str = "application/vnd.cray.image.kernel";
const INITRD: &str = "application/vnd.cray.image.initrd";
const ROOTFS: &str = "application/vnd.cray.image.rootfs.squashfs";
const PARAMETERS: &str = "application/vnd.cray.image.parameters.boot";
/// One more than the largest manifest that is read.
const HUGE: usize = 1024 * 1024 + 1;

impl World {
    /// Puts an image with all its objects into the store and a record into IMS. Returns the path
    /// and the etag of the manifest.
    pub(crate) fn add_image(&mut self, spec: &ImageSpec) -> (String, String) {
        let artifacts = self.put_artifacts(spec);
        let path = format!("s3://{}/{}/manifest.json", spec.bucket, spec.id);
        let etag = match manifest(spec, artifacts) {
            Some(body) => self.s3.put(&spec.bucket, &format!("{}/manifest.json", spec.id), body),
            None => String::new(),
        };
        if spec.defect != Some(ImageDefect::NoImsRecord) {
            let link = (spec.defect != Some(ImageDefect::NoManifest)).then(|| Link { path: path.clone(), etag: etag.clone(), kind: "s3" });
            let image = Image {
                id: spec.id.clone(),
                name: spec.name.clone(),
                created: super::stamp(jiff::Timestamp::now()),
                arch: spec.arch.clone(),
                metadata: Default::default(),
                link,
            };
            self.ims.images.insert(spec.id.clone(), image);
        }
        (path, etag)
    }

    fn put_artifacts(&mut self, spec: &ImageSpec) -> Vec<Value> {
        use ImageDefect as D;
        self.s3.make_bucket(&spec.bucket);
        let mut list = Vec::new();
        let defect = spec.defect;
        let mut add = |name: &str, kind: &str, body: Bytes, stored: bool| {
            let key = format!("{}/{name}", spec.id);
            let etag = self.s3.put(&spec.bucket, &key, body);
            if !stored {
                self.s3.remove(&spec.bucket, &key);
            }
            list.push(
                json!({"link": {"path": format!("s3://{}/{key}", spec.bucket), "etag": etag, "type": "s3"}, "md5": etag, "type": kind}),
            );
        };
        let content = |what: &str| Bytes::from(format!("{what} of {}\n", spec.id));
        if defect != Some(D::NoKernel) {
            add("kernel", KERNEL, content("kernel"), defect != Some(D::MissingKernelObject));
        }
        if defect == Some(D::DuplicateKernel) {
            add("kernel2", KERNEL, content("other kernel"), true);
        }
        if defect != Some(D::NoInitrd) {
            add("initrd", INITRD, content("initrd"), defect != Some(D::MissingInitrdObject));
        }
        if defect != Some(D::NoRootfs) {
            add("rootfs", ROOTFS, content("rootfs"), true);
        }
        if defect == Some(D::BadBootParameters) {
            add("boot_parameters", PARAMETERS, Bytes::from_static(b"console=\xff\xfe"), true);
        } else if let Some(text) = &spec.boot_parameters {
            add("boot_parameters", PARAMETERS, Bytes::from(text.clone()), true);
        }
        list
    }

    /// The `s3://` paths of kernel and initrd of an image in the store.
    pub(crate) fn image_paths(&self, id: &str) -> (String, String) {
        let base = self.ims.images.get(id).and_then(|i| i.link.as_ref()).map(|l| l.path.trim_end_matches("/manifest.json").to_owned());
        let base = base.unwrap_or_else(|| format!("s3://boot-images/{id}"));
        (format!("{base}/kernel"), format!("{base}/initrd"))
    }
}

fn manifest(spec: &ImageSpec, artifacts: Vec<Value>) -> Option<Bytes> {
    let whole = json!({"version": "1.0", "created": "2026-11-22 11:00:00", "artifacts": artifacts}).to_string();
    Some(match spec.defect {
        Some(ImageDefect::NoManifest) => return None,
        Some(ImageDefect::BadJson) => Bytes::from(whole[..whole.len() / 2].to_owned()),
        Some(ImageDefect::WrongShape) => Bytes::from_static(b"{\"version\":\"1.0\",\"artifacts\":{\"kernel\":\"none\"}}"),
        Some(ImageDefect::HugeManifest) => Bytes::from(format!("{}{}", whole, " ".repeat(HUGE))),
        _ => Bytes::from(whole),
    })
}
