//! Requests of clients: drawn from everything that the protocol allows, and some that it does not.
//!
//! A client knows only the numbers in its replies, and now and then guesses one. The oracles never see the draws: they
//! follow the events that the core gets.

use bulkhead_proto::client::message::{Request, Submit, Walk};
use bulkhead_proto::file::{FileUse, IN, OUT, Way};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::{JobState, OutputMode, Payload, Policy};
use bulkhead_proto::limits::{BATCH_MAX, CANCEL_GRACE_MAX_MS, MEMORY_MIN_BYTES};

use crate::client::Role;
use crate::truth::Truth;
use crate::world::World;

impl World {
    /// The next request of a client.
    pub(crate) fn make_request(&mut self, place: usize) -> Request {
        match self.clients[place].role {
            Role::Flooder => return self.flood(),
            Role::Single => return self.single(),
            Role::Mixed if self.rng.chance(self.scenario.faults.rude) => return self.nonsense(),
            Role::Mixed if self.scenario.logs && self.rng.chance(250) => return self.ask_for_log(place),
            Role::Mixed if self.scenario.registers && self.rng.chance(200) => {
                return self.register_something(place);
            }
            Role::Mixed => {}
        }
        match self.rng.below(24) {
            0..=7 => self.submit(place),
            8..=9 => Request::Wait { jobs: self.some_jobs(place) },
            10 => Request::Result { job: self.some_job(place) },
            11 => Request::Cancel { jobs: self.some_jobs(place) },
            12 => Request::Retry { jobs: self.some_jobs(place) },
            13 => Request::Forget { jobs: self.some_jobs(place) },
            14 => self.list(),
            15 => match self.some_job(place) {
                job if job.0 % 2 == 0 => Request::Why { job },
                job => Request::Job { job },
            },
            16 => Request::Events { after: self.rng.below(50), follow: self.rng.chance(300) },
            17 => Request::Workers,
            18 => Request::Status,
            19 => Request::Deaths { limit: self.rng.below(50) as u32 },
            20..=21 => self.receipt(place),
            22 => Request::CancelWaiting { jobs: self.some_jobs(place) },
            _ if self.rng.chance(500) => Request::Kinds,
            _ => Request::Ping,
        }
    }

    fn truth(&mut self) -> Truth {
        if !self.rng.chance(self.scenario.trouble) {
            return Truth::Harmless(*self.rng.pick(&[0, 5, 50, 400, 3000, 60_000]));
        }
        match self.rng.below(5) {
            0 => Truth::Slow(self.rng.span(20_000) as u16),
            1 => Truth::Poison(1000),
            2 => Truth::Poison(self.rng.between(100, 900) as u16),
            3 => Truth::Fails(self.rng.between(1, 5) as u16),
            _ => Truth::Loops,
        }
    }

    fn input(&mut self) -> Payload {
        let nonce = self.rng.draw();
        self.truth().hide(nonce)
    }

    fn policy(&mut self) -> Policy {
        let mut policy = Policy { priority: self.rng.below(10) as u8, ..Policy::default() };
        policy.crashes_max = Some(self.rng.between(1, 4) as u8);
        policy.retries_max = Some(self.rng.below(4) as u8);
        if self.rng.chance(300) {
            policy.timeout_ms = Some(1 + self.rng.span(20_000));
        }
        if self.rng.chance(150) {
            policy.no_progress_ms = Some(1 + self.rng.span(10_000));
        }
        if self.rng.chance(150) {
            policy.cpu_ms = Some(1 + self.rng.span(10_000));
        }
        if self.rng.chance(150) {
            policy.memory_bytes = Some(MEMORY_MIN_BYTES + self.rng.span(64 << 20));
        }
        if self.rng.chance(200) {
            policy.grace_ms = Some(*self.rng.pick(&[0, 100, 2000]));
        }
        if self.rng.chance(150) {
            policy.expires_ms = Some(1 + self.rng.span(20_000));
        }
        if self.rng.chance(200) {
            policy.output = OutputMode::Descriptor;
        }
        policy
    }

    fn submit(&mut self, place: usize) -> Request {
        let count = if self.rng.chance(50) { self.rng.between(30, 300) } else { self.rng.between(1, 12) };
        let kind = (*self.rng.pick(&["quick", "quick", "few", "solo", "fan"])).to_owned();
        let mut inputs: Vec<Payload> = match kind.as_str() {
            "fan" => (0..count.min(4)).map(|_| self.split_input()).collect(),
            _ => (0..count).map(|_| self.input()).collect(),
        };
        let (mut policy, mut files) = (self.policy(), Vec::new());
        if self.rng.chance(200) {
            files = vec![FileUse::new(IN, Way::In), FileUse::new(OUT, Way::Out)];
            inputs.truncate(1);
            policy.output = *self.rng.pick(&[OutputMode::Inline, OutputMode::Descriptor, OutputMode::File]);
        }
        policy.output = self.inline_or_auto(policy.output);
        let attached = self.rng.chance(600);
        let progress = attached && self.rng.chance(400);
        let held = attached && self.rng.chance(500);
        let flavour = self.some_flavour();
        let registered = self.use_something(place, attached && kind != "fan");
        let durable = self.some_durable(
            &mut policy,
            kind != "fan" && files.is_empty() && registered.is_none(),
            attached,
        );
        Request::Submit(Submit {
            kind,
            policy,
            attached,
            held,
            progress,
            flavour,
            files,
            registered,
            durable,
            inputs,
        })
    }

