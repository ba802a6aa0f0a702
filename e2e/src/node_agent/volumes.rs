//! The volumes of a pod, written to folders of this machine. What they are made from is read once: a running container does not see
//! later changes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use kube::Api;
use kube::api::PostParams;

use super::container::Mount;
use super::objects::{Data, Objects, field};

/// Mode of a file where the volume does not say.
const FILE_MODE: i32 = 0o644;

/// What the volumes of one pod are made with.
pub(super) struct Volumes<'a> {
    pub(super) pod: &'a Pod,
    pub(super) objects: &'a Objects,
    pub(super) accounts: Api<ServiceAccount>,
    /// A folder of the pod's own.
    pub(super) folder: PathBuf,
}

/// A file of a volume.
struct FileOf {
    path: String,
    content: Vec<u8>,
    mode: Option<i32>,
}

impl Volumes<'_> {
    /// Writes them all and says where the container wants them.
    pub(super) async fn make(&self, container: &Container) -> anyhow::Result<Vec<Mount>> {
        let volumes = self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let mut read_only = BTreeMap::new();
        for volume in volumes {
            let made = self.volume(volume).await.with_context(|| format!("volume {}", volume.name))?;
            read_only.insert(volume.name.as_str(), made);
        }
        let mounts = container.volume_mounts.iter().flatten().map(|mount| {
            let by_kind = *read_only.get(mount.name.as_str()).with_context(|| format!("there is no volume {}", mount.name))?;
            let mut source = self.folder.join(&mount.name);
            if let Some(sub_path) = &mount.sub_path {
                source = inside(&source, sub_path)?;
                if !source.exists() {
                    make_folder(&source)?;
                }
            }
            Ok(Mount { source, target: mount.mount_path.clone(), read_only: by_kind || mount.read_only == Some(true) })
        });
        mounts.collect()
    }

    /// Writes a volume. True: containers may only read it.
    async fn volume(&self, volume: &Volume) -> anyhow::Result<bool> {
        let folder = self.folder.join(&volume.name);
        make_folder(&folder)?;
        let (files, mode) = if let Some(source) = &volume.config_map {
            (self.config_map(&source.name, source.optional, source.items.as_ref()).await?, source.default_mode)
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().context("no secretName")?;
            (self.secret(name, source.optional, source.items.as_ref()).await?, source.default_mode)
        } else if let Some(source) = &volume.downward_api {
            (self.downward(source.items.as_ref())?, source.default_mode)
        } else if let Some(source) = &volume.projected {
            let mut files = Vec::new();
            for projection in source.sources.iter().flatten() {
                files.extend(self.projection(projection).await?);
            }
            (files, source.default_mode)
        } else {
            anyhow::ensure!(volume.empty_dir.is_some(), "the test node agent knows no such kind of volume");
            return Ok(false);
        };
        for file in files {
            self.write(&folder, &file, mode)?;
        }
        Ok(true)
    }

    async fn projection(&self, projection: &VolumeProjection) -> anyhow::Result<Vec<FileOf>> {
        if let Some(source) = &projection.service_account_token {
            return Ok(vec![FileOf { path: source.path.clone(), content: self.token(source).await?.into_bytes(), mode: None }]);
        }
        if let Some(source) = &projection.config_map {
            return self.config_map(&source.name, source.optional, source.items.as_ref()).await;
        }
        if let Some(source) = &projection.secret {
            return self.secret(&source.name, source.optional, source.items.as_ref()).await;
        }
        let source = projection.downward_api.as_ref().context("the test node agent knows no such projection")?;
        self.downward(source.items.as_ref())
    }

    /// A token that is good for as long as this pod exists.
    async fn token(&self, source: &ServiceAccountTokenProjection) -> anyhow::Result<String> {
        let (meta, spec) = (&self.pod.metadata, self.pod.spec.as_ref());
        let account = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
        };
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: source.audience.iter().cloned().collect(),
                bound_object_ref: Some(bound),
                expiration_seconds: source.expiration_seconds,
            },
            ..TokenRequest::default()
        };
        let answer = self.accounts.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("a token of the service account {account}"))?;
        Ok(answer.status.context("the API server answered without a token")?.token)
    }

    async fn config_map(&self, name: &str, optional: Option<bool>, items: Option<&Vec<KeyToPath>>) -> anyhow::Result<Vec<FileOf>> {
        let data = self.objects.config_map(name, optional == Some(true)).await?;
        files(data.unwrap_or_default(), items, optional == Some(true)).with_context(|| format!("ConfigMap {name}"))
    }

    async fn secret(&self, name: &str, optional: Option<bool>, items: Option<&Vec<KeyToPath>>) -> anyhow::Result<Vec<FileOf>> {
        let data = self.objects.secret(name, optional == Some(true)).await?;
        files(data.unwrap_or_default(), items, optional == Some(true)).with_context(|| format!("Secret {name}"))
    }

    fn downward(&self, items: Option<&Vec<DownwardAPIVolumeFile>>) -> anyhow::Result<Vec<FileOf>> {
        let file = |item: &DownwardAPIVolumeFile| {
            let selector = item.field_ref.as_ref().context("the test node agent knows only fieldRef in a downwardAPI volume")?;
            Ok(FileOf { path: item.path.clone(), content: field(self.pod, selector)?.into_bytes(), mode: item.mode })
        };
        items.into_iter().flatten().map(file).collect()
    }

    fn write(&self, folder: &Path, file: &FileOf, default_mode: Option<i32>) -> anyhow::Result<()> {
        let path = inside(folder, &file.path)?;
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        std::fs::write(&path, &file.content).with_context(|| format!("writing {}", path.display()))?;
        let mut mode = u32::try_from(file.mode.or(default_mode).unwrap_or(FILE_MODE)).context("the mode of a file")?;
        let group = self.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()).and_then(|context| context.fs_group);
        if let Some(group) = group {
            let group = u32::try_from(group).context("fsGroup")?;
            std::os::unix::fs::chown(&path, None, Some(group)).with_context(|| format!("changing the group of {}", path.display()))?;
            // The group may read what the owner may.
            mode |= (mode & 0o400) >> 3;
        }
        set_mode(&path, mode)
    }
}

/// A file for each key, or for the wanted keys only.
fn files(mut data: Data, items: Option<&Vec<KeyToPath>>, optional: bool) -> anyhow::Result<Vec<FileOf>> {
    let Some(items) = items else {
        return Ok(data.into_iter().map(|(path, content)| FileOf { path, content, mode: None }).collect());
    };
    let mut files = Vec::new();
    for item in items {
        match data.remove(&item.key) {
            Some(content) => files.push(FileOf { path: item.path.clone(), content, mode: item.mode }),
            None => anyhow::ensure!(optional, "references non-existent config key: {}", item.key),
        }
    }
    Ok(files)
}

/// A folder that any user of a container may write to, as far as it is not mounted read-only.
fn make_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
    set_mode(path, 0o777)
}

fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).with_context(|| format!("setting the mode of {}", path.display()))
}

/// A path below this folder; one that leads out of it is refused.
fn inside(folder: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(path);
    anyhow::ensure!(path.components().all(|part| matches!(part, Component::Normal(_))), "{} leads out of its volume", path.display());
    Ok(folder.join(path))
}
