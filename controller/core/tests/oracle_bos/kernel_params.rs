//! Manifests and kernel parameters.

use std::collections::BTreeMap;

use bos_core::kernel_parameters::{Inputs, build};
use bos_core::manifest::{Manifest, S3Path};
use serde_json::Value;

use crate::support::{Rule, Tally, lines, read};

/// The recorded objects by bucket/key.
struct Images(BTreeMap<String, Vec<u8>>);

impl Images {
    fn read() -> Self {
        let recorded: Value = serde_json::from_str(&read("images.json")).unwrap();
        let mut objects: BTreeMap<String, Vec<u8>> =
            recorded.as_object().unwrap().iter().map(|(key, value)| (key.clone(), bytes(value))).collect();
        // Of long objects only the beginning is recorded. One is blank, the other lists what img-p lists and is padded.
        let mut padded = objects["boot-images/img-p/manifest.json"].clone();
        padded.resize(length(&recorded, "img-justfits"), b' ');
        assert!(padded.starts_with(&objects["boot-images/img-justfits/manifest.json"]));
        objects.insert("boot-images/img-justfits/manifest.json".into(), padded);
        objects.insert("boot-images/img-big/manifest.json".into(), vec![b' '; length(&recorded, "img-big")]);
        Self(objects)
    }

    fn get(&self, path: &str) -> Result<&[u8], String> {
        let path = S3Path::parse(path).map_err(|error| error.to_string())?;
        self.0.get(&format!("{}/{}", path.bucket, path.key)).map(Vec::as_slice).ok_or_else(|| format!("{path} does not exist"))
    }
}

fn length(recorded: &Value, image: &str) -> usize {
    recorded[format!("boot-images/{image}/manifest.json")]["bytes"].as_u64().unwrap().try_into().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        other => {
            let hex = other["hex"].as_str().unwrap();
            (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
        }
    }
}

/// Kernel, initrd and parameters as a Session would use them.
fn ours(case: &Value, images: &Images) -> Result<[String; 3], String> {
    let set = &case["boot_set"];
    let text = |key: &str| set[key].as_str();
    let manifest = Manifest::parse(images.get(text("path").unwrap())?).map_err(|error| error.to_string())?;
    let object = manifest.boot_parameters.as_ref().map(|link| images.get(&link.path)).transpose()?;
    let image_parameters = object.map(std::str::from_utf8).transpose().map_err(|error| error.to_string())?;
    let built = build(&Inputs {
        manifest: &manifest,
        image_parameters,
        boot_set_parameters: text("kernel_parameters"),
        rootfs_provider: text("rootfs_provider"),
        rootfs_provider_passthrough: text("rootfs_provider_passthrough"),
        update_frequency: case["options"]["component_actual_state_ttl"].as_str().unwrap_or("4h"),
    })
    .map_err(|error| error.to_string())?;
    Ok([manifest.kernel.path.clone(), manifest.initrd.path.clone(), built.text])
}

fn recorded(direct: &Value) -> Option<[String; 3]> {
    let text = |key: &str| direct[key].as_str().map(str::to_owned);
    Some([text("kernel")?, text("initrd")?, text("kernel_parameters")?])
}

fn rule(case: &Value) -> Option<Rule> {
    let set = &case["boot_set"];
    if set.get("rootfs_provider") == Some(&Value::Null) {
        return Some(Rule::NullProviderIsAbsent);
    }
    if set["rootfs_provider"] == "cpss3" {
        return Some(Rule::Cpss3Supported);
    }
    let broken = |key: &str| set[key].as_str().is_some_and(|text| text.contains(char::is_control));
    (broken("kernel_parameters") || broken("rootfs_provider_passthrough")).then_some(Rule::LineBreaksBecomeBlanks)
}

#[test]
fn kernel_parameters_agree_with_bos_or_deviate_by_rule() {
    let images = Images::read();
    let mut tally = Tally::default();
    let mut refused = 0;
    for case in lines("kernel-params.jsonl") {
        // A line without a result records that an option was refused.
        let Some(direct) = case.get("direct") else { continue };
        let ours = ours(&case, &images);
        match (&ours, recorded(direct)) {
            (Ok(ours), Some(bos)) if *ours == bos => tally.agreed += 1,
            (Err(_), None) => {
                tally.agreed += 1;
                refused += 1;
            }
            (_, bos) => match rule(&case) {
                Some(rule) => tally.deviates([rule]),
                None => tally.unexplained(format!("line {}: ours {ours:?}, BOS {bos:?}", case["id"])),
            },
        }
    }
    println!("of these {refused} are refused by both");
    tally.check("kernel parameters", 141, &[(Rule::NullProviderIsAbsent, 1)]);
}
