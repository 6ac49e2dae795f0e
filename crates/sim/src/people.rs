//! The moves of clients: connect, ask, read, vanish; and how the fake shell hears and answers them.
//!
//! The shell reads a client only while less than its credit is on the way to it, as the real one does.

#![deny(clippy::wildcard_enum_match_arm)]

use bulkhead_core::event::{Attached, Event, Peer};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::codec;
use bulkhead_proto::ids::{ClientId, FileId, OutputId, Tag};

use crate::agenda::Move;
use crate::client::{ClientLife, FakeClient, Pace, Role};
use crate::clock::{MS, S, US};
use crate::report::{Verdict, broken};
use crate::scenario::{Profile, Shutdown};
use crate::world::{NewsSource, World};

/// Requests read from one client in one turn.
const READS_PER_TURN: u64 = 8;

impl World {
    /// Connects the clients of the start, and plans the moves that are known at the start.
    pub(crate) fn populate(&mut self) {
        let flood = self.scenario.profile == Profile::Flood;
        for number in 0..self.scenario.clients {
            let (role, uid) = match (self.scenario.crowd, flood, number) {
                (Some(crowd), ..) => crowd.maker(number),
                (None, true, 0) => (Role::Flooder, 1000),
                (None, true, _) => (Role::Single, 1000 + number as u32 / 2 + 100 * number as u32),
                (None, false, _) => (Role::Mixed, 1000 + number as u32 / 2),
            };
            self.connect(role, uid);
        }
        if self.scenario.faults.set_wall > 0 {
            let after = self.rng.span(10 * S);
            self.plan(after, Move::SetWall);
        }
        if self.scenario.shutdown.is_some() {
            let after = self.rng.span(20 * S);
            self.plan(after, Move::Shutdown);
        }
    }

    fn connect(&mut self, role: Role, uid: u32) {
        self.clients_made += 1;
        let pace = match self.rng.below(2) {
            _ if !self.rng.chance(self.scenario.faults.slow_reader) => Pace::Prompt,
            0 => Pace::Slow,
            _ => Pace::Never,
        };
        let admin = role == Role::Mixed && self.rng.chance(100);
        let acts = if role == Role::Single { 60 } else { self.scenario.acts };
        let client = FakeClient::new(ClientId(self.clients_made), uid, admin, role, pace, acts);
        let place = self.clients.len();
        self.clients.push(client);
        self.news.insert(NewsSource::Client(place));
        let after = self.rng.span(20 * MS);
        self.plan(after, Move::Act(place));
    }

    /// A client sends a request, or vanishes.
    pub(crate) fn act(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if self.calm || client.acts_left == 0 || !client.is_there() {
            return;
        }
        client.acts_left -= 1;
        if client.role == Role::Mixed && self.rng.chance(self.scenario.faults.vanish) {
            let (uid, role) = (client.uid, client.role);
            match client.connection {
                ClientLife::On => client.connection = ClientLife::Lost,
                ClientLife::New | ClientLife::Lost | ClientLife::Over => client.hang_up(),
            }
            self.news.insert(NewsSource::Client(place));
            if self.clients.len() < 20 {
                self.connect(role, uid);
            }
            return;
        }
        let request = self.make_request(place);
        self.clients[place].ask(request);
        self.news.insert(NewsSource::Client(place));
        if self.clients[place].role != Role::Single {
            let longest = self.scenario.pause_ns;
            let after = if self.rng.chance(500) { self.rng.span(longest) } else { self.rng.below(longest) };
            self.plan(after, Move::Act(place));
        }
    }

    /// A client has read everything.
    pub(crate) fn flush(&mut self, place: usize) {
        let client = &mut self.clients[place];
        client.reading = false;
        if client.is_there() && client.unread_bytes > 0 {
            client.unread_bytes = 0;
            client.flushed = true;
            self.news.insert(NewsSource::Client(place));
        }
    }

    /// Plans the reading of a client that has something to read.
    pub(crate) fn plan_reading(&mut self, place: usize) {
        let client = &mut self.clients[place];
        let waits = client.unread_bytes > 0 && !client.reading && client.is_there();
        let after = match client.pace {
            _ if !waits => return,
            Pace::Never if !self.calm => return,
            Pace::Slow if !self.calm => self.rng.span(10 * S),
            Pace::Prompt | Pace::Slow | Pace::Never => self.rng.span(100 * US),
        };
        client.reading = true;
        self.plan(after, Move::Flush(place));
    }

    /// Flushes for which the core does not wait come with the next batch, whatever makes it.
    pub(crate) fn hear_late_flushes(&mut self, batch: &mut Vec<Event>) {
        for client in std::mem::take(&mut self.late_flushes) {
            self.oracles.replies.flushed(client);
            batch.push(Event::ClientFlushed { client });
        }
    }

