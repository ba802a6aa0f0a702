//! The boot script service: boot parameters by host, referral tokens, boot scripts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::Value;

use super::core::Core;
use super::world::World;

/// What is stored for one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct BootData {
    pub(crate) params: String,
    pub(crate) kernel: String,
    pub(crate) initrd: String,
    pub(crate) cloud_init: Option<Value>,
    pub(crate) token: String,
}

/// What the service has stored.
#[derive(Debug, Default)]
pub(crate) struct Bss {
    pub(crate) hosts: BTreeMap<String, BootData>,
    /// Parameters of images: by kernel, by initrd.
    pub(crate) kernels: BTreeMap<String, String>,
    pub(crate) initrds: BTreeMap<String, String>,
}

impl Bss {
    pub(crate) fn seed(&mut self, host: &str, token: &str, kernel: &str, initrd: &str, params: &str) {
        let data = BootData { params: params.into(), kernel: kernel.into(), initrd: initrd.into(), cloud_init: None, token: token.into() };
        self.hosts.insert(host.to_owned(), data);
    }
}

/// A boot script as the firmware of a node understands it.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) kernel_url: String,
    pub(crate) initrd_url: String,
    pub(crate) params: String,
}

impl Script {
    /// Reads the kernel and initrd lines.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let line = |start: &str| text.lines().find_map(|l| l.strip_prefix(start)).map(|l| l.split(" || ").next().unwrap_or(l).trim());
        let kernel = line("kernel --name kernel ").ok_or("the boot script names no kernel")?;
        let initrd_url = line("initrd --name initrd ").ok_or("the boot script names no initrd")?;
        let (kernel_url, params) = kernel.split_once(' ').unwrap_or((kernel, ""));
        Ok(Self { kernel_url: kernel_url.to_owned(), initrd_url: initrd_url.to_owned(), params: params.to_owned() })
    }

    /// The value of `key=` on the command line.
    pub(crate) fn word(&self, key: &str) -> Option<String> {
        self.params.split_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
    }

    /// The kernel as an `s3://` path, from its signed URL.
    pub(crate) fn kernel_path(&self) -> String {
        let bare = self.kernel_url.split('?').next().unwrap_or_default();
        match bare.split_once("://").and_then(|(_, rest)| rest.split_once('/')) {
            Some((_, path)) => format!("s3://{path}"),
            None => bare.to_owned(),
        }
    }
}

/// Takes the first word that contains `initrd` out of the parameters, as the real service does,
/// whatever the word was meant for.
fn without_initrd(params: &str) -> String {
    match params.find("initrd") {
        None => params.to_owned(),
        Some(at) => {
            let end = params[at..].find(' ').map_or(params.len(), |n| at + n + 1);
            format!("{}{}", &params[..at], &params[end..])
        }
    }
}

impl World {
    /// Writes the boot script of a node from what is stored at this moment.
    pub(crate) fn boot_script(&mut self, core: &Core, at: usize) -> Result<String, String> {
        let settings = core.settings();
        let (xname, nid) = (self.nodes[at].xname.clone(), self.nodes[at].nid);
        if !self.in_inventory(&settings, at) {
            return Err("this host is unknown".into());
        }
        self.nodes[at].script_epoch = Timestamp::now().as_second();
        let Some(data) = self.bss.hosts.get(&xname).or_else(|| self.bss.hosts.get("Default")) else {
            return Err(format!("{xname}: this host not configured for booting."));
        };
        if data.kernel.is_empty() {
            return Err(format!("{xname}: this host not configured for booting."));
        }
        let mut params = without_initrd(&data.params).replace("${SPIRE_JOIN_TOKEN}", "11111111-2222-3333-4444-555555555555");
        let address = core.bss_address.get().map_or("", String::as_str);
        for (key, value) in [
            ("xname", xname.clone()),
            ("nid", nid.to_string()),
            ("bss_referral_token", data.token.clone()),
            ("ds", format!("nocloud-net;s={address}/")),
        ] {
            let start = format!("{key}=");
            if !params.split_whitespace().any(|w| w.starts_with(&start)) && !value.is_empty() {
                let gap = if params.is_empty() || params.ends_with(' ') { "" } else { " " };
                // Writing to a String cannot fail.
                let _ = write!(params, "{gap}{start}{value}");
            }
        }
        let (kernel, initrd) = (data.kernel.clone(), data.initrd.clone());
        let kernel = self.s3.presign_path(core, &kernel);
        let mut script = format!("#!ipxe\nkernel --name kernel {kernel} initrd=initrd {params} || goto boot_retry\n");
        if !initrd.is_empty() {
            let initrd = self.s3.presign_path(core, &initrd);
            let _ = writeln!(script, "initrd --name initrd {initrd} || goto boot_retry");
        }
        let _ = write!(
            script,
            "boot || goto boot_retry\n:boot_retry\nsleep 30\nchain https://api-gw-service-nmn.local/apis/bss/boot/v1/bootscript?name={xname}&retry=1\n"
        );
        Ok(script)
    }
}
