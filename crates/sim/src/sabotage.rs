//! Deliberate defects, to prove that the oracles bite: each breaks the shell or the core's output in one way,
//! and a test says which oracle must see it.
//!
//! Never used otherwise; a run without one must not depend on this file.

use bulkhead_core::action::{Action, Output, TaskFile};
use bulkhead_core::config::{Config, Users};
use bulkhead_core::event::Event;
use bulkhead_proto::client::evidence::Evidence;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::{BoundPart, Refusal};
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::{JobId, Seq, WorkerId};
use bulkhead_proto::limits::PRIORITY_MAX;
use bulkhead_proto::worker::stage::Stage;

use crate::crowds::FIRST_HOSTILE;
use crate::rng::SimRng;
use crate::slack;

/// One deliberate defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Shell: says that a worker that runs something is dead.
    EarlyProof,
    /// Shell: reports claimed offers as unclaimed, and the other way round.
    WrongRemains,
    /// Shell: loses reports.
    LoseReports,
    /// Shell: says that every take-back succeeded.
    FalseTakeBack,
    /// Shell: sends each reply twice.
    TwiceTold,
    /// Shell: kills no worker.
    NoKill,
    /// Shell: keeps outputs for ever.
    KeepOutputs,
    /// Shell: frees no output and no log.
    NeverFree,
    /// Shell: keeps logs for ever.
    KeepLogs,
    /// Shell: shows more than a worker uses, and none of its progress.
    Exaggerate,
    /// Shell: while one pool cannot start a worker, starts none of the other.
    OneForAll,
    /// Shell: does not tell that a worker was stopped.
    DeafToStops,
    /// Shell: does not tell that a program was stopped.
    DeafToProgramStops,
    /// Core: is told of half the limit of stopped programs.
    ImpatientWithPrograms,
    /// Core: is not told that kinds have pools of their own.
    WrongPool,
    /// Core: is told that no pool lends slots.
    LendNothing,
    /// Core: is told to lend at once.
    LendAtOnce,
    /// Core: is told that users have no hard shares.
    NoHardShares,
    /// Core: is told that workers serve all users.
    SharedWorkers,
    /// Core: is told that it has one user, whose stuck workers bound nothing.
    NoStuckShares,
    /// Core: lets workers run more than their share of tasks.
    NoRecycling,
    /// Core: loses some replies.
    LoseReplies,
    /// Core: loses the first ends of each turn.
    LoseEnds,
    /// Core: charges no job.
    NoBlame,
    /// Core: charges an innocent job.
    WrongBlame,
    /// Core: says that done jobs were cancelled.
    FalseOutcome,
    /// Core: spawns no worker after a while.
    NoSpawn,
    /// Core: skips a seq.
    SkipSeq,
    /// Core: makes the same offer to the next seq again.
    OfferTwice,
    /// Core: never drops an output.
    LeakOutputs,
    /// Core: drops an output twice.
    DropTwice,
    /// Core: never drops a file.
    LeakFiles,
    /// Core: drops a file as soon as it is offered.
    LoseFiles,
    /// Core: never drops a shared output.
    LeakScratches,
    /// Core: takes every client for an administrator.
    AllAdmins,
    /// Core: is told priorities that have the right order within a client and a wrong one between two.
    PrioritiesApart,
    /// Core: takes all clients for one user.
    AllOneUser,
    /// Core: never drops a log.
    LeakLogs,
    /// Core: drops a log twice.
    DropLogTwice,
    /// Core: drops a log as soon as it was shown.
    LoseLogs,
    /// Core: shows the log that was made before.
    WrongLog,
    /// Core: shows a log as that of the attempt before.
    WrongAttempt,
    /// Core: shows few of the logs that clients wait for.
    HideLogs,
    /// Core: is told that outputs may take any memory.
    EndlessOutputs,
    /// Core: is told that there may be any number of logs.
    EndlessLogs,
    /// Core: offers the first part again and again.
    SamePart,
    /// Core: offers merges without the results of their parts.
    LoseResults,
    /// Core: swaps the done and the missing part of a job's progress.
    FalseProgress,
    /// Core: counts records wrongly.
    WrongRecords,
    /// Core: tells no task to end.
    AskNobody,
    /// The shell never asks a worker for its stack.
    AskNoStack,
    /// Core: never settles.
    SettleNothing,
    /// Core: takes each receipt for one of more ends.
    GreedyReceipts,
    /// Core: hears no receipt.
    DeafToReceipts,
    /// Core: tells each user all of the deaths of workers that ran tasks of others.
    TellDeaths,
    /// Core: does not tell users of those deaths.
    HideDeaths,
    /// Core: tells each user the pids of all workers.
    TellPids,
    /// Core: is told of longer limits of wall time.
    LateTimeout,
    /// Core: is told of longer limits of progress.
    LateNoProgress,
    /// Core: is told of larger limits of processor time.
    LateCpu,
    /// Core: is told of larger limits of memory.
    LateMemory,
    /// Core: lets workers come up for ever.
    EndlessBootstrap,
    /// Core: lets workers leave for ever.
    EndlessLeaving,
    /// Core: lets workers stay stopped for ever.
    EndlessStops,
    /// Core: is told that jobs expire later.
    LateExpiry,
    /// Core: is told that jobs expire sooner.
    EarlyExpiry,
    /// Core: keeps jobs of clients that left for longer.
    PatientWithVanished,
    /// Core: is told that one user gets all of each bound.
    NoShares,
    /// Core: takes each connection of a hostile user for a user.
    SharesOfConnections,
    /// Core: has no room beyond its bounds for who holds little: it refuses small submits.
    RefuseSmall,
    /// Core: repeats failed attempts too soon.
    HastyRetries,
    /// Core: repeats failed attempts too late.
    PatientRetries,
    /// Core: keeps ended jobs for longer.
    LongKeep,
    /// Core: keeps ended jobs for a shorter time.
    ShortKeep,
    /// Core: keeps any number of ended jobs.
    EndlessKeep,
    /// Core: shows no list with the newest job that has ended.
    NewestFirst,
    /// Core: hears that tasks took hardly any time.
    HastyDepths,
    /// Core: is told of no strict recycling.
    LaxRecycling,
    /// Core: is told of no flavours.
    OneFlavour,
    /// Core: is told of smaller rings.
    ShallowRings,
    /// Core: hears that processes were left by another worker.
    StrangeStrays,
    /// Core: hears of no files that a worker has to close.
    DeafToUnclosed,
    /// Core: does not hear that such files were closed.
    DeafToClosed,
    /// Core: is told that all workers of a pool may come up at once.
    AllFirst,
    /// Core: does not hear that a stopped worker goes on.
    DeafToResumed,
    /// Core: says of what goes on that it was ended, when what waits was to be.
    EndRunning,
    /// Core: says of what was ended that it goes on, when what waits was to be.
    SpareWaiting,
    /// Core: answers no task that asks for an output.
    AnswerNobody,
    /// Core: gives each output twice.
    GiveTwice,
    /// Core: gives outputs to tasks that did not ask.
    GiveUnasked,
    /// Core: gives more room than there is.
    GiveTooMuch,
    /// Core: has workers forget what they are offered.
    ForgetEarly,
    /// Core: has no worker forget anything.
    ForgetNothing,
    /// Core: says that blocks are free when their job is offered.
    FreeEarly,
    /// Core: says of no block that it is free.
    FreeNothing,
    /// Core: has tasks use arenas without a bound.
    EndlessArenas,
    /// Journal: says that facts are stored before they are.
    EarlyStored,
    /// Journal: says so of what was not written.
    SkipWrites,
    /// Journal: after a commit that failed, takes what it had written for stored.
    TrustLaterSync,
    /// Core: loses ends of jobs among its facts.
    LoseFacts,
    /// Core: says twice that an attempt ended.
    ChargeTwice,
    /// Core: says of another attempt that it ended the job.
    WrongFence,
    /// Core: gives numbers of jobs anew.
    ReuseNumbers,
}

