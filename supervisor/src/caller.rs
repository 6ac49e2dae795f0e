//! A client's socket: read without taking descriptors, and closed where waiting does no harm.
//!
//! A client may attach a descriptor whose last close waits for an hour. So the loop takes none, and a socket in which
//! one is left is closed by a thread of its own, which lives while there are such sockets. Whoever made it wait keeps
//! a seat occupied meanwhile, and nobody else's sockets pass through there. Owned by `connection.rs`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_sys::stranger::{self, Gulp};
use mio::net::UnixStream;

use crate::seats::Seat;

/// Bytes of the buffer that takes what is left when a connection ends.
const LAST_READ_BYTES: usize = 16 << 10;

/// A client's socket and its seat.
#[derive(Debug)]
pub(crate) struct Caller {
    held: Option<(UnixStream, Seat)>,
    disposal: Rc<Disposal>,
}

impl Caller {
    /// Takes over a socket that was just accepted. Whatever happens from here on, it is closed as it should be.
    pub(crate) fn new(socket: UnixStream, seat: Seat, disposal: Rc<Disposal>) -> Self {
        Self { held: Some((socket, seat)), disposal }
    }

    /// The socket, to be registered.
    pub(crate) fn socket(&mut self) -> &mut UnixStream {
        &mut self.held.as_mut().expect(HELD).0
    }

    /// Reads what has come, see [`stranger::read`].
    ///
    /// # Errors
    /// EAGAIN: there is nothing now. Anything else: the connection is over.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Gulp> {
        stranger::read(self.as_fd(), buffer)
    }
}

impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held.as_ref().expect(HELD).0.as_fd()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some((socket, seat)) = self.held.take()
            && !stranger::hang_up(socket.as_fd(), &mut [0; LAST_READ_BYTES])
        {
            self.disposal.take(socket, seat);
        }
    }
}

const HELD: &str = "only dropping it takes the socket out";

/// Where sockets go whose close may wait.
#[derive(Debug, Default)]
pub(crate) struct Disposal(Arc<Mutex<Remains>>);

/// What is still to be closed, and whether a thread is at it. The queue needs no bound of its own: each socket in it
/// occupies a seat.
#[derive(Debug, Default)]
struct Remains {
    queue: VecDeque<(UnixStream, Seat)>,
    closing: bool,
}

impl Disposal {
    /// Has a socket closed.
    fn take(&self, socket: UnixStream, seat: Seat) {
        let mut remains = lock(&self.0);
        remains.queue.push_back((socket, seat));
        if !remains.closing {
            let shared = Arc::clone(&self.0);
            let started =
                std::thread::Builder::new().name("disposal".to_owned()).spawn(move || close_all(&shared));
            remains.closing = started.is_ok();
            if let Err(error) = started {
                log::error!("cannot close a socket for now: no thread error={error}");
            }
        }
    }
}

/// Closes one after the other, however long each takes.
fn close_all(remains: &Mutex<Remains>) {
    loop {
        let next = {
            let mut remains = lock(remains);
            remains.closing = !remains.queue.is_empty();
            remains.queue.pop_front()
        };
        // Here it waits, and nobody with it.
        let Some(closed) = next else { return };
        drop(closed);
    }
}

/// Nobody panics with it held.
fn lock(remains: &Mutex<Remains>) -> MutexGuard<'_, Remains> {
    remains.lock().unwrap_or_else(PoisonError::into_inner)
}
