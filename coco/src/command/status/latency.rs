//! Commit latency, from the histogram that a node exposes in Prometheus's text format.

use serde::Serialize;

const METRIC: &str = "coco_commit_seconds";
/// Most buckets that are read.
const MAX_BUCKETS: usize = 64;

/// What a node has counted since it started.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    /// Upper bound in seconds, and how many batches took at most so long.
    buckets: Vec<(f64, u64)>,
    sum_s: f64,
    count: u64,
}

/// How long batches took from their proposal to commitment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) batches: u64,
    pub(super) mean_ms: f64,
    /// 99 of 100 took at most so long; absent if that is beyond the largest bound.
    pub(super) p99_at_most_ms: Option<f64>,
}

impl Histogram {
    /// Reads it out of all metrics of a node; `None` if it is not there or makes no sense.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut histogram = Self::default();
        let mut is_complete = false;
        for line in text.lines() {
            let Some(sample) = line.strip_prefix(METRIC) else { continue };
            let (name, value) = sample.rsplit_once(' ')?;
            match name {
                "_sum" => histogram.sum_s = value.parse().ok().filter(|sum: &f64| *sum >= 0.0)?,
                "_count" => (histogram.count, is_complete) = (value.parse().ok()?, true),
                bucket => {
                    let bound = bucket.strip_prefix("_bucket{le=\"")?.strip_suffix("\"}")?;
                    let bucket = (bound.parse().ok()?, value.parse().ok()?);
                    if histogram.buckets.len() == MAX_BUCKETS {
                        return None;
                    }
                    histogram.buckets.push(bucket);
                }
            }
        }
        let ascending = histogram.buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        (is_complete && ascending).then_some(histogram)
    }

    /// What was counted after `earlier`; everything if that was of another process.
    pub(super) fn since(&self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier.filter(|earlier| self.continues(earlier)) else {
            return self.clone();
        };
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        Self {
            buckets: pairs.map(|(now, then)| (now.0, now.1.saturating_sub(then.1))).collect(),
            sum_s: (self.sum_s - earlier.sum_s).max(0.0),
            count: self.count.saturating_sub(earlier.count),
        }
    }

    fn continues(&self, earlier: &Self) -> bool {
        let mut pairs = self.buckets.iter().zip(&earlier.buckets);
        self.buckets.len() == earlier.buckets.len()
            && self.count >= earlier.count
            && pairs.all(|(now, then)| now.0 == then.0 && now.1 >= then.1)
    }

    /// `None` if there was no batch.
    pub(super) fn latency(&self) -> Option<Latency> {
        if self.count == 0 {
            return None;
        }
        let rank = self.count - self.count / 100;
        let bound = self.buckets.iter().find(|(_, batches)| *batches >= rank);
        Some(Latency {
            batches: self.count,
            mean_ms: self.sum_s * 1_000.0 / self.count as f64,
            p99_at_most_ms: bound.map(|(s, _)| s * 1_000.0).filter(|ms| ms.is_finite()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# TYPE coco_commit_seconds histogram
coco_commit_seconds_bucket{le=\"0.001\"} 98
coco_commit_seconds_bucket{le=\"0.005\"} 99
coco_commit_seconds_bucket{le=\"+Inf\"} 100
coco_commit_seconds_sum 0.2
coco_commit_seconds_count 100
coco_commit_view 2
";

    #[test]
    fn the_histogram_is_found_among_metrics() {
        let histogram = Histogram::parse(&TEXT.replace("coco_commit_view", "coco_view")).unwrap();
        let latency = histogram.latency().unwrap();
        assert_eq!((latency.batches, latency.mean_ms), (100, 2.0));
        assert_eq!(latency.p99_at_most_ms, Some(5.0));
    }

    #[test]
    fn what_makes_no_sense_is_not_shown() {
        for (from, to) in [
            ("_count 100", "_count -1"),
            ("_count 100", "_other 100"),
            ("_sum 0.2", "_sum x"),
            ("\"} 98", "\"} 990"),
            ("0.005", "0.0001"),
            ("0.001", "NaN"),
        ] {
            assert_eq!(Histogram::parse(&TEXT.replace(from, to)), None, "{to}");
        }
        assert_eq!(Histogram::parse(""), None);
        let many = "coco_commit_seconds_bucket{le=\"1\"} 1\n".repeat(MAX_BUCKETS + 1);
        assert_eq!(Histogram::parse(&many), None);
    }

    #[test]
    fn a_refresh_shows_what_is_new() {
        let first = Histogram::parse(TEXT).unwrap();
        assert_eq!(first.since(Some(&first)).latency(), None);
        let later = TEXT.replace("} 99", "} 101").replace("} 100", "} 104");
        let later = later.replace("_sum 0.2", "_sum 0.6").replace("_count 100", "_count 104");
        let later = Histogram::parse(&later).unwrap();
        let latency = later.since(Some(&first)).latency().unwrap();
        assert_eq!((latency.batches, latency.p99_at_most_ms), (4, None));
        assert!((latency.mean_ms - 100.0).abs() < 1e-9);
        // A node that started again counts from nothing.
        assert_eq!(first.since(Some(&later)), first);
        assert_eq!(first.since(None), first);
    }
}