impl Sabotage {
    /// Breaks what each part of the simulation breaks of the core's actions.
    fn spoil_actions(self, actions: &mut Vec<Action>, rng: &mut SimRng) {
        self.spoil_logs(actions, rng);
        self.spoil_answers(actions);
        self.spoil_arenas(actions);
        self.spoil_waiting(actions);
        self.spoil_registrations(actions);
    }

    /// Breaks the output of the core.
    pub(crate) fn spoil(self, out: &mut Output, rng: &mut SimRng) {
        self.spoil_actions(&mut out.actions, rng);
        self.spoil_facts(&mut out.facts);
        let Output { records, actions, .. } = out;
        actions.iter_mut().for_each(|action| self.spoil_sight(action));
        match self {
            Self::LoseReplies => actions.retain(|action| !(is_reply(action) && rng.chance(200))),
            Self::LoseEnds => actions.retain(|action| !is_end(action)),
            Self::NoBlame => records.iter_mut().for_each(|record| {
                if let What::Blamed { worker, .. } = record.what {
                    record.what = What::NobodyBlamed { worker };
                }
            }),
            Self::WrongBlame => records.iter_mut().for_each(|record| {
                if let What::Blamed { job, .. } = &mut record.what {
                    *job = JobId(job.0.saturating_sub(1).max(1));
                }
            }),
            Self::FalseOutcome => actions.iter_mut().for_each(falsify),
            Self::NoSpawn => actions.retain(|action| !is_late_spawn(action)),
            Self::SkipSeq => actions.iter_mut().for_each(|action| {
                if let Action::Offer { seq, .. } = action {
                    *seq = Seq(seq.0 * 2);
                }
            }),
            Self::OfferTwice => double(actions, |action| match action {
                Action::Offer { worker, seq, task } => {
                    Some(Action::Offer { worker: *worker, seq: Seq(seq.0 + 1), task: task.clone() })
                }
                _ => None,
            }),
            Self::LeakOutputs => actions.retain(|action| !matches!(action, Action::DropOutput { .. })),
            Self::DropTwice => double(actions, |action| match action {
                Action::DropOutput { .. } => Some(action.clone()),
                _ => None,
            }),
            Self::LeakFiles => actions.retain(|action| !matches!(action, Action::DropFile { .. })),
            Self::LeakScratches => actions.retain(|action| !matches!(action, Action::DropScratch { .. })),
            Self::LoseFiles => double(actions, |action| {
                let Action::Offer { task, .. } = action else { return None };
                task.files.iter().find_map(|file| match file {
                    TaskFile::Client { file, .. } => Some(Action::DropFile { file: *file }),
                    _ => None,
                })
            }),
            Self::SamePart => actions.iter_mut().for_each(begin_again),
            Self::LoseResults => actions.iter_mut().for_each(|action| {
                if let Action::Offer { task, .. } = action {
                    task.files.retain(|file| !matches!(file, TaskFile::Results { .. }));
                }
            }),
            Self::FalseProgress => actions.iter_mut().for_each(|action| {
                if let Action::Reply { reply: Reply::Progress { done, total, .. }, .. } = action {
                    *done = total.saturating_sub(*done);
                }
            }),
            Self::WrongRecords => records.iter_mut().for_each(|record| record.index += record.index / 3),
            Self::NewestFirst => slack::hide_newest(actions),
            Self::AskNoStack => actions.retain(|action| !matches!(action, Action::AskStack { .. })),
            Self::AskNobody => actions.retain(|action| !matches!(action, Action::Unwant { .. })),
            Self::SettleNothing => actions.retain(|action| !matches!(action, Action::Settle { .. })),
            Self::RefuseSmall => actions.iter_mut().for_each(refuse),
            // The others break the shell, or what the core is told.
            _ => {}
        }
    }

