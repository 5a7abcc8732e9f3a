//! The mutants: which code is changed, and which rule that breaks.
//!
//! A snippet must occur exactly once in its file, so code that moves has its snippet here changed
//! with it. A mutant that no longer changes behaviour is removed, with the reason in the commit.

/// One way to break the engine.
pub(super) struct Mutant {
    pub(super) name: &'static str,
    /// From the engine's folder.
    pub(super) file: &'static str,
    /// What it breaks.
    pub(super) breaks: &'static str,
    pub(super) original: &'static str,
    pub(super) mutated: &'static str,
}

/// A limit made so tight in the copy that histories of a few hundred records reach it.
pub(super) struct TightLimit {
    pub(super) file: &'static str,
    pub(super) original: &'static str,
    pub(super) tight: &'static str,
}

/// The tight limits.
pub(super) const LIMITS: &[TightLimit] = &[
    TightLimit {
        file: "src/task_state.rs",
        original: "pub(crate) const CACHE_BYTES: usize = 32 << 20;",
        tight: "pub(crate) const CACHE_BYTES: usize = 600;",
    },
    TightLimit {
        file: "src/derive/derive_loop.rs",
        original: "pub const HAND_OVER_BYTES: usize = 8 << 20;",
        tight: "pub const HAND_OVER_BYTES: usize = 1 << 10;",
    },
    TightLimit {
        file: "src/derive/audit.rs",
        original: "const ENTRY_MAX_BYTES: usize = 128 << 10;",
        tight: "const ENTRY_MAX_BYTES: usize = (320 << 10) - 300;",
    },
    TightLimit {
        file: "src/derive/commit.rs",
        original: "const APPEND_BYTES: usize = 512 << 10;",
        tight: "const APPEND_BYTES: usize = 1 << 10;",
    },
    TightLimit {
        file: "src/derive/id_filter.rs",
        original: "const LOAD_ROWS: usize = 2_048;",
        tight: "const LOAD_ROWS: usize = 2;",
    },
    TightLimit {
        file: "src/derive/running.rs",
        original: "const STEP_RECORDS: usize = 64;",
        tight: "const STEP_RECORDS: usize = 3;",
    },
    TightLimit {
        file: "src/fact_pack.rs",
        original: "pub const PACK_MAX_BYTES: usize = 64 << 10;",
        tight: "pub const PACK_MAX_BYTES: usize = 600;",
    },
    TightLimit {
        file: "src/derive/limits.rs",
        original: "pub const MAX_RECORDS: usize = 20_000;",
        tight: "pub const MAX_RECORDS: usize = 16;",
    },
    TightLimit {
        file: "src/derive/timers.rs",
        original: "pub const MAX_TIMERS_PER_TICK: usize = 5_000;",
        tight: "pub const MAX_TIMERS_PER_TICK: usize = 2;",
    },
    TightLimit {
        file: "src/derive/partial.rs",
        original: "pub const EARLY_FLUSH_PARTS: u64 = 9_000;",
        tight: "pub const EARLY_FLUSH_PARTS: u64 = 3;",
    },
    TightLimit {
        file: "src/derive/flush_partials.rs",
        original: "pub const FLUSH_PARTS_MAX: usize = 1_000;",
        tight: "pub const FLUSH_PARTS_MAX: usize = 1;",
    },
    TightLimit {
        file: "src/lanes.rs",
        original: "pub const QUANTUM_UNITS: i64 = 64;",
        tight: "pub const QUANTUM_UNITS: i64 = 2;",
    },
];

