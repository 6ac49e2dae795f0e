//! Proof that the oracles bite: each deliberate defect is seen, and by the right oracle.

use bulkhead_sim::runner::run_broken;
use bulkhead_sim::sabotage::Sabotage;

/// Seeds tried until the defect shows.
const SEEDS: u64 = 400;

/// Runs seeds with a defect until the right oracle sees it.
fn expect_bite(sabotage: Sabotage, right: &[&str]) {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        let Err(failure) = run_broken(seed, Some(sabotage)) else { continue };
        assert!(failure.to_string().contains(&format!("--seed {seed} ")), "a failure says how to replay it");
        assert!(!failure.tail.is_empty(), "a failure shows the end of its trace");
        if right.contains(&failure.broken.oracle) {
            return;
        }
        others.push(failure.broken);
    }
    panic!("{sabotage:?} was not seen by {right:?} in {SEEDS} seeds, but by {others:#?}");
}

macro_rules! bites {
    ($($name:ident: $sabotage:ident by $($oracle:literal)|+;)*) => {
        $(
            #[test]
            fn $name() {
                expect_bite(Sabotage::$sabotage, &[$($oracle),+]);
            }
        )*
    };
}

bites! {
    a_proof_before_the_death: EarlyProof by "exclusive";
    remains_the_wrong_way_round: WrongRemains by "blame";
    slots_that_are_not_lent: LendNothing by "lending";
    slots_that_are_lent_too_early: LendAtOnce by "lending";
    shares_that_do_not_hold: NoHardShares by "lending";
    lost_reports: LoseReports by "ends";
    a_take_back_that_was_lost: FalseTakeBack by "exclusive";
    replies_sent_twice: TwiceTold by "replies";
    nobody_is_killed: NoKill by "ends" | "pool";
    outputs_kept_for_ever: KeepOutputs by "outputs";
    memory_without_a_bound: EndlessOutputs by "memory";
    memory_that_is_never_freed: NeverFree by "memory" | "ends";
    questions_without_an_answer: AnswerNobody by "on demand";
    questions_with_two_answers: GiveTwice by "on demand";
    outputs_that_nobody_asked_for: GiveUnasked by "on demand";
    outputs_with_more_room_than_there_is: GiveTooMuch by "memory";
    arenas_without_a_bound: EndlessArenas by "arenas";
    facts_that_are_said_to_be_stored_too_early: EarlyStored by "stored";
    facts_that_are_not_written: SkipWrites by "stored" | "facts";
    a_commit_that_failed_and_is_trusted: TrustLaterSync by "stored" | "facts";
    facts_that_are_lost: LoseFacts by "facts" | "stored";
    attempts_that_end_twice: ChargeTwice by "facts";
    an_attempt_that_did_not_end_the_job: WrongFence by "facts";
    numbers_that_are_given_anew: ReuseNumbers by "facts";
    usage_exaggerated: Exaggerate by "limits";
    stops_that_are_not_told: DeafToStops by "pool";
    stops_of_programs_that_are_not_told: DeafToProgramStops by "programs";
    stopped_programs_ended_too_early: ImpatientWithPrograms by "programs";
    tasks_in_the_wrong_pool: WrongPool by "pool";
    a_pool_that_holds_the_other: OneForAll by "ends" | "pool";
    workers_that_are_not_recycled: NoRecycling by "pool";
    workers_that_are_not_recycled_strictly: LaxRecycling by "pool";
    every_client_an_administrator: AllAdmins by "users";
    deaths_of_others_told_in_full: TellDeaths by "users";
    deaths_of_others_that_are_hidden: HideDeaths by "records";
    pids_of_the_workers_of_others: TellPids by "users";
    workers_with_too_many_files_that_go_on: DeafToUnclosed by "unclosed";
    workers_replaced_for_files_that_were_closed: DeafToClosed by "unclosed";
    workers_that_do_not_wait_for_the_first: AllFirst by "first";
    workers_that_serve_two_users: SharedWorkers by "one user";
    pools_taken_by_stuck_workers: NoStuckShares by "stuck";
    bounds_without_shares: NoShares by "accounts";
    shares_of_connections: SharesOfConnections by "accounts";
    small_users_refused: RefuseSmall by "accounts";
    priorities_within_one_connection: PrioritiesApart by "levels";
    users_who_are_not_told_apart: AllOneUser by "fewest";
    lost_replies: LoseReplies by "replies";
    ends_that_are_not_told: LoseEnds by "replies";
    nobody_is_blamed: NoBlame by "blame";
    an_innocent_is_blamed: WrongBlame by "blame";
    a_false_outcome: FalseOutcome by "outcome";
    a_slot_is_lost: NoSpawn by "pool";
    a_seq_is_skipped: SkipSeq by "pool";
    an_offer_made_twice: OfferTwice by "exclusive" | "depth";
    outputs_that_leak: LeakOutputs by "outputs";
    an_output_dropped_twice: DropTwice by "outputs";
    files_that_leak: LeakFiles by "files";
    files_let_go_too_early: LoseFiles by "files";
    shared_outputs_that_leak: LeakScratches by "files";
    registrations_forgotten_too_early: ForgetEarly by "registrations";
    registrations_that_are_kept: ForgetNothing by "registrations";
    blocks_freed_too_early: FreeEarly by "registrations";
    blocks_that_are_never_freed: FreeNothing by "registrations";
    logs_kept_for_ever: KeepLogs by "logs";
    logs_of_others: AllAdmins by "logs";
    logs_that_leak: LeakLogs by "logs";
    a_log_dropped_twice: DropLogTwice by "logs";
    logs_dropped_too_early: LoseLogs by "logs" | "panic";
    the_log_of_another_job: WrongLog by "logs";
    the_log_of_another_attempt: WrongAttempt by "logs";
    logs_that_are_not_shown: HideLogs by "logs";
    more_logs_than_may_be: EndlessLogs by "logs";
    one_part_again_and_again: SamePart by "parts" | "exclusive";
    a_merge_without_results: LoseResults by "parts";
    progress_upside_down: FalseProgress by "progress";
    records_with_gaps: WrongRecords by "records";
    tasks_that_are_not_asked: AskNobody by "unwanted";
    stacks_that_are_not_asked_for: AskNoStack by "stacks";
    entries_that_are_not_settled: SettleNothing by "pool";
    results_forgotten_before_their_receipt: GreedyReceipts by "lost";
    time_limits_that_fire_too_late: LateTimeout by "limits";
    progress_limits_that_fire_too_late: LateNoProgress by "limits";
    processor_limits_that_fire_too_late: LateCpu by "limits";
    memory_limits_that_fire_too_late: LateMemory by "limits";
    workers_that_come_up_for_ever: EndlessBootstrap by "limits";
    workers_that_leave_for_ever: EndlessLeaving by "limits";
    workers_that_stay_stopped: EndlessStops by "limits";
    jobs_that_expire_too_late: LateExpiry by "expiry";
    jobs_that_expire_too_early: EarlyExpiry by "outcome";
    jobs_of_clients_that_left: PatientWithVanished by "expiry";
    attempts_repeated_too_soon: HastyRetries by "backoff";
    attempts_repeated_too_late: PatientRetries by "backoff";
    ended_jobs_kept_for_too_long: LongKeep by "kept";
    ended_jobs_kept_for_too_short: ShortKeep by "lost";
    more_ended_jobs_than_may_be: EndlessKeep by "kept";
    the_newest_result_dropped_first: NewestFirst by "kept";
    more_ahead_than_their_time_allows: HastyDepths by "depth";
    rings_that_are_not_filled: ShallowRings by "depth";
    flavours_that_are_not_told_apart: OneFlavour by "depth";
    processes_shown_to_strangers: StrangeStrays by "users";
    a_spare_that_does_not_come_back: DeafToResumed by "pool";
    what_runs_said_to_be_ended: EndRunning by "waiting";
    what_waits_said_to_run: SpareWaiting by "waiting";
    results_kept_after_their_receipt: DeafToReceipts by "receipts";
}
