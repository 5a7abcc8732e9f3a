//! A histogram of `/metrics`: what was added to it between two reads, and its quantiles.
//!
//! It knows no more than the metric: how many samples are at or below each bound. A quantile is
//! linear between two bounds, as Prometheus' `histogram_quantile`, and at most the highest one.

/// The counts of a histogram without labels.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricHistogram {
    /// Upper bounds with the samples at or below each, ascending; the last bound is infinite.
    buckets: Vec<(f64, f64)>,
}

impl MetricHistogram {
    /// The histogram of this name in the text of `/metrics`; empty if it is not there yet.
    pub fn read(metrics: &str, name: &str) -> Self {
        let bucket = |line: &str| {
            let rest = line.strip_prefix(name)?.strip_prefix("_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            // Rust reads `+Inf` too.
            Some((bound.parse().ok()?, count.trim().parse().ok()?))
        };
        Self { buckets: metrics.lines().filter_map(bucket).collect() }
    }

    /// What was added since an earlier read.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |bound: f64| {
            let bucket = earlier.buckets.iter().find(|bucket| bucket.0 == bound);
            bucket.map_or(0.0, |bucket| bucket.1)
        };
        let added = |&(bound, count): &(f64, f64)| (bound, count - before(bound));
        Self { buckets: self.buckets.iter().map(added).collect() }
    }

    /// The samples.
    pub fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |bucket| bucket.1)
    }

    /// The value that this share of the samples, 0 to 1, is at or below; `None` without samples.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = self.count() * share;
        if self.count() == 0.0 {
            return None;
        }
        let (mut low, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.buckets {
            if count >= rank && count > below {
                let within = (rank - below) / (count - below);
                return Some(if bound.is_finite() { low + (bound - low) * within } else { low });
            }
            if bound.is_finite() {
                (low, below) = (bound, count);
            }
        }
        Some(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: [u32; 4]) -> MetricHistogram {
        let [two, four, eight, all] = counts;
        let text = format!(
            "# TYPE x_partitions histogram\nx_partitions_bucket{{le=\"2\"}} {two}\n\
             x_partitions_bucket{{le=\"4\"}} {four}\nx_partitions_bucket{{le=\"8\"}} {eight}\n\
             x_partitions_bucket{{le=\"+Inf\"}} {all}\nx_partitions_sum 99\n\
             x_partitions_count {all}\nx_partitions_more_bucket{{le=\"2\"}} 7\n"
        );
        MetricHistogram::read(&text, "x_partitions")
    }

    #[test]
    fn a_quantile_is_linear_between_two_bounds() {
        let histogram = of([0, 10, 20, 20]);
        assert_eq!(histogram.count(), 20.0);
        assert_eq!(histogram.quantile(0.25), Some(3.0));
        assert_eq!(histogram.quantile(0.5), Some(4.0));
        assert_eq!(histogram.quantile(0.75), Some(6.0));
        assert_eq!(histogram.quantile(1.0), Some(8.0));
    }

    #[test]
    fn a_quantile_beyond_all_bounds_is_the_highest_of_them() {
        assert_eq!(of([0, 0, 1, 10]).quantile(0.99), Some(8.0));
    }

    #[test]
    fn what_was_there_before_does_not_count() {
        let added = of([5, 15, 15, 15]).since(&of([5, 5, 5, 5]));
        assert_eq!(added.count(), 10.0);
        assert_eq!(added.quantile(0.5), Some(3.0));
        assert_eq!(of([5, 5, 5, 5]).since(&of([5, 5, 5, 5])).quantile(0.5), None);
    }

    #[test]
    fn a_histogram_that_is_not_there_yet_is_empty() {
        let none = MetricHistogram::read("other 1\n", "x_partitions");
        assert_eq!((none.count(), none.quantile(0.5)), (0.0, None));
        assert_eq!(of([1, 1, 1, 1]).since(&none).count(), 1.0);
    }
}