    /// Breaks what the core says of jobs that were to be ended if they wait.
    fn spoil_waiting(self, actions: &mut [Action]) {
        for action in actions {
            if let Action::Reply { reply: Reply::CancelledWaiting { ended, running, .. }, .. } = action {
                match self {
                    Self::EndRunning => ended.append(running),
                    Self::SpareWaiting => running.append(ended),
                    _ => {}
                }
            }
        }
    }

    /// Breaks what a user is shown of others.
    fn spoil_sight(self, action: &mut Action) {
        let Action::Reply { reply, .. } = action else { return };
        match (self, reply) {
            (Self::TellDeaths, Reply::Events { records, .. }) => {
                records.iter_mut().for_each(|record| tell_all(&mut record.what));
            }
            (Self::HideDeaths, Reply::Events { records, .. }) => {
                records.retain(|record| !matches!(record.what, What::WorkerGone { .. }));
            }
            (Self::TellPids, Reply::Workers(rows)) => {
                rows.iter_mut().for_each(|row| row.pid = row.pid.or(Some(1)));
            }
            _ => {}
        }
    }

    /// Breaks what the core decided about logs.
    fn spoil_logs(self, actions: &mut Vec<Action>, rng: &mut SimRng) {
        match self {
            Self::LeakLogs => actions.retain(|action| !matches!(action, Action::DropLog { .. })),
            Self::DropLogTwice => double(actions, |action| match action {
                Action::DropLog { .. } => Some(action.clone()),
                _ => None,
            }),
            Self::LoseLogs => double(actions, |action| match action {
                Action::ShowLog { log, .. } => Some(Action::DropLog { log: *log }),
                _ => None,
            }),
            Self::WrongLog | Self::WrongAttempt => actions.iter_mut().for_each(|action| {
                if let Action::ShowLog { log, reply: Reply::Logs { attempt, .. }, .. } = action {
                    log.0 -= u64::from(self == Self::WrongLog);
                    *attempt -= u32::from(self == Self::WrongAttempt);
                }
            }),
            Self::HideLogs => actions.retain(|action| !is_shown(action) || rng.chance(300)),
            _ => {}
        }
    }
}