/// The mutants.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "offsets_before_the_drain",
        file: "src/derive/commit_group.rs",
        breaks: "Offsets are sent while records are in flight.",
        original: r#"repeat(|| transactor.drain())
            .map_err(|error| CommitFailure::before_commit("draining a transaction", error))?;
        let token = repeat(|| member.token())
            .map_err(|error| CommitFailure::before_commit("proving membership", error))?;
        repeat(|| transactor.send_offsets(&token, offsets))
            .map_err(|error| CommitFailure::before_commit("sending offsets", error))?;"#,
        mutated: r#"let token = repeat(|| member.token())
            .map_err(|error| CommitFailure::before_commit("proving membership", error))?;
        repeat(|| transactor.send_offsets(&token, offsets))
            .map_err(|error| CommitFailure::before_commit("sending offsets", error))?;
        repeat(|| transactor.drain())
            .map_err(|error| CommitFailure::before_commit("draining a transaction", error))?;"#,
    },
    Mutant {
        name: "no_drain",
        file: "src/derive/commit_group.rs",
        breaks: "Offsets are sent without waiting for the records.",
        original: r#"repeat(|| transactor.drain())
            .map_err(|error| CommitFailure::before_commit("draining a transaction", error))?;
        let token = repeat(|| member.token())
            .map_err(|error| CommitFailure::before_commit("proving membership", error))?;
        repeat(|| transactor.send_offsets(&token, offsets))
            .map_err(|error| CommitFailure::before_commit("sending offsets", error))?;"#,
        mutated: r#"let token = repeat(|| member.token())
            .map_err(|error| CommitFailure::before_commit("proving membership", error))?;
        repeat(|| transactor.send_offsets(&token, offsets))
            .map_err(|error| CommitFailure::before_commit("sending offsets", error))?;"#,
    },
    Mutant {
        name: "no_offsets",
        file: "src/derive/commit_group.rs",
        breaks: "Records are committed without the offsets of their input.",
        original: r#"repeat(|| transactor.drain())
            .map_err(|error| CommitFailure::before_commit("draining a transaction", error))?;
        let token = repeat(|| member.token())
            .map_err(|error| CommitFailure::before_commit("proving membership", error))?;
        repeat(|| transactor.send_offsets(&token, offsets))
            .map_err(|error| CommitFailure::before_commit("sending offsets", error))?;"#,
        mutated: r#"repeat(|| transactor.drain())
            .map_err(|error| CommitFailure::before_commit("draining a transaction", error))?;"#,
    },
    Mutant {
        name: "applied_before_the_commit",
        file: "src/derive/commit.rs",
        breaks: "State is applied before the log has committed it.",
        original: "self.commit_groups[group].finish(&mut *self.member, offsets)?",
        mutated: r#"for running in batches(&mut self.tasks, group) {
            running.state.apply();
        }
        self.commit_groups[group].finish(&mut *self.member, offsets)?"#,
    },
    Mutant {
        name: "unknown_is_committed",
        file: "src/derive/commit_group.rs",
        breaks: "An unknown outcome is taken for a commit.",
        original: "repeat(|| transactor.commit()).map_err(CommitFailure::of_commit)?",
        mutated: r#"match repeat(|| transactor.commit()) {
            Err(LogError::Unknown(_)) => Vec::new(),
            done => done.map_err(CommitFailure::of_commit)?,
        }"#,
    },
    Mutant {
        name: "unknown_is_aborted",
        file: "src/derive/derive_loop.rs",
        breaks: "An unknown outcome counts as an abort: rolled back, without a restore.",
        original: "self.reinitialise()?;",
        mutated: r#"self.commit_groups = CommitGroup::all(&*self.shared.ports.log, &self.shared.owner)?;
                for task in self.tasks.values_mut() {
                    if let TaskPhase::Running(running) = &mut task.phase {
                        running.discard(&mut *self.member)?;
                    }
                }"#,
    },
    Mutant {
        name: "transactional_ids_are_not_initialised_again",
        file: "src/derive/derive_loop.rs",
        breaks: "An unknown outcome stays open while the task restores.",
        original: "self.commit_groups = \
                   CommitGroup::all(&*self.shared.ports.log, &self.shared.owner)?;",
        mutated: r#"for group in &mut self.commit_groups {
            group.outgoing.clear();
            group.open = false;
            group.transactor ^= 1;
        }"#,
    },
    Mutant {
        name: "one_group_is_applied_for_all",
        file: "src/derive/commit.rs",
        breaks: "What the other group has not committed yet counts as committed.",
        original: "self.commit_groups[group].finish(&mut *self.member, offsets)?",
        mutated: r#"let ends = self.commit_groups[group].finish(&mut *self.member, offsets)?;
        for running in batches(&mut self.tasks, 1 - group) {
            running.apply(self.shared.rules(), &ends);
        }
        ends"#,
    },
    Mutant {
        name: "one_group_is_aborted_alone",
        file: "src/derive/commit.rs",
        breaks: "The transaction of the other group stays open and is continued.",
        original: "group.abort()",
        mutated: "if group.transactor == 0 { group.abort() } else { Ok(()) }",
    },
    Mutant {
        name: "a_task_writes_in_the_other_group",
        file: "src/derive/commit.rs",
        breaks: "Outputs are committed without the offsets of their records.",
        original: "&mut self.commit_groups[CommitGroup::of(partition)]",
        mutated: "&mut self.commit_groups[1 - CommitGroup::of(partition)]",
    },
    Mutant {
        name: "ids_of_the_second_group_are_not_taken_over",
        file: "src/derive/restore.rs",
        breaks: "A transaction the former owner left open in its second group stays open.",
        original: "transactional_ids(&owner)",
        mutated: r#"let [a, b, _, _] = transactional_ids(&owner);
            [a.clone(), b.clone(), a, b]"#,
    },
    Mutant {
        name: "offsets_of_unprocessed_records",
        file: "src/derive/commit.rs",
        breaks: "One more record is committed than was read.",
        original: "running.batch.next(lane)",
        mutated: "running.batch.next(lane).map(crate::record::Offset::next)",
    },
    Mutant {
        name: "no_tombstones",
        file: "src/derive/commit.rs",
        breaks: "A removed key is not in the changelog.",
        original: "tables.changelog(table)",
        mutated: "if value.is_some() { tables.changelog(table) } else { Changelog::Order }",
    },
    Mutant {
        name: "tick_ahead_of_waiting_records",
        file: "src/derive/running.rs",
        breaks: "A tick does not wait for records of a lane.",
        original: "member.position(self.slots[lane.index()])? >= end",
        mutated: "member.position(self.slots[lane.index()])?.0 > 0 || end.0 == 0",
    },
    Mutant {
        name: "committed_ends_settle_time",
        file: "src/derive/ticks.rs",
        breaks: "A tick passes facts of a transaction that is open.",
        original: "log.request_ends(lanes, Isolation::Uncommitted)",
        mutated: "log.request_ends(lanes, Isolation::Committed)",
    },
    Mutant {
        name: "no_seek_after_an_abort",
        file: "src/derive/running.rs",
        breaks: "Records of an aborted transaction are not read again.",
        original: r#"repeat(|| member.seek(*slot, to))
                .map_err(|error| EngineError::of_log("going back after an abort", error))?;"#,
        mutated: "let _ = (slot, to);",
    },
    Mutant {
        name: "queues_survive_an_abort",
        file: "src/derive/running.rs",
        breaks: "Records fetched before an abort are processed twice.",
        original: "self.queues.clear();",
        mutated: "",
    },
    Mutant {
        name: "writes_survive_an_abort",
        file: "src/derive/running.rs",
        breaks: "An aborted transaction's writes stay.",
        original: "self.state.discard();",
        mutated: "",
    },
    Mutant {
        name: "batch_survives_an_abort",
        file: "src/derive/running.rs",
        breaks: "Outputs of an aborted transaction are written again.",
        original: "self.batch = TaskBatch::default();",
        mutated: "",
    },
    Mutant {
        name: "time_survives_an_abort",
        file: "src/derive/running.rs",
        breaks: "Task time keeps the value of an aborted transaction.",
        original: "self.times = self.progress.times;",
        mutated: "",
    },
    Mutant {
        name: "timers_survive_an_abort",
        file: "src/derive/running.rs",
        breaks: "Timers fired by an aborted transaction do not fire again.",
        original: r#"self.timers
            .load(&mut self.state)
            .map_err(|error| EngineError::of_store("reading timers", error))"#,
        mutated: "Ok(())",
    },
    Mutant {
        name: "one_lane_at_its_end_settles_time",
        file: "src/derive/lane_times.rs",
        breaks: "Timers fire before records that wait in other lanes.",
        original: "ended.contains(*lane)",
        mutated: "ended != LaneSet::default()",
    },
    Mutant {
        name: "lane_times_are_those_of_the_lane",
        file: "src/derive/trigger.rs",
        breaks: "The time of an event is that of its append to the lane.",
        original: "stated.or_else(of_fact).unwrap_or(record.timestamp)",
        mutated: "stated.or_else(of_fact).map(|_| record.timestamp).unwrap_or(record.timestamp)",
    },
    Mutant {
        name: "state_is_dropped_by_the_fastest_lane",
        file: "src/derive/assign.rs",
        breaks: "Ids leave the store while copies wait in a slower lane.",
        original: "running.progress.times.settled()",
        mutated: "running.progress.times.latest()",
    },
    Mutant {
        name: "the_fastest_lane_settles_time",
        file: "src/derive/lane_times.rs",
        breaks: "Timers fire and ids expire before the slow lanes are consumed.",
        original: "self.0.into_iter().min().unwrap_or_default()",
        mutated: "self.latest()",
    },
    Mutant {
        name: "fired_timers_are_kept",
        file: "src/derive/timers.rs",
        breaks: "A timer that has fired fires again.",
        original: r#"state.put(self.table, &due.stored, None);"#,
        mutated: "",
    },
    Mutant {
        name: "removed_timers_fire",
        file: "src/derive/timers.rs",
        breaks: "A timer fires although an earlier one of its tick has removed it.",
        original: "state.get(self.table, &due.stored)?",
        // A two and twenty-three ones are a cause.
        mutated: "{
            let mut cause = vec![1; 24];
            cause[0] = 2;
            Some(state.get(self.table, &due.stored)?.unwrap_or(cause.into()))
        }",
    },
    Mutant {
        name: "leases_wait_for_all_lanes",
        file: "src/derive/fire.rs",
        breaks: "A lease timer waits although only another lane than the critical one is behind.",
        original: "self.times.lease()",
        mutated: "self.times.settled()",
    },
    Mutant {
        name: "a_lease_timer_is_a_settled_one",
        file: "src/derive/trigger.rs",
        breaks: "A lease timer and another one with its key and time emit events of one id.",
        original: r#""lease/""#,
        mutated: r#""""#,
    },
    Mutant {
        name: "parts_wait_for_all_lanes",
        file: "src/derive/fire.rs",
        breaks: "A lane with a backlog holds up totals and updates.",
        original: "self.times.latest()",
        mutated: "self.times.settled()",
    },
    Mutant {
        name: "sent_parts_are_kept",
        file: "src/derive/flush_partials.rs",
        breaks: "A part of a total is sent again.",
        original: "self.state.put(table, &key, None);",
        mutated: "",
    },
    Mutant {
        name: "ids_of_parts_repeat",
        file: "src/derive/flush_partials.rs",
        breaks: "Two parts of one key have one id.",
        original: r#"hex(body.key().unwrap_or_default())"#,
        // Without the table's number and the round.
        mutated: r#"hex(&body.key().unwrap_or_default()[9..])"#,
    },
    Mutant {
        name: "parts_are_replaced",
        file: "src/derive/partial.rs",
        breaks: "An addition replaces what was added before it.",
        original: "read_value::<V>(table, &before.value)?.merge(sum)",
        mutated: "{
            let _: V = read_value(table, &before.value)?;
            sum
        }",
    },
    Mutant {
        name: "many_parts_wait_for_their_interval",
        file: "src/derive/partial.rs",
        breaks: "A task keeps any number of parts.",
        original: "context.batch.flush_early |= head.parts >= EARLY_FLUSH_PARTS;",
        mutated: "",
    },
    Mutant {
        name: "the_rest_of_a_flush_is_forgotten",
        file: "src/derive/flush_partials.rs",
        breaks: "What one tick leaves of a partial is never sent.",
        original: "head.parts > 0",
        mutated: "head.parts > 0 && !head.is_flushing()",
    },
    Mutant {
        name: "timers_do_not_cost_a_hop",
        file: "src/derive/trigger.rs",
        breaks: "A timer counts no hop, so a chain of facts and timers never ends.",
        original: "hops.saturating_add(1)",
        mutated: "*hops",
    },
    Mutant {
        name: "progress_is_older",
        file: "src/derive/running.rs",
        breaks: "A store's progress is older than its contents.",
        original: "self.progress.state = *end;",
        mutated: "let _ = end;",
    },
    Mutant {
        name: "nothing_is_applied",
        file: "src/derive/running.rs",
        breaks: "Committed state is rolled back.",
        original: "self.state.apply();",
        mutated: "self.state.discard();",
    },
    Mutant {
        name: "progress_is_newer",
        file: "src/task_state.rs",
        breaks: "A store's progress is newer than its contents.",
        original: "StoreBatch { writes, progress }",
        mutated: r#"StoreBatch {
            writes: {
                let mut all: Vec<StoreWrite> = writes;
                all.pop();
                all
            },
            progress,
        }"#,
    },
    Mutant {
        name: "old_acknowledgement_cleans_a_newer_value",
        file: "src/task_state.rs",
        breaks: "The acknowledgement of a write removes a newer value.",
        original: "self.rows[at].unwritten == number",
        mutated: "self.rows[at].unwritten >= number",
    },
    Mutant {
        name: "cached_answers_outlive_writes",
        file: "src/task_state.rs",
        breaks: "A cached value from before a write is returned after it.",
        original: "row.committed = CommittedValue::Known(value);",
        mutated: r#"if row.committed == CommittedValue::Unknown {
            row.committed = CommittedValue::Known(value);
        }"#,
    },
    Mutant {
        name: "handed_over_counts_as_written",
        file: "src/task_state.rs",
        breaks: "A batch counts as written before the writer has written it.",
        original: "batch.ticket <= written",
        mutated: "batch.ticket <= written || written < batch.ticket",
    },
    Mutant {
        name: "dirty_entries_are_evicted",
        file: "src/task_state.rs",
        breaks: "Values that are not in the store yet can be evicted.",
        original: "self.handed.push_back(HandedBatch { ticket, number: self.batch, rows });",
        mutated: r#"for at in rows {
            self.rows[at].unwritten = 0;
            self.release(at);
        }"#,
    },
    Mutant {
        name: "operators_are_not_undone",
        file: "src/task_state.rs",
        breaks: "A failed operator has changed the state.",
        original: "self.undo.split_off(savepoint.0)",
        mutated: "self.undo.split_off(savepoint.0.max(self.undo.len()))",
    },
    Mutant {
        name: "effects_of_a_failed_call_stay",
        file: "src/derive/operator_call.rs",
        breaks: "An operator that failed has changed the state.",
        original: "context.state.roll_back(savepoint.0);",
        mutated: "",
    },
    Mutant {
        name: "emissions_of_a_failed_call_stay",
        file: "src/derive/operator_call.rs",
        breaks: "An operator that failed has emitted a fact.",
        original: "context.batch.roll_back(savepoint.1);",
        mutated: "",
    },
    Mutant {
        name: "a_failing_operator_ends_the_event",
        file: "src/derive/operate.rs",
        breaks: "Delivery and the other operators do not get an event that one failed on.",
        original: "operator.on_failure() == OnFailure::RollBackEvent",
        mutated: "true",
    },
    Mutant {
        name: "a_requeued_record_is_for_every_operator",
        file: "src/derive/operate.rs",
        breaks: "A record that was requeued for one operator reaches another one.",
        original: "self.call_again(rules, operator, taken)",
        mutated: r#"{
                for operator in rules.operators {
                    if operator.on_failure() == OnFailure::RollBackCall {
                        self.call_again(rules, *operator, taken)?;
                    }
                }
                Ok(())
            }"#,
    },
    Mutant {
        name: "requeued_timers_are_forgotten",
        file: "src/derive/operate.rs",
        breaks: "A timer that was requeued does not fire.",
        original: "self.fire_again(rules, operator, (taken, kind))",
        mutated: "Ok(())",
    },
    Mutant {
        name: "the_newest_cause_of_a_timer_is_kept",
        file: "src/derive/timers.rs",
        breaks: "What a timer emits depends on the order in which the lanes are processed.",
        original: "before.is_none_or(|before| cause.id < before.id)",
        mutated: "before.is_none() || true",
    },
    Mutant {
        name: "equal_timers_of_two_accounts_are_one",
        file: "src/derive/timers.rs",
        breaks: "The timer of one account replaces that of another.",
        original: "Self(hash128(account, entity))",
        mutated: "Self(hash128(&account[..0], entity))",
    },
    Mutant {
        name: "the_last_entry_of_a_pack_is_skipped",
        file: "src/derive/open_pack.rs",
        breaks: "The lane's offset moves past a fact that was not processed.",
        original: "self.entries.next()?",
        mutated: "self.entries.next().filter(|_| self.next == 0 || self.entries.len() > 0)?",
    },
    Mutant {
        name: "the_index_of_an_entry_is_left_out",
        file: "src/derive/open_pack.rs",
        breaks: "Dead letters of two entries of a pack have one address.",
        original: "Some(index)",
        mutated: "Some(index).filter(|_| false)",
    },
    Mutant {
        name: "packs_end_when_outputs_are_appended",
        file: "src/derive/commit.rs",
        breaks: "A replay, which appends nothing, makes other packs.",
        original: "running.batch.take_outputs(&mut group.outgoing);",
        mutated: "running.batch.take_all_outputs(&mut group.outgoing);",
    },
    Mutant {
        name: "a_transaction_ends_within_a_pack",
        file: "src/derive/commit.rs",
        breaks: "The lane's offset moves past entries that the next transaction would process.",
        original: "self.finish_packs(group, &mut limits)?;",
        mutated: "if false {
                self.finish_packs(group, &mut limits)?;
            }",
    },
    Mutant {
        name: "facts_are_de_duplicated",
        file: "src/derive/operate.rs",
        breaks: "A fact takes an id that an event of a producer may have, and space for a day.",
        original: "taken.hops().is_none()",
        mutated: "taken.hops().is_none() || true",
    },
    Mutant {
        name: "values_of_any_size_are_written",
        file: "src/derive/effect_limits.rs",
        breaks: "A value is larger than any log accepts.",
        original: "value.len() <= STATE_VALUE_MAX_BYTES",
        mutated: "value.len() <= 64 * STATE_VALUE_MAX_BYTES",
    },
    Mutant {
        name: "outputs_are_not_undone",
        file: "src/derive/batch.rs",
        breaks: "An id that failed is accepted.",
        original: "self.accepted.truncate(savepoint.accepted.0);",
        mutated: "",
    },
    Mutant {
        name: "restore_to_the_stable_end",
        file: "src/derive/restore.rs",
        breaks: "A restore ends before records that are about to become visible.",
        original: "context.log.bounds(at, Isolation::Uncommitted)",
        mutated: "context.log.bounds(at, Isolation::Committed)",
    },
    Mutant {
        name: "an_empty_take_ends_a_restore",
        file: "src/derive/restore.rs",
        breaks: "A restore ends when one read returns nothing.",
        original: "step.done &= position >= self.tails[n].end;",
        mutated: "step.done &= replayed == 0 || position >= self.tails[n].end;",
    },
    Mutant {
        name: "restores_count_records",
        file: "src/derive/restore.rs",
        breaks: "A restore stops at control records.",
        original: "step.done &= position >= self.tails[n].end;",
        mutated: "step.done &= self.replayed + replayed as u64 >= self.tails[n].end.0;",
    },
    Mutant {
        name: "a_control_record_is_assumed",
        file: "src/derive/restore.rs",
        breaks: "A restore ends one before its end.",
        original: "step.done &= position >= self.tails[n].end;",
        mutated: "step.done &= position.0 + 1 >= self.tails[n].end.0;",
    },
    Mutant {
        name: "old_stores_are_kept",
        file: "src/derive/store_fit.rs",
        breaks: "A store misses tombstones that were removed from the changelog.",
        original: "progress.state < state.end && away > STALE_MS_MAX",
        mutated: "progress.state > state.end && away > STALE_MS_MAX",
    },
    Mutant {
        name: "old_stores_are_continued",
        file: "src/derive/restore.rs",
        breaks: "The same, if the replay finds that records are missing.",
        original: "self.must_be_complete && step.moved",
        mutated: "self.must_be_complete && replayed > usize::MAX / 2",
    },
    Mutant {
        name: "long_restores_are_kept",
        file: "src/derive/restore.rs",
        breaks: "A restore misses tombstones that were removed before it reached them.",
        original: "u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0)",
        mutated: "0",
    },
    Mutant {
        name: "ids_are_not_restored",
        file: "src/derive/restore.rs",
        breaks: "The ids accepted since the store was written are forgotten.",
        original: "self.state.restore(IDS, id, Some(value.clone()));",
        mutated: "let _ = (id, &value);",
    },
    Mutant {
        name: "tombstones_are_not_restored",
        file: "src/derive/restore.rs",
        breaks: "A removed key exists again.",
        original: "self.state.restore(table, &key, value);",
        mutated: r#"if value.is_some() {
                        self.state.restore(table, &key, value);
                    }"#,
    },
    Mutant {
        name: "time_is_not_restored",
        file: "src/derive/restore.rs",
        breaks: "Task time starts at the store's progress.",
        original: "self.progress.times = order.after;",
        mutated: "",
    },
    Mutant {
        name: "former_owners_are_not_fenced",
        file: "src/derive/restore.rs",
        breaks: "Transactions of a dead owner stay open.",
        original: "drop(repeat(|| context.log.transactor(&id))?);",
        mutated: "drop(id);",
    },
    Mutant {
        name: "tasks_are_not_claimed",
        file: "src/derive/assign.rs",
        breaks: "The ids of an owner that died in its first transaction are not fenced.",
        original: "self.claim(restoring)?",
        mutated: "true",
    },
    Mutant {
        name: "a_failed_claim_counts_as_made",
        file: "src/derive/assign.rs",
        breaks: "The same, if the group did not respond when its task started.",
        original: r#"restoring.report_waiting(&error, self.shared.now());
                Ok(false)"#,
        mutated: r#"restoring.report_waiting(&error, self.shared.now());
                Ok(true)"#,
    },
    Mutant {
        name: "written_after_lost",
        file: "src/derive/assign.rs",
        breaks: "A store is written to after its partition was lost.",
        original: r#"let (state, _) = running.stop(&mut *self.member);
                task.enter(TaskPhase::Draining(Box::new(state)));"#,
        mutated: r#"let (mut state, progress) = running.stop(&mut *self.member);
                drop(state.hand_over(progress.encode()));
                task.enter(TaskPhase::Draining(Box::new(state)));"#,
    },
    Mutant {
        name: "admit_commits_before_it_appends",
        file: "src/admit/admit_loop.rs",
        breaks: "An offset is committed before its record was appended.",
        original: r#"repeat(|| self.appender.append(&self.outgoing))
            .map_err(|error| EngineError::of_log("writing to the lanes", error))?;
        repeat(|| self.member.commit(&batch.offsets))
            .map_err(|error| EngineError::of_log("committing offsets of the input", error))?;"#,
        mutated: r#"repeat(|| self.member.commit(&batch.offsets))
            .map_err(|error| EngineError::of_log("committing offsets of the input", error))?;
        repeat(|| self.appender.append(&self.outgoing))
            .map_err(|error| EngineError::of_log("writing to the lanes", error))?;"#,
    },
    Mutant {
        name: "admit_goes_on_after_a_failed_append",
        file: "src/admit/admit_loop.rs",
        breaks: "Records are admitted past one that was not appended.",
        original: r#"repeat(|| self.appender.append(&self.outgoing))
            .map_err(|error| EngineError::of_log("writing to the lanes", error))?;
        repeat(|| self.member.commit(&batch.offsets))
            .map_err(|error| EngineError::of_log("committing offsets of the input", error))?;"#,
        mutated: r#"if repeat(|| self.appender.append(&self.outgoing)).is_ok() {
            repeat(|| self.member.commit(&batch.offsets))
                .map_err(|error| EngineError::of_log("committing offsets of the input", error))?;
        }"#,
    },
    Mutant {
        name: "a_task_gets_no_copy_of_a_broadcast_event",
        file: "src/admit/classify.rs",
        breaks: "A broadcast event does not reach every task.",
        original: "(0..self.topology.partitions()).map(Partition).for_each(push);",
        mutated: "(1..self.topology.partitions()).map(Partition).for_each(push);",
    },
    Mutant {
        name: "lanes_are_partitioned_by_the_key_alone",
        file: "src/admit/classify.rs",
        breaks: "A key's events of all accounts meet in one task.",
        original: "push(self.topology.entity_partition(&event.account_id, &event.key));",
        mutated: "push(self.topology.partition_of(key));",
    },
    Mutant {
        name: "the_highest_offset_decides",
        file: "src/derive/source_offsets.rs",
        breaks: "A first occurrence with a lower offset than the last is dropped.",
        original: "self.taken.binary_search(&offset).is_ok()",
        mutated: "self.taken.back().is_some_and(|last| offset <= *last)",
    },
    Mutant {
        name: "taken_offsets_survive_an_abort",
        file: "src/derive/running.rs",
        breaks: "A record of an aborted transaction is dropped as a copy.",
        original: "self.sources.discard();",
        mutated: "",
    },
    Mutant {
        name: "the_inputs_incarnation_is_ignored",
        file: "src/derive/source_offsets.rs",
        breaks: "Records of an input that was created again are dropped as copies.",
        original: "self.topic != source.topic",
        mutated: "self.topic != source.topic && self.topic == TopicId::default()",
    },
    Mutant {
        name: "copies_pass",
        file: "src/derive/source_offsets.rs",
        breaks: "ADMIT's second copy is processed.",
        original: "self.contains(offset)",
        mutated: "self.contains(offset) && offset == u64::MAX",
    },
    Mutant {
        name: "duplicates_pass",
        file: "src/derive/dedup.rs",
        breaks: "An id is accepted twice.",
        original: "context.time().0.abs_diff(seen.at.0) < WINDOW_MS.unsigned_abs()",
        mutated: "seen.at.0 < 0",
    },
    Mutant {
        name: "ids_never_expire",
        file: "src/derive/dedup.rs",
        breaks: "An expired id is not accepted.",
        original: "context.time().0.abs_diff(seen.at.0) < WINDOW_MS.unsigned_abs()",
        mutated: "context.time().0.abs_diff(seen.at.0) < u64::MAX",
    },
    Mutant {
        name: "ids_of_the_store_are_ruled_out",
        file: "src/derive/id_filter.rs",
        breaks: "The filter of a restarted task does not know the ids of its store.",
        original: "self.unread.is_none()",
        mutated: "true",
    },
    Mutant {
        name: "the_filter_drops_ids_too_early",
        file: "src/derive/id_filter.rs",
        breaks: "Ids leave the filter before they expire.",
        original: "self.buckets.retain(|bucket| is_kept(bucket.latest, settled));",
        mutated: "self.buckets.retain(|bucket| bucket.latest >= settled);",
    },
    Mutant {
        name: "replayed_ids_are_ruled_out",
        file: "src/derive/restore.rs",
        breaks: "The filter misses ids that were replayed and that the store does not have yet.",
        original: "self.ids.insert(id, *since);",
        mutated: "let _ = since;",
    },
    Mutant {
        name: "task_time_decides_duplicates",
        file: "src/derive/dedup.rs",
        breaks: "A copy in a slower lane is accepted after an outage.",
        original: "context.time().0.abs_diff(seen.at.0) < WINDOW_MS.unsigned_abs()",
        mutated: "context.latest().0.abs_diff(seen.at.0) < WINDOW_MS.unsigned_abs()",
    },
    Mutant {
        name: "audit_of_failed_calls",
        file: "src/derive/batch.rs",
        breaks: "The audit lists effects of a call that was rolled back.",
        original: "self.audit.roll_back(savepoint.audit);",
        mutated: "let _ = savepoint.audit;",
    },
    Mutant {
        name: "audit_of_packs_without_entries",
        file: "src/derive/running.rs",
        breaks: "The audit does not say which entry of a pack it is about.",
        original: "AuditCause::Record { lane, offset, entry }",
        mutated: "AuditCause::Record { lane, offset, entry: entry.and(None) }",
    },
    Mutant {
        name: "parts_without_an_audit",
        file: "src/derive/flush_partials.rs",
        breaks: "What a part of a total has caused is listed under another entry, or nowhere.",
        original: "self.batch.audit.begin(rules.audit, AuditCause::Update(part), time);",
        mutated: "let _ = part;",
    },
    Mutant {
        name: "audit_without_the_first_parts",
        file: "src/derive/audit.rs",
        breaks: "A long audit has its last part in place of each.",
        original: "&encoder.bytes[*from..to]",
        mutated: "&encoder.bytes[*parts.last().unwrap_or(from)..]",
    },
];
