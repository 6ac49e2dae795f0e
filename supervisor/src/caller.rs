//! A client's socket: read without taking descriptors, and closed where waiting does no harm.
//!
//! A client may attach a descriptor whose last close waits for an hour. So the loop takes none, and a socket in which
//! one is left is closed by a thread of its own, which starts when the first such socket comes. Whoever made it wait
//! keeps a seat occupied meanwhile, and nobody else's sockets pass through there. Owned by `connection.rs`.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

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

type Remains = (UnixStream, Seat);

/// Where sockets go whose close may wait.
#[derive(Debug)]
pub(crate) struct Disposal {
    queue: Sender<Remains>,
    /// The thread's, once it runs.
    remains: Arc<Mutex<Receiver<Remains>>>,
    runs: Cell<bool>,
}

impl Disposal {
    /// Without a thread yet.
    pub(crate) fn new() -> Rc<Self> {
        let (queue, remains) = mpsc::channel();
        Rc::new(Self { queue, remains: Arc::new(Mutex::new(remains)), runs: Cell::new(false) })
    }

    /// Has a socket closed. The queue needs no bound of its own: each socket in it occupies a seat.
    fn take(&self, socket: UnixStream, seat: Seat) {
        self.queue.send((socket, seat)).expect("the other end of the queue is ours as well");
        if !self.runs.get() {
            let remains = Arc::clone(&self.remains);
            let started = std::thread::Builder::new().name("disposal".to_owned()).spawn(move || {
                let remains = remains.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                // Each is closed, however long that takes, before the next.
                remains.iter().for_each(drop);
            });
            match started {
                Ok(_) => self.runs.set(true),
                Err(error) => log::error!("cannot close a socket for now: no thread error={error}"),
            }
        }
    }
}