/// The configuration as the core gets it.
pub(crate) fn told(config: &Config, sabotage: Option<Sabotage>) -> Config {
    let mut config = config.clone();
    if let Some(sabotage) = sabotage {
        slack::slacken(&mut config, sabotage);
    }
    match sabotage {
        Some(Sabotage::NoRecycling) => config.recycle_tasks = None,
        Some(Sabotage::LendNothing) => lend_all(&mut config, |lend_max| *lend_max = 0),
        Some(Sabotage::LendAtOnce) => config.lend_after_ms = config.lend_after_ms.map(|_| 0),
        Some(Sabotage::NoHardShares) => {
            config.running_max = None;
            config.pools.iter_mut().for_each(|pool| pool.running_max = None);
        }
        Some(Sabotage::SharedWorkers) => {
            config.one_user = false;
            config.pools.iter_mut().for_each(|pool| pool.one_user = false);
        }
        Some(Sabotage::LaxRecycling) => {
            config.recycle_strict = false;
            config.pools.iter_mut().for_each(|pool| pool.recycle_strict = false);
        }
        Some(Sabotage::EndlessOutputs) => config.outputs_bytes_max = u64::MAX / 4,
        Some(Sabotage::EndlessLogs) => config.keep_logs_max = u64::MAX,
        Some(Sabotage::ImpatientWithPrograms) => {
            config.program_stopped_ms = config.program_stopped_ms.map(|limit_ms| limit_ms / 2);
        }
        Some(Sabotage::NoShares | Sabotage::NoStuckShares) => config.users = Users::One,
        Some(Sabotage::WrongPool) => config.kinds.iter_mut().for_each(|kind| kind.pool.clear()),
        _ => {}
    }
    config
}

fn lend_all(config: &mut Config, change: impl Fn(&mut u16)) {
    change(&mut config.lend_max);
    config.pools.iter_mut().for_each(|pool| change(&mut pool.lend_max));
}

/// Makes the first part of every part.
fn begin_again(action: &mut Action) {
    if let Action::Offer { task, .. } = action
        && let Stage::Run { part, .. } = &mut task.stage
    {
        *part = 0;
    }
}

