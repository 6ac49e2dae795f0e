//! Who reads: the lead of a session, its one turn, and how it passes from thread to thread.
//!
//! | the lead is | leaves it when |
//! |---|---|
//! | free: the receiving half is in `LeadState` | a thread takes it; one that steps aside only if no other waits |
//! | taken | the leader is dropped: all who wait are notified, and the first to run takes it |
//! | lent: its leader passes events on, and they may make its thread wait again | that thread takes it for a lead within; or the events are passed on: taken |
//!
//! A follower waits for the lead, until a moment, or until `is_done`: the leader has brought what it waits for. The leader
//! notifies followers at the begin of each turn, when the caller has passed on the events of the last one. A follower looks
//! at `is_done` under the lock that the leader takes for that. The bell is heard before the outbox is looked at, so work
//! that was queued without a ring is seen.

use std::os::fd::AsFd;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread::{self, ThreadId};
use std::time::Instant;

use bulkhead_proto::client::message::{Reply, ReplyFrame};
use bulkhead_sys::poll::{self, PollTarget};

use crate::client::reply_name;
use crate::error::{Error, ProtocolError};
use crate::frame_halves::FrameReceiver;
use crate::interrupt::Interrupts;
use crate::output::JobEnd;
use crate::session::outbox::HeardReply;
use crate::session::{Session, SessionAnswer, SessionEvent, SessionTurn, locked};

/// The receiving half, or that a thread has it.
#[derive(Debug)]
pub(super) struct LeadState {
    half: Option<FrameReceiver>,
    /// Whether the leader steps aside for others.
    steps_aside: bool,
    /// The thread whose leader passes events on: it alone takes the half.
    lent_to: Option<ThreadId>,
    /// How many threads wait for it.
    followers: usize,
    /// How many of them do not step aside.
    eager: usize,
}

impl LeadState {
    /// Nobody leads.
    pub(super) fn new(half: FrameReceiver) -> Self {
        Self { half: Some(half), steps_aside: false, lent_to: None, followers: 0, eager: 0 }
    }

    /// Takes the half, if this thread may.
    fn take(&mut self) -> Option<FrameReceiver> {
        let may_take = self.lent_to.is_none_or(|thread| thread == thread::current().id());
        if may_take { self.half.take() } else { None }
    }
}

/// The thread that reads: it sends what is queued, and returns events. Dropping it gives the lead to a follower.
#[derive(Debug)]
pub struct SessionLeader<'s> {
    session: &'s Session,
    /// There until the drop.
    half: Option<FrameReceiver>,
    steps_aside: bool,
    stops_for_signals: bool,
}

/// How a wait for the lead ended.
#[derive(Debug)]
pub enum LeadWait<'s> {
    /// This thread leads.
    Leads(SessionLeader<'s>),
    /// `is_done` is true: another leader has brought what this thread waits for.
    Done,
    /// The moment has passed.
    TimedOut,
}

