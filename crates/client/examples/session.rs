//! Four threads submit on one connection while a fifth reads, and one of them waits for a result of its own.
//!
//! `session [COUNT]` computes COUNT factorials (100 by default), with the daemon of `BULKHEAD_SOCKET` or the one that
//! `discovery::find` finds, and prints how many ended and the digits of the longest.
//!
//! Shows what a program with threads does: tokens that say whose a result is, a reader in the background that steps aside, a
//! thread that reads by itself while it waits, long results in arenas, and what to do when the session is full.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_client::proto::job::OutputMode;
use bulkhead_client::proto::kind::FACTORIAL;
use bulkhead_client::{
    JobInput, LeadWait, NotSubmitted, ReceivedOutput, Session, SessionEnd, SessionEvent, SessionLeader,
    SessionOptions, SessionTurn, Spec, discovery,
};

const THREADS: u64 = 4;

/// Results that arrived, by token: the length of each, or why there is none.
type Results = Mutex<HashMap<u64, Result<usize, String>>>;

struct SharedSession {
    session: Session,
    spec: Arc<Spec>,
    results: Results,
    is_over: AtomicBool,
}

impl SharedSession {
    fn result(&self, token: u64) -> Option<Result<usize, String>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).get(&token).cloned()
    }

    /// Submits a job; a full session is waited for, while the reader in the background makes room.
    fn submit(&self, token: u64, number: u64) -> Result<(), NotSubmitted> {
        // A result of more than 4096 bytes comes through memory that its worker and this process share, if there is room for it.
        let mut input =
            JobInput { output: OutputMode::Arena, ..JobInput::from(number.to_string().into_bytes()) };
        loop {
            match self.session.submit(token, &self.spec, input) {
                Err(refused) if refused.is_full() => {
                    self.session.wait_for_room(None);
                    input = refused.into_input();
                }
                submitted => return submitted,
            }
        }
    }

    /// One turn: passes the events on to where the threads look for them. `false`: the connection has ended.
    fn turn(&self, leader: &mut SessionLeader<'_>) -> Option<SessionTurn> {
        let mut events = Vec::new();
        let turn = leader.turn(None, None, &mut events);
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            if let SessionEvent::Job { token, end } = event {
                results.insert(token, length(end));
            }
        }
        drop(results);
        turn.map_err(|error| eprintln!("session: {error}")).ok()
    }

    /// Reads until the program is over, and lets others lead who wait for something.
    fn read_in_background(&self) {
        while !self.is_over.load(Ordering::Acquire) {
            let LeadWait::Leads(mut leader) = self.session.follow(None, true, || false) else { continue };
            loop {
                match self.turn(&mut leader) {
                    Some(SessionTurn::Heard | SessionTurn::TimedOut) => {}
                    Some(SessionTurn::Wanted) => break,
                    Some(SessionTurn::Woken | SessionTurn::Interrupted) | None => return,
                }
            }
        }
    }

    /// Waits for one result. This thread reads by itself, which saves a hop between two threads.
    fn wait(&self, token: u64) -> Result<usize, String> {
        while self.result(token).is_none() {
            if let LeadWait::Leads(mut leader) =
                self.session.follow(None, false, || self.result(token).is_some())
            {
                while self.result(token).is_none() && self.turn(&mut leader).is_some() {}
            }
        }
        self.result(token).unwrap_or_else(|| Err("it is gone".to_owned()))
    }
}

fn length(end: SessionEnd) -> Result<usize, String> {
    match end {
        SessionEnd::Ended(end) => match end.output {
            ReceivedOutput::Inline(bytes) => Ok(bytes.len()),
            _ => Err(end.outcome.to_string()),
        },
        SessionEnd::Refused(refusal) => Err(refusal.to_string()),
        SessionEnd::Withdrawn => Err("it was withdrawn".to_owned()),
        SessionEnd::Lost => Err("the daemon is gone".to_owned()),
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(100), |count| count.parse())?;
    let socket = std::env::var_os("BULKHEAD_SOCKET").map(PathBuf::from);
    let client = discovery::find(socket.as_deref())?;
    let pool = SharedSession {
        session: Session::over(client, SessionOptions::default())?,
        spec: Arc::new(Spec::new(FACTORIAL)),
        results: Results::default(),
        is_over: AtomicBool::new(false),
    };
    let waker = pool.session.waker();
    let ended = std::thread::scope(|scope| {
        let pool = &pool;
        scope.spawn(|| pool.read_in_background());
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let own = (1..=count).filter(|token| token % THREADS == thread);
                    own.map(|token| pool.submit(token, token)).collect::<Result<Vec<()>, _>>()
                })
            })
            .collect();
        let submitted: Result<Vec<_>, _> =
            threads.into_iter().map(|thread| thread.join().expect("a submit does not panic")).collect();
        let ends: Vec<Result<usize, String>> =
            if submitted.is_ok() { (1..=count).map(|token| pool.wait(token)).collect() } else { Vec::new() };
        pool.is_over.store(true, Ordering::Release);
        waker.wake();
        ends
    });
    let done: Vec<usize> = ended.iter().filter_map(|end| end.as_ref().ok().copied()).collect();
    println!("{} of {count} done, the longest has {} digits", done.len(), done.iter().max().unwrap_or(&0));
    Ok(if done.len() as u64 == count { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