    /// A receipt of some of the held ends that a client got, now and then of one that it did not get.
    fn receipt(&mut self, place: usize) -> Request {
        let got = self.clients[place].held;
        let through = match self.rng.below(10) {
            0 => got + self.rng.below(3),
            1..=3 => self.rng.below(got + 1),
            _ => got,
        };
        Request::Received { through }
    }

    /// A job that is done in parts: none, few, many.
    fn split_input(&mut self) -> Payload {
        let parts = *self.rng.pick(&[0, 1, 2, 5, 17, 60, 200]);
        let trouble = match self.rng.chance(self.scenario.trouble) {
            true => *self.rng.pick(&[3, 20, 100]),
            false => 0,
        };
        Truth::Fan(parts, trouble).hide(self.rng.draw())
    }

    /// Many quick jobs at once.
    fn flood(&mut self) -> Request {
        let count = self.rng.between(20, 120);
        let took = *self.rng.pick(&[0, 20, 700]);
        let is_fan = self.rng.chance(200);
        let truth = if is_fan { Truth::Fan(200, 0) } else { Truth::Harmless(took) };
        let inputs = (0..if is_fan { 2 } else { count }).map(|_| truth.hide(self.rng.draw())).collect();
        let policy = Policy { priority: 9, ..Policy::default() };
        Request::Submit(Submit {
            kind: if is_fan { "fan" } else { "quick" }.to_owned(),
            policy,
            attached: self.rng.chance(500),
            inputs,
            ..Submit::default()
        })
    }

    /// One job; its owner waits for it before the next.
    fn single(&mut self) -> Request {
        let inputs = vec![Truth::Harmless(100).hide(self.rng.draw())];
        let policy = Policy { priority: 0, ..Policy::default() };
        Request::Submit(Submit {
            kind: "quick".to_owned(),
            policy,
            attached: true,
            inputs,
            ..Submit::default()
        })
    }

    pub(crate) fn some_job(&mut self, place: usize) -> JobId {
        let jobs = &self.clients[place].jobs;
        if jobs.is_empty() || self.rng.chance(100) {
            return JobId(self.rng.below(40));
        }
        *self.rng.pick(jobs)
    }

    fn some_jobs(&mut self, place: usize) -> Vec<JobId> {
        let count = self.rng.between(1, 10);
        let mut jobs: Vec<JobId> = (0..count).map(|_| self.some_job(place)).collect();
        jobs.sort_unstable();
        jobs.dedup();
        jobs
    }

    fn list(&mut self) -> Request {
        let states = [JobState::Queued, JobState::Retrying, JobState::Running, JobState::Ended];
        let state = if self.rng.chance(500) { Some(*self.rng.pick(&states)) } else { None };
        let walk = match self.rng.below(40) {
            place @ 0..20 => Walk::Up(JobId(place)),
            20 => Walk::Down(JobId(u64::MAX)),
            place => Walk::Down(JobId(place - 20)),
        };
        Request::Jobs { state, walk, limit: self.rng.between(1, 100) as u32 }
    }

    /// A request that no sane client sends.
    fn nonsense(&mut self) -> Request {
        let mut submit = Submit {
            kind: "quick".to_owned(),
            policy: Policy::default(),
            attached: true,
            ..Submit::default()
        };
        match self.rng.below(11) {
            9 => submit.files = vec![FileUse::new("1st", Way::In)],
            10 => submit.policy.output = OutputMode::File,
            0 => submit.kind = "no-such-kind".to_owned(),
            1 => submit.policy.priority = 200,
            2 => submit.policy.crashes_max = Some(0),
            3 => submit.policy.timeout_ms = Some(0),
            4 => submit.policy.expires_ms = Some(u64::MAX),
            8 => submit.policy.grace_ms = Some(CANCEL_GRACE_MAX_MS + 1),
            5 => submit.inputs = vec![self.input(), Payload::from(vec![0; 5000])],
            6 => return Request::Cancel { jobs: (0..=BATCH_MAX as u64).map(JobId).collect() },
            7 => return Request::Drain { grace_ms: Some(1) },
            _ => {}
        }
        if submit.inputs.is_empty() && self.rng.chance(700) {
            submit.inputs.push(self.input());
        }
        Request::Submit(submit)
    }
}
