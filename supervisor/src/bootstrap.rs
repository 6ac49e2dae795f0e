//! Bootstrap threads: each connects to the ipc-channel server of one worker and ends.
//!
//! The connect can block for as long as the worker likes; killing the worker ends it. Results reach the loop through
//! a queue and a waker, so the loop never waits. These threads touch nothing but their own connection. Started by
//! `worker_table.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use bulkhead_link::supervisor as link;
use bulkhead_proto::ids::WorkerId;
use mio::Waker;

/// The result of one bootstrap thread.
pub(crate) struct BootstrapResult {
    pub(crate) worker: WorkerId,
    pub(crate) sender: Result<link::Sender, link::ConnectError>,
}

/// Starts bootstrap threads and collects their results.
pub(crate) struct Bootstrap {
    results: Receiver<BootstrapResult>,
    report: Sender<BootstrapResult>,
    waker: Arc<Waker>,
}

impl Bootstrap {
    /// Wakes the loop when there is a result.
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        let (report, results) = channel();
        Self { results, report, waker }
    }

    /// Connects to `worker`, whose process is `pid` and whose server stands at `path` inside `folder`.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(
        &self,
        worker: WorkerId,
        pid: u32,
        path: String,
        folder: PathBuf,
    ) -> std::io::Result<()> {
        let report = self.report.clone();
        let waker = Arc::clone(&self.waker);
        std::thread::Builder::new().name(format!("bootstrap-{worker}")).spawn(move || {
            let sender = link::connect(&path, &folder, pid);
            // If the loop has ended, the result is not needed.
            if report.send(BootstrapResult { worker, sender }).is_ok() && waker.wake().is_err() {
                log::error!("cannot wake the loop worker={worker}");
            }
        })?;
        Ok(())
    }

    /// The results that arrived since the last call.
    pub(crate) fn results(&self) -> impl Iterator<Item = BootstrapResult> + '_ {
        self.results.try_iter()
    }
}
