//! What the fuzz targets share.

use std::path::Path;

/// Puts inputs that get through the first checks into a target's corpus, so that the fuzzer begins
/// behind them. To be called in a target's `init`: the fuzzer reads the corpus after it.
pub fn seed<B: AsRef<[u8]>>(target: &str, seeds: impl IntoIterator<Item = B>) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&corpus).unwrap();
    for (number, seed) in seeds.into_iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{number}")), seed).unwrap();
    }
}

/// Runs a future on this thread, in virtual time.
pub fn in_virtual_time<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(future)
}