    /// The shell hears one client.
    pub(crate) fn hear_client(&mut self, place: usize, batch: &mut Vec<Event>) {
        let credit = self.scenario.config.client_credit_bytes;
        let reads = self.rng.between(1, READS_PER_TURN);
        let client = &mut self.clients[place];
        let id = client.id;
        if client.connection == ClientLife::New {
            client.connection = ClientLife::On;
            let peer = Peer { uid: client.uid, admin: client.admin };
            batch.push(Event::ClientConnected { client: id, peer });
        }
        if std::mem::take(&mut client.flushed) {
            self.late_flushes.push(id);
            if self.core.awaits_flush(id) {
                self.hear_late_flushes(batch);
            }
        }
        let client = &self.clients[place];
        if client.unread_bytes < credit {
            for _ in 0..reads {
                let Some((tag, request)) = self.clients[place].written.pop_front() else { break };
                // Now and then a file comes with a request that takes none.
                let count = if matches!(request, Request::Submit(_) | Request::Register(_)) {
                    request.files().len() as u64
                } else {
                    u64::from(self.rng.chance(20))
                };
                let mut files = Vec::new();
                for _ in 0..count {
                    self.files_made += 1;
                    self.files.insert(FileId(self.files_made));
                    let pinned_bytes = self.pinned_bytes(&request);
                    files.push(Attached { file: FileId(self.files_made), pinned_bytes });
                }
                batch.push(Event::ClientSaid { client: id, tag, request, files });
            }
            if !self.clients[place].written.is_empty() {
                self.news.insert(NewsSource::Client(place));
            }
        }
        let client = &mut self.clients[place];
        if client.connection == ClientLife::Lost {
            client.hang_up();
            self.news.remove(&NewsSource::Client(place));
            batch.push(Event::ClientGone { client: id });
        }
    }

    /// A reply reaches its client.
    pub(crate) fn deliver(
        &mut self,
        id: ClientId,
        tag: Tag,
        reply: Reply,
        output: Option<OutputId>,
    ) -> Verdict {
        let bytes = codec::encode(&reply).len() as u64 + 8;
        if let Some(output) = output.filter(|output| !self.held.contains(output)) {
            return broken("outputs", format!("output {output} is attached to a reply, but not held"));
        }
        self.oracles.got(self.decided_at, id, tag, &reply, output, bytes)?;
        if id == self.inspector {
            // An answer to an earlier question may have waited for the disk.
            if tag > self.answered {
                self.answers.push(reply);
            }
            return Ok(());
        }
        let Some(place) = self.clients.iter().position(|client| client.id == id) else { return Ok(()) };
        let client = &mut self.clients[place];
        if !client.is_there() {
            return Ok(());
        }
        client.unread_bytes += bytes;
        if let Reply::Accepted { first, count, .. } = &reply {
            client.jobs.extend((0..u64::from(*count)).map(|next| bulkhead_proto::ids::JobId(first.0 + next)));
        }
        if let Reply::Freed { jobs } = &reply {
            self.report.freed += jobs.len() as u64;
        }
        if let Reply::Held { first, ended } = &reply {
            client.held = first + ended.len() as u64 - 1;
        }
        let answered = reply.ends().is_some() || matches!(reply, Reply::Refused(_) | Reply::Unknown(_));
        if client.role == Role::Single && answered {
            let after = self.rng.span(MS);
            self.plan(after, Move::Act(place));
        }
        self.plan_reading(place);
        Ok(())
    }

    /// Sets the wall clock.
    pub(crate) fn set_wall(&mut self) {
        let by = self.rng.span(7_200_000_000) as i64;
        self.clock.set_wall(if self.rng.chance(500) { -by } else { by });
        if !self.calm {
            let after = self.rng.span(30 * S);
            self.plan(after, Move::SetWall);
        }
    }

    /// Tells the daemon to drain or to stop while there are faults.
    pub(crate) fn shut_down(&mut self) {
        self.told_back.push(match self.scenario.shutdown {
            Some(Shutdown::Drain(grace_ms)) => Event::Drain { grace_ms },
            Some(Shutdown::Stop) | None => Event::Stop,
        });
    }

    /// Sends requests of the inspector, and gives the replies of the same turn.
    pub(crate) fn ask_as_inspector(
        &mut self,
        requests: Vec<Request>,
    ) -> Result<Vec<Reply>, crate::report::BrokenRule> {
        let client = self.inspector;
        let mut batch = std::mem::take(&mut self.told_back);
        let peer = Peer { uid: 0, admin: true };
        if self.inspections == 0 {
            batch.push(Event::ClientConnected { client, peer });
        } else {
            self.oracles.replies.flushed(client);
            batch.push(Event::ClientFlushed { client });
        }
        self.answered = Tag(self.inspections);
        for request in requests {
            self.inspections += 1;
            batch.push(Event::ClientSaid { client, tag: Tag(self.inspections), request, files: Vec::new() });
        }
        self.answers.clear();
        self.step(batch)?;
        Ok(std::mem::take(&mut self.answers))
    }
}
