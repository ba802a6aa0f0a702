//! What a process has cost so far, from `/proc`.

use anyhow::Context as _;

/// CPU time and memory of one process.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ProcStat {
    /// User and system time of all its threads, in seconds.
    pub cpu_seconds: f64,
    /// The most memory it ever had resident, in bytes (`VmHWM`).
    pub peak_rss_bytes: u64,
    /// The memory it has resident now, in bytes (`VmRSS`).
    pub rss_bytes: u64,
}

impl ProcStat {
    /// Peak resident memory in MiB.
    pub fn peak_rss_mib(&self) -> f64 {
        self.peak_rss_bytes as f64 / (1024.0 * 1024.0)
    }
}

/// Reads the figures of the process with this id. A process that has ended has none.
pub fn procstat(pid: u32) -> anyhow::Result<ProcStat> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    };
    let ticks = cpu_ticks(&read("stat")?).with_context(|| format!("/proc/{pid}/stat has an unknown form"))?;
    let status = read("status")?;
    let kib = |key| status_kib(&status, key).with_context(|| format!("/proc/{pid}/status has no {key}"));
    Ok(ProcStat {
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        peak_rss_bytes: kib("VmHWM:")? * 1024,
        rss_bytes: kib("VmRSS:")? * 1024,
    })
}

/// User plus system time. The second field, the command, may hold spaces and brackets: count from behind the last bracket.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn status_kib(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 (a"), None);
    }

    #[test]
    fn this_process_has_figures() {
        let before = procstat(std::process::id()).unwrap();
        assert!(before.peak_rss_bytes >= before.rss_bytes && before.rss_bytes > 0);
        let mut sum = 0_u64;
        while procstat(std::process::id()).unwrap().cpu_seconds <= before.cpu_seconds {
            sum = std::hint::black_box((0..1_000_000_u64).fold(sum, u64::wrapping_add));
        }
    }
}
