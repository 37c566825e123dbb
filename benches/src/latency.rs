//! Latencies of one run.

use std::time::Duration;

/// Every latency of a run, in microseconds.
#[derive(Default)]
pub struct Latencies {
    micros: Vec<f32>,
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        self.micros.push(latency.as_secs_f32() * 1e6);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.micros.len()
    }

    /// The latencies, in milliseconds, below which these shares of all lie.
    pub fn quantiles_ms<const N: usize>(&mut self, shares: [f64; N]) -> [f64; N] {
        self.micros.sort_by(f32::total_cmp);
        shares.map(|share| {
            let last = self.micros.len().saturating_sub(1);
            let index = (last as f64 * share).round() as usize;
            self.micros.get(index).map_or(0.0, |micros| f64::from(*micros) / 1e3)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut latencies = Latencies::default();
        (1..=101).for_each(|ms| latencies.record(Duration::from_millis(ms)));
        let [p50, p99] = latencies.quantiles_ms([0.5, 0.99]);
        assert!((p50 - 51.0).abs() < 0.01 && (p99 - 100.0).abs() < 0.01);
    }
}