impl Session {
    /// Waits for the lead.
    pub fn lead(&self) -> SessionLeader<'_> {
        loop {
            if let LeadWait::Leads(leader) = self.follow(None, false, || false) {
                return leader;
            }
        }
    }

    /// Waits for the lead, for a moment, or until `is_done`, which is asked again after each batch of events that another leader
    /// has returned and passed on. It must not call this session's `lead` or `follow`. With `steps_aside` the turn of this
    /// leader ends as [`SessionTurn::Wanted`] when a thread without it waits, which then leads first: for a thread in the
    /// background.
    pub fn follow(
        &self,
        until: Option<Instant>,
        steps_aside: bool,
        mut is_done: impl FnMut() -> bool,
    ) -> LeadWait<'_> {
        let mut lead = locked(&self.lead);
        lead.followers += 1;
        lead.eager += usize::from(!steps_aside);
        let waited = loop {
            if is_done() {
                break LeadWait::Done;
            }
            if (!steps_aside || lead.eager == 0)
                && let Some(half) = lead.take()
            {
                lead.steps_aside = steps_aside;
                break LeadWait::Leads(SessionLeader {
                    session: self,
                    half: Some(half),
                    steps_aside,
                    stops_for_signals: false,
                });
            }
            if lead.steps_aside && !steps_aside && lead.half.is_none() {
                self.wake.bell.ring();
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            lead = match left {
                None => self.lead_changed.wait(lead).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => break LeadWait::TimedOut,
                Some(left) => {
                    self.lead_changed.wait_timeout(lead, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        };
        lead.followers -= 1;
        lead.eager -= usize::from(!steps_aside);
        let has_followers = lead.followers > 0;
        drop(lead);
        // The last eager one did not take a free lead: one that steps aside may.
        if has_followers && !matches!(waited, LeadWait::Leads(_)) {
            self.lead_changed.notify_all();
        }
        waited
    }

    /// Calls `pass_on` for the thread that lends its lead ([`SessionLeader::lend`]) and waits for this one: meanwhile this one may lead in
    /// its place. Without such a thread it only calls.
    pub fn stand_in<R>(&self, pass_on: impl FnOnce() -> R) -> R {
        let replace = |by: Option<ThreadId>| {
            let mut lead = locked(&self.lead);
            let before = lead.lent_to;
            lead.lent_to = before.and(by);
            before
        };
        let lender = replace(Some(thread::current().id()));
        let passed = pass_on();
        replace(lender);
        passed
    }

    /// Has followers look again whether they are done.
    fn notify_followers(&self) {
        // A follower that has looked holds the lock until it waits.
        let has_followers = locked(&self.lead).followers > 0;
        if has_followers {
            self.lead_changed.notify_all();
        }
    }
}

impl Drop for SessionLeader<'_> {
    fn drop(&mut self) {
        let mut lead = locked(&self.session.lead);
        lead.half = self.half.take();
        let has_followers = lead.followers > 0;
        drop(lead);
        // A notification costs a system call, also without anybody to hear it.
        if has_followers {
            self.session.lead_changed.notify_all();
        }
    }
}

/// The lead of a leader whose thread may lead within, until this is dropped.
struct LentLead<'l, 's> {
    leader: &'l mut SessionLeader<'s>,
    /// To whom it was lent before: this is a lead within another one.
    before: Option<ThreadId>,
}

impl Drop for LentLead<'_, '_> {
    fn drop(&mut self) {
        let mut lead = locked(&self.leader.session.lead);
        lead.lent_to = self.before;
        lead.steps_aside = self.leader.steps_aside;
        self.leader.half = lead.half.take();
    }
}

impl SessionLeader<'_> {
    /// Lets a turn also end, as [`SessionTurn::Interrupted`], when this thread has handled any signal during the wait of the turn:
    /// for a program that handles signals by itself, such as an interpreter. The turn does not notice a signal that is handled right
    /// before its wait, so such a program limits each turn by a moment.
    pub fn stop_for_signals(&mut self) {
        self.stops_for_signals = true;
    }

    /// Takes the memory of results that a turn returned ([`crate::ReceivedOutput::Inline`]) and that are not needed any more, for the next
    /// ones: a result of 64 KiB needs 16 pages, and fresh ones cost more than to copy it.
    pub fn reuse(&mut self, results: Vec<Vec<u8>>) {
        if let Some(half) = &mut self.half {
            half.reuse(results);
        }
    }

    /// Calls `pass_on`, which may lead this session in this thread meanwhile: it passes events on, and what hears them waits for others.
    /// Other threads wait as if this leader was in a turn.
    pub fn lend<R>(&mut self, pass_on: impl FnOnce() -> R) -> R {
        let mut lead = locked(&self.session.lead);
        lead.half = self.half.take();
        let before = lead.lent_to.replace(thread::current().id());
        drop(lead);
        let lent = LentLead { leader: self, before };
        let passed = pass_on();
        drop(lent);
        passed
    }

    /// Sends what is queued, and waits until there are events, or for what else a [`SessionTurn`] names. Adds the events to
    /// `events`, in the order in which they came.
    ///
    /// # Errors
    /// The connection has ended, or the daemon broke the protocol. The events say of each job that it is lost. Every later turn
    /// fails as closed.
    pub fn turn(
        &mut self,
        until: Option<Instant>,
        mut interrupts: Option<&mut Interrupts>,
        events: &mut Vec<SessionEvent>,
    ) -> Result<SessionTurn, Error> {
        self.session.notify_followers();
        let (before, mut is_due) = (events.len(), false);
        loop {
            let (has_unsent, wake_at) = self.send(events)?;
            if let Some(turn) = self.over(events.len() > before) {
                return Ok(turn);
            }
            if is_due {
                return Ok(SessionTurn::TimedOut);
            }
            let now = Instant::now();
            // It looks once at what has come, also if the moment has passed.
            is_due = until.is_some_and(|until| until <= now);
            let moment = until.into_iter().chain(wake_at).min();
            let left = moment.map(|moment| moment.saturating_duration_since(now));
            let fd = self.session.socket.as_fd();
            let socket = PollTarget { fd, readable: true, writable: has_unsent };
            let bell = PollTarget::readable(self.session.wake.bell.as_fd());
            let signals = interrupts
                .as_deref()
                .map_or(PollTarget::end(fd), |found| PollTarget::readable(found.as_fd()));
            let [socket, rung, signalled] = poll::wait([socket, bell, signals], left)?;
            if rung.readable {
                self.session.wake.bell.hear();
                self.session.wake.is_rung.store(false, Ordering::Release);
            }
            if socket.readable {
                self.read(events)?;
            } else {
                // What nobody has read is no silence of the daemon's.
                locked(&self.session.outbox).judge_silence();
            }
            if signalled.readable && interrupts.as_deref_mut().is_some_and(Interrupts::take) {
                return Ok(SessionTurn::Interrupted);
            }
            // Nothing was ready, and the time is not over: a signal was handled.
            let is_early = moment.is_none_or(|moment| Instant::now() < moment);
            let is_idle = !(socket.readable || socket.writable || rung.readable || signalled.readable);
            if self.stops_for_signals && is_idle && is_early && events.len() == before {
                return Ok(SessionTurn::Interrupted);
            }
        }
    }

    /// Whether this turn is over without a wait.
    fn over(&self, has_events: bool) -> Option<SessionTurn> {
        if has_events {
            return Some(SessionTurn::Heard);
        }
        if self.session.wake.is_woken.swap(false, Ordering::AcqRel) {
            return Some(SessionTurn::Woken);
        }
        let is_wanted = self.steps_aside && locked(&self.session.lead).eager > 0;
        is_wanted.then_some(SessionTurn::Wanted)
    }

    /// Sends what the socket takes. Gives whether bytes are left, and when to look again at the latest: a busy daemon wants no submit
    /// until then, or has owed an answer for too long.
    fn send(&self, events: &mut Vec<SessionEvent>) -> Result<(bool, Option<Instant>), Error> {
        let mut outbox = locked(&self.session.outbox);
        let has_unsent = outbox.flush(self.session.socket.as_fd(), Instant::now());
        outbox.tell(events);
        if let Some(fault) = outbox.take_fault() {
            outbox.lose(events);
            drop(outbox);
            self.session.room.notify_all();
            return Err(fault);
        }
        let has_room = outbox.room_waiters > 0 && !outbox.is_full();
        let wake_at = outbox.not_before().into_iter().chain(outbox.silent_until()).min();
        drop(outbox);
        if has_room {
            self.session.room.notify_all();
        }
        Ok((has_unsent, wake_at))
    }

    /// Reads once, and takes all replies that are whole.
    fn read(&mut self, events: &mut Vec<SessionEvent>) -> Result<(), Error> {
        let Some(half) = &mut self.half else { return Ok(()) };
        let mut heard = Vec::new();
        let read = half.read(self.session.socket.as_fd()).and_then(|()| {
            while let Some((frame, _)) = half.next_frame()? {
                let (tag, reply) = (frame.tag, heard_reply(frame, half)?);
                half.check_late(self.session.socket.as_fd())?;
                heard.push((tag, reply));
            }
            Ok(())
        });
        let mut outbox = locked(&self.session.outbox);
        outbox.note_sign_of_life();
        outbox.free(half.freed());
        let taken = heard.into_iter().try_for_each(|(tag, reply)| outbox.hear(tag, reply, events));
        // The next look at the outbox tells what is lost, and returns the error.
        if let Err(fault) = taken.and(read) {
            half.forget();
            outbox.fail(fault);
        }
        Ok(())
    }
}

