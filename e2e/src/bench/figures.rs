//! What the operator's own metrics say of its work.

use serde::Serialize;

/// A histogram of the operator: over the whole time, or between two looks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Histogram {
    count: f64,
    sum: f64,
    /// Upper bounds, and how many were no longer.
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// Reads it out of the text that `/metrics` answers.
    pub(super) fn read(metrics: &str, name: &str) -> Self {
        let mut histogram = Self::default();
        for line in metrics.lines().filter_map(|line| line.strip_prefix(name)) {
            let Some((key, value)) = line.rsplit_once(' ').and_then(|(key, value)| Some((key, value.parse::<f64>().ok()?))) else {
                continue;
            };
            match key {
                "_count" => histogram.count = value,
                "_sum" => histogram.sum = value,
                _ => {
                    let bound = key.strip_prefix("_bucket{le=\"").and_then(|bound| bound.strip_suffix("\"}")?.parse().ok());
                    histogram.buckets.extend(bound.map(|bound: f64| (bound, value)));
                }
            }
        }
        histogram
    }

    pub(super) fn since(&self, earlier: &Self) -> Self {
        let before = |bound: f64| earlier.buckets.iter().find(|(known, _)| *known >= bound).map_or(0.0, |(_, count)| *count);
        let buckets = self.buckets.iter().map(|(bound, count)| (*bound, count - before(*bound))).collect();
        Self { count: self.count - earlier.count, sum: self.sum - earlier.sum, buckets }
    }

    /// The upper bound of the bucket that 99 of 100 are in; None where only the last, which has none, holds them.
    fn p99(&self) -> Option<f64> {
        self.buckets.iter().find(|(_, count)| *count >= self.count * 0.99).map(|(bound, _)| *bound).filter(|bound| bound.is_finite())
    }
}

/// How often something was done, and what it took.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// How often.
    pub count: f64,
    /// All together, in seconds.
    pub seconds: f64,
    /// 99 of 100 took no longer, as far as the buckets of the histogram tell.
    pub p99_seconds_at_most: Option<f64>,
}

impl From<Histogram> for Work {
    fn from(histogram: Histogram) -> Self {
        let rounded = (histogram.sum * 1000.0).round() / 1000.0;
        Self { count: histogram.count, seconds: rounded, p99_seconds_at_most: histogram.p99() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str =
        "# TYPE bos_x histogram\nbos_x_sum 1.0\nbos_x_count 10\nbos_x_bucket{le=\"0.1\"} 9\nbos_x_bucket{le=\"+Inf\"} 10\n";
    const AFTER: &str =
        "bos_x_sum 3.5\nbos_x_count 110\nbos_x_bucket{le=\"0.1\"} 108\nbos_x_bucket{le=\"0.2\"} 110\nbos_x_bucket{le=\"+Inf\"} 110\n";

    #[test]
    fn work_between_two_looks() {
        let (before, after) = (Histogram::read(BEFORE, "bos_x"), Histogram::read(AFTER, "bos_x"));
        let work = Work::from(after.since(&before));
        assert_eq!(work, Work { count: 100.0, seconds: 2.5, p99_seconds_at_most: Some(0.1) });
        assert_eq!(Work::from(before).p99_seconds_at_most, None, "one of ten took longer than every bound");
        assert_eq!(Work::from(Histogram::read(AFTER, "bos_y")).count, 0.0);
    }
}
