//! The lane from the moment on at which it is off standard input, until the runtime serves it.
//!
//! A child that inherits the lane could read the tasks' files, and keeps the supervisor from seeing the end of this worker. So
//! it is taken first of all, and a program may have it taken before it calls [`crate::run`].

use std::io;
use std::sync::{Mutex, PoisonError};

use bulkhead_sys::lane::Lane;

/// Where the lane is.
enum LanePlace {
    Stdin,
    Taken(Lane),
    /// The runtime has it.
    Served,
}

static PLACE: Mutex<LanePlace> = Mutex::new(LanePlace::Stdin);

/// Moves the connection to the supervisor off standard input, to a descriptor that no child inherits, and puts `/dev/null`
/// there. [`crate::run`] does this first of all. A program that loads code of others or starts other programs before it calls
/// [`crate::run`] calls this before that. Later calls do nothing.
///
/// # Errors
/// `InvalidInput`: bulkhead-supervisor did not start this process. EMFILE, ENFILE: no descriptor is free.
pub fn take_lane() -> io::Result<()> {
    let mut place = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*place, LanePlace::Stdin) {
        *place = LanePlace::Taken(Lane::from_stdin()?);
    }
    Ok(())
}

/// The lane; takes it if that was not done.
///
/// # Errors
/// As [`take_lane`].
pub(crate) fn lane() -> io::Result<Lane> {
    let mut place = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
    match std::mem::replace(&mut *place, LanePlace::Served) {
        LanePlace::Taken(lane) => Ok(lane),
        LanePlace::Stdin | LanePlace::Served => Lane::from_stdin(),
    }
}
