//! The test's side of the process trees that `hostile::grove` grows: it learns the members and waits until all are
//! gone.
//!
//! The members of a tree share one connection. Its end can be read only after the last member has closed it, which no
//! living member does. So the test observes that the tree is gone, and never guesses it after a pause.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use bulkhead_sys::socket::peer_cred;

use crate::daemon::{DEADLINE, eventually};
use crate::hostile::grove::SHAPES;

/// The socket at which trees report.
#[derive(Debug)]
pub struct Grove {
    listener: UnixListener,
    path: PathBuf,
}

/// A tree that has grown.
#[derive(Debug)]
pub struct Tree {
    /// The process of the worker that grew it.
    pub worker: u32,
    /// The process ids that its members sent.
    pub members: Vec<u32>,
    orders: UnixStream,
    held: UnixStream,
}

impl Grove {
    /// A socket in this folder.
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("grove");
        let listener = UnixListener::bind(&path).expect("a socket");
        listener.set_nonblocking(true).expect("it may be asked");
        Self { listener, path }
    }

    /// The input of a job that grows a tree of this shape here.
    pub fn input(&self, shape: &str) -> String {
        format!("{shape} {}", self.path.display())
    }

    fn accept(&self) -> UnixStream {
        let stream = eventually("a tree is grown", || self.listener.accept().ok()).0;
        stream.set_nonblocking(false).expect("it is ours");
        stream.set_read_timeout(Some(DEADLINE)).expect("it is ours");
        stream
    }

    /// The next attempt that begins to grow a tree; no member of that tree has reported yet.
    pub fn next(&self) -> Tree {
        let (orders, held) = (self.accept(), self.accept());
        let worker = peer_cred(orders.as_fd()).expect("the worker connected").pid;
        Tree { worker, members: Vec::new(), orders, held }
    }

    /// The next tree, of this shape, when all of its members live.
    pub fn next_grown(&self, shape: &str) -> Tree {
        let mut tree = self.next();
        tree.await_growth(shape);
        tree
    }
}

impl Tree {
    /// Waits until all members of a tree of this shape live.
    pub fn await_growth(&mut self, shape: &str) {
        let members = SHAPES.iter().find(|(name, _, _)| *name == shape).expect("a known shape").1;
        let lines = BufReader::new(&self.held).lines().take(members);
        self.members = lines
            .map(|line| line.expect("a member lives").parse().expect("a member tells its number"))
            .collect();
        assert_eq!(self.members.len(), members, "the tree is gone before anybody ended it");
        assert!(self.lives());
    }

    /// Sends this order to its job.
    pub fn order(&mut self, order: u8) {
        self.orders.write_all(&[order]).expect("the worker lives");
    }

    /// Whether a member lives at this moment.
    pub fn lives(&self) -> bool {
        self.held.set_nonblocking(true).expect("it is ours");
        let read = (&self.held).read(&mut [0; 4096]);
        self.held.set_nonblocking(false).expect("it is ours");
        match read {
            Ok(count) => count > 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("the tree cannot be heard: {error}"),
        }
    }

    /// Waits until no member lives.
    pub fn await_gone(&self) {
        let mut rest = [0; 4096];
        loop {
            match (&self.held).read(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                // After a signal the kernel does not restart a wait on a socket with a timeout: signal(7).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("somebody of the tree {:?} lives: {error}", self.members),
            }
        }
    }
}
