//! What became of the nodes, asked of the site and not of our own statuses.

use crate::site::{ImageSpec, NodeView};

/// What every node should have come to.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// On, up with this image, and configured with this.
    Booted {
        /// It must have reported too: an agent of mode v1 does not wait for that.
        heard: bool,
        /// The image that it runs.
        image: &'a ImageSpec,
        /// The CFS configuration that was applied.
        configuration: &'a str,
    },
    /// Without power.
    Off,
}

/// Nodes of the site by what is right about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truth {
    /// All nodes.
    pub nodes: usize,
    /// With power.
    pub on: usize,
    /// Up.
    pub up: usize,
    /// Running the kernel of the right image.
    pub right_image: usize,
    /// With a report that the operator has acknowledged.
    pub reported: usize,
    /// Configured by CFS with the right configuration.
    pub configured: usize,
    /// That lost power and got it back.
    pub cycled: usize,
    /// What is wrong, one line a node.
    pub wrong: Vec<String>,
}

impl Truth {
    /// Looks at each of these nodes.
    pub fn of(nodes: &[NodeView], wanted: Wanted<'_>) -> Self {
        let mut truth = Self { nodes: nodes.len(), ..Self::default() };
        for node in nodes {
            truth.add(node, wanted);
        }
        truth
    }

    fn add(&mut self, node: &NodeView, wanted: Wanted<'_>) {
        let (kernel, configuration) = match wanted {
            Wanted::Booted { image, configuration, .. } => (format!("s3://{}/{}/kernel", image.bucket, image.id), configuration),
            Wanted::Off => (String::new(), ""),
        };
        let right_image = node.up && node.kernel.as_deref() == Some(kernel.as_str());
        let is_configured = node.cfs_status.as_deref() == Some("configured") && node.cfs_desired.as_deref() == Some(configuration);
        self.on += usize::from(node.power);
        self.up += usize::from(node.up);
        self.right_image += usize::from(right_image);
        self.reported += usize::from(node.reports > 0);
        self.configured += usize::from(is_configured);
        self.cycled += usize::from(node.power_cycles > 0);
        let checks: &[(bool, &str)] = match wanted {
            Wanted::Off => &[(!node.power, "still has power")],
            Wanted::Booted { heard, .. } => &[
                (node.power, "has no power"),
                (node.up, "is not up"),
                (right_image, "does not run the image"),
                (node.reports > 0 || !heard, "has not reported"),
                (is_configured, "is not configured"),
            ],
        };
        // The first thing that is wrong explains the rest.
        if let Some((_, what)) = checks.iter().find(|(right, _)| !right) {
            self.wrong.push(format!("{} {what}", node.xname));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Faults;

    fn node(image: &ImageSpec) -> NodeView {
        NodeView {
            xname: "x1000c0s0b0n0".into(),
            nid: 1,
            power: true,
            up: true,
            token: None,
            kernel: Some(format!("s3://{}/{}/kernel", image.bucket, image.id)),
            params: None,
            reports: 1,
            power_cycles: 0,
            enabled: true,
            locked: false,
            reserved: false,
            cfs_status: Some("configured".into()),
            cfs_desired: Some("cos".into()),
            cfs_enabled: true,
            faults: Faults::default(),
        }
    }

    #[test]
    fn the_first_thing_that_is_wrong_is_named() {
        let image = ImageSpec::default();
        let wanted = Wanted::Booted { heard: true, image: &image, configuration: "cos" };
        let right = node(&image);
        assert!(Truth::of(std::slice::from_ref(&right), wanted).wrong.is_empty());
        let cases: [(NodeView, &str); 5] = [
            (NodeView { power: false, up: false, ..right.clone() }, "has no power"),
            (NodeView { up: false, reports: 0, ..right.clone() }, "is not up"),
            (NodeView { kernel: Some("s3://boot-images/other/kernel".into()), ..right.clone() }, "does not run the image"),
            (NodeView { reports: 0, ..right.clone() }, "has not reported"),
            (NodeView { cfs_desired: Some("another".into()), ..right.clone() }, "is not configured"),
        ];
        for (node, what) in cases {
            assert_eq!(Truth::of(&[node], wanted).wrong, [format!("x1000c0s0b0n0 {what}")]);
        }
        assert_eq!(Truth::of(std::slice::from_ref(&right), Wanted::Off).wrong, ["x1000c0s0b0n0 still has power"]);
    }
}