/// A reply with its descriptors.
fn heard_reply(frame: ReplyFrame, half: &mut FrameReceiver) -> Result<HeardReply, Error> {
    Ok(match frame.reply {
        Reply::Accepted { first, count, refused } => HeardReply::Accepted { first, count, refused },
        Reply::Refused(refusal) => HeardReply::Refused(refusal),
        Reply::Ended(ends) => {
            let ends = ends.into_iter().map(|end| JobEnd::receive(end, half));
            HeardReply::Ended(ends.collect::<Result<_, _>>()?)
        }
        Reply::Held { first, ended } => {
            let through = first.saturating_add(ended.len() as u64).saturating_sub(1);
            let ends = ended.into_iter().map(|end| JobEnd::receive(end, half));
            HeardReply::Held { through, ends: ends.collect::<Result<_, _>>()? }
        }
        Reply::Progress { job, done, total } => HeardReply::Progress { job, done, total },
        Reply::Unknown(unknown) => HeardReply::Unknown(unknown),
        Reply::Changed { .. } => HeardReply::Cancelled(Vec::new()),
        Reply::CancelledWaiting { running, .. } => HeardReply::Cancelled(running),
        Reply::Registered { number } => HeardReply::Registered(number),
        Reply::Freed { jobs } => HeardReply::Freed(jobs),
        Reply::Notice(text) => HeardReply::Notice(text),
        Reply::Job(detail) => HeardReply::Answer(SessionAnswer::Job(detail)),
        Reply::Workers(rows) => HeardReply::Answer(SessionAnswer::Workers(rows)),
        Reply::Status(status) => HeardReply::Answer(SessionAnswer::Status(status)),
        Reply::Goodbye(refusal) => return Err(Error::Goodbye(refusal)),
        other => return Err(ProtocolError::Reply(reply_name(&other)).into()),
    })
}
