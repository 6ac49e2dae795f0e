//! Outputs that the supervisor holds in descriptors: sealed, counted, and handed to whoever asks for the job.
//!
//! Only what was sealed is held: a worker that keeps a descriptor cannot change a result behind its client's
//! back. How many are kept, and for how long, the core decides.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use bulkhead_proto::ids::OutputId;
use bulkhead_sys::memfd;

/// All held outputs.
#[derive(Debug, Default)]
pub(crate) struct Held {
    outputs: BTreeMap<OutputId, Rc<OwnedFd>>,
    last: u64,
}

impl Held {
    /// Seals what a worker wrote and takes it in. `None`: it is not as long as the worker says, or cannot be
    /// sealed because the worker still maps it or sealed its seals; it is not what it was said to be.
    ///
    /// # Errors
    /// The descriptor cannot be asked for its size.
    pub(crate) fn take(&mut self, descriptor: OwnedFd, bytes: u64) -> io::Result<Option<OutputId>> {
        match memfd::seal_output(descriptor.as_fd()) {
            Ok(size) if size == bytes => {}
            Ok(_) => return Ok(None),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::PermissionDenied) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        self.last += 1;
        let output = OutputId(self.last);
        self.outputs.insert(output, Rc::new(descriptor));
        Ok(Some(output))
    }

    /// A held output, to be attached to a reply.
    pub(crate) fn get(&self, output: OutputId) -> Option<Rc<OwnedFd>> {
        self.outputs.get(&output).cloned()
    }

    /// Lets go of one; replies on their way keep theirs.
    pub(crate) fn drop_output(&mut self, output: OutputId) {
        self.outputs.remove(&output);
    }
}