/// The events as the core gets them.
pub(crate) fn hide(sabotage: Option<Sabotage>, batch: &mut Vec<Event>) {
    if let Some(sabotage) = sabotage {
        slack::slacken_batch(batch, sabotage);
    }
    match sabotage {
        Some(Sabotage::DeafToStops) => batch.retain(|event| !matches!(event, Event::Suspended { .. })),
        Some(sabotage @ (Sabotage::DeafToUnclosed | Sabotage::DeafToClosed)) => {
            batch.retain(|event| !slack::is_about_files(event, sabotage));
        }
        Some(Sabotage::DeafToResumed) => batch.retain(|event| !matches!(event, Event::Resumed { .. })),
        Some(Sabotage::DeafToReceipts) => batch.retain(|event| receipt(event).is_none()),
        Some(Sabotage::GreedyReceipts) => batch.iter_mut().for_each(|event| {
            if let Event::ClientSaid { request: Request::Received { through }, .. } = event {
                *through += 1;
            }
        }),
        Some(Sabotage::DeafToProgramStops) => {
            batch.retain(|event| !matches!(event, Event::ProgramStopped { .. }));
        }
        Some(Sabotage::SharesOfConnections) => batch.iter_mut().for_each(|event| {
            if let Event::ClientConnected { client, peer } = event
                && (FIRST_HOSTILE..FIRST_HOSTILE + 100).contains(&peer.uid)
            {
                peer.uid = 5000 + client.0 as u32;
            }
        }),
        Some(Sabotage::OneFlavour) => batch.iter_mut().for_each(|event| {
            if let Event::ClientSaid { request: Request::Submit(submit), .. } = event {
                submit.flavour = 0;
            }
        }),
        Some(Sabotage::RefuseSmall) => batch.iter_mut().for_each(|event| {
            if let Event::ClientSaid { request: Request::Submit(submit), .. } = event
                && submit.inputs.len() == 1
            {
                submit.kind = "no-such-kind".to_owned();
            }
        }),
        Some(Sabotage::PrioritiesApart) => batch.iter_mut().for_each(|event| {
            if let Event::ClientSaid { client, request: Request::Submit(submit), .. } = event {
                let half = if client.0.is_multiple_of(2) { 0 } else { PRIORITY_MAX / 2 + 1 };
                submit.policy.priority = half + submit.policy.priority / 2;
            }
        }),
        Some(Sabotage::AllOneUser) => batch.iter_mut().for_each(|event| {
            if let Event::ClientConnected { peer, .. } = event {
                peer.uid = 1000;
            }
        }),
        Some(Sabotage::AllAdmins) => batch.iter_mut().for_each(|event| {
            if let Event::ClientConnected { peer, .. } = event {
                peer.admin = true;
            }
        }),
        _ => {}
    }
}

fn receipt(event: &Event) -> Option<u64> {
    match event {
        Event::ClientSaid { request: Request::Received { through }, .. } => Some(*through),
        _ => None,
    }
}

fn is_shown(action: &Action) -> bool {
    matches!(action, Action::ShowLog { .. })
}

/// Makes a death of a worker that ran tasks of others one that shows everything.
fn tell_all(what: &mut What) {
    if let What::WorkerGone { worker, slot } = *what {
        let (death, evidence) = (Death::Retired, Evidence::default());
        *what = What::Died { worker, pid: 1, slot, death, evidence, noticed_after_us: None, ended: 0 };
    }
}

/// Says that the queue is full where a kind is unknown.
fn refuse(action: &mut Action) {
    if let Action::Reply { reply: Reply::Refused(refusal), .. } = action
        && matches!(refusal, Refusal::UnknownKind { .. })
    {
        let (what, limit) = ("queued jobs".to_owned(), 1);
        *refusal = Refusal::Busy { what, limit, part: BoundPart::All, key: None, retry_after_ms: 1 };
    }
}

fn is_reply(action: &Action) -> bool {
    matches!(action, Action::Reply { .. })
}

fn is_end(action: &Action) -> bool {
    matches!(action, Action::Reply { reply: Reply::Ended(_) | Reply::Held { .. }, .. })
}

fn is_late_spawn(action: &Action) -> bool {
    matches!(action, Action::Spawn { worker, .. } if *worker > WorkerId(3))
}

fn falsify(action: &mut Action) {
    if let Action::Reply { reply: Reply::Ended(all) | Reply::Held { ended: all, .. }, .. } = action {
        for ended in all.iter_mut().filter(|ended| ended.outcome == Outcome::Done) {
            ended.outcome = Outcome::Crashed { crashes: 1, last: Death::Retired.to_string() };
        }
    }
}

/// Puts a changed copy behind each action that has one.
pub(crate) fn double(actions: &mut Vec<Action>, copy: impl Fn(&Action) -> Option<Action>) {
    let mut doubled = Vec::with_capacity(actions.len());
    for action in actions.drain(..) {
        let twin = copy(&action);
        doubled.push(action);
        doubled.extend(twin);
    }
    *actions = doubled;
}
