//! kubectl's own words, held against `golden.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bench::{Bench, LIMIT, Result};

/// Set to `write`: what kubectl says is written instead of compared.
const MODE: &str = "BOS_GOLDEN";

/// The sections of the file, by their titles.
pub struct Golden {
    expected: BTreeMap<String, String>,
    said: Mutex<Vec<(String, String)>>,
    writing: bool,
}

impl Golden {
    pub fn read() -> Self {
        let text = std::fs::read_to_string(path()).unwrap_or_default();
        let sections = text.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'));
        let expected = sections.map(|(title, body)| (title.to_owned(), body.trim_end().to_owned())).collect();
        Self { expected, said: Mutex::default(), writing: std::env::var(MODE).is_ok_and(|mode| mode == "write") }
    }

    /// What `kubectl apply --dry-run=server` says of an object. As that changes nothing it is asked again until the answer is the
    /// expected one: what the webhook knows of the cluster comes a moment later.
    pub async fn says(&self, bench: &Bench, title: &str, object: &Value) -> Result {
        let began = Instant::now();
        let mut last = self.ask(bench, object).await?;
        if self.writing {
            tokio::time::sleep(Duration::from_millis(700)).await;
            last = self.ask(bench, object).await?;
        }
        while !self.writing && self.expected.get(title) != Some(&last) && began.elapsed() < LIMIT / 10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            last = self.ask(bench, object).await?;
        }
        self.said.lock().unwrap().push((title.to_owned(), last.clone()));
        let expected = self.expected.get(title).map_or("", String::as_str);
        anyhow::ensure!(self.writing || last == expected, "{title}: expected\n{expected}\nbut kubectl said\n{last}");
        Ok(())
    }

    /// What was changed in HSM is seen some seconds later; where answers are compared they are asked for until they are right.
    pub async fn settle(&self) {
        if self.writing {
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
    }

    async fn ask(&self, bench: &Bench, object: &Value) -> Result<String> {
        let command = bench.rig.control_plane().kubectl_command();
        let output = command.run_with_input(&["apply", "--dry-run=server", "-f", "-"], &object.to_string()).await?;
        let shown = format!("{} {}", object["kind"].as_str().unwrap_or_default(), object["spec"]);
        Ok(masked(&format!("$ kubectl apply --dry-run=server -f -   # {shown}\n{}{}", output.stderr, output.stdout)))
    }

    /// Writes the file where that was asked for; otherwise every section must have been used.
    pub fn finish(&self) -> Result {
        let said = self.said.lock().unwrap();
        if self.writing {
            let mut text =
                "# What kubectl says. Written by BOS_GOLDEN=write; held against the webhook by the test of the same folder.\n".to_owned();
            for (title, body) in said.iter() {
                let _ = write!(text, "\n## {title}\n{body}\n");
            }
            std::fs::write(path(), text)?;
            return Ok(());
        }
        let used: BTreeSet<&String> = said.iter().map(|(title, _)| title).collect();
        let left: Vec<&String> = self.expected.keys().filter(|title| !used.contains(title)).collect();
        anyhow::ensure!(left.is_empty() || std::env::var("BOS_CASE").is_ok(), "no case is called {left:?}");
        Ok(())
    }
}

/// Without what differs from run to run: ports, and which of several reads at a time failed first.
fn masked(text: &str) -> String {
    const READ: &str = "HSM get ";
    let text = match text.split_once(READ).and_then(|(before, after)| Some((before, after.split_once(": ")?.1))) {
        Some((before, after)) => format!("{before}{READ}...: {after}"),
        None => text.to_owned(),
    };
    let mut parts = text.split("127.0.0.1:");
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        masked.push_str("SITE");
        masked.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    masked.trim_end().to_owned()
}

fn path() -> PathBuf {
    PathBuf::from("tests/webhook/golden.txt")
}
