//! The conformance suite of the `Log` port: one clause per test, named after what it requires.
//!
//! Every log runs the same clauses: embedded, simulated and Kafka. A log under test implements
//! [`LogUnderTest`], and `conformance!(MySubject)` makes one `#[test]` per clause. What a log can't
//! do (restart, advance time) is a capability; its clauses then print that they are skipped. No
//! clause may assume that transactions take no offsets of their own, that a wait does not return
//! early, or that a take returns all there is.

#![expect(clippy::unwrap_used, reason = "clauses are tests, called from the `#[test]`s below")]
#![expect(clippy::print_stdout, reason = "it prints what is skipped and how to repeat a run")]

pub(crate) mod cleanup;
pub(crate) mod groups;
pub(crate) mod killed;
pub(crate) mod log_under_test;
pub(crate) mod records;
pub(crate) mod restart;
pub(crate) mod topics;
pub(crate) mod transactions;
pub(crate) mod waits;

/// Makes one test per clause for this subject.
macro_rules! conformance {
    ($subject:ty) => {
        conformance!(@clauses $subject;
            topics: create_reports_whether_the_topic_is_new,
            topics: create_fails_when_the_topic_exists_with_other_settings,
            topics: an_unknown_topic_or_partition_is_named_in_the_error,
            topics: a_topic_keeps_its_id,
            records: order_holds_within_each_partition,
            records: offsets_outside_transactions_are_contiguous_from_zero,
            records: every_form_of_record_is_read_back_unchanged,
            records: reading_starts_at_the_offset_asked_for,
            records: reading_outside_the_log_is_out_of_range,
            records: a_take_respects_its_limit_and_gives_at_least_one_record,
            records: seeking_and_removing_move_only_their_own_partition,
            records: one_reader_reads_a_partition_at_two_positions,
            records: append_times_never_run_backwards,
            records: the_offset_of_a_time_is_the_first_record_at_or_after_it,
            records: concurrent_writers_get_distinct_offsets,
            records: a_reader_far_behind_gets_every_record_once,
            waits: a_wait_ends_when_a_record_comes,
            waits: a_wake_ends_the_wait_it_comes_in_or_the_next_one,
            waits: a_wait_ends_after_its_timeout,
            waits: no_wake_up_is_missed_between_taking_and_waiting,
            groups: a_single_member_gets_every_partition_of_every_topic,
            groups: partitions_are_revoked_before_another_member_gets_them,
            groups: each_member_gets_the_same_partition_numbers_of_each_topic,
            groups: committed_offsets_are_read_back_with_their_metadata,
            groups: a_commit_of_an_old_generation_is_fenced,
            groups: the_restart_of_a_static_member_causes_no_rebalance,
            groups: groups_do_not_see_each_other,
            transactions: committed_records_appear_and_commit_returns_their_end_offsets,
            transactions: nothing_is_visible_to_committed_readers_before_the_commit,
            transactions: aborted_records_never_appear_to_committed_readers,
            transactions: offsets_in_a_transaction_are_committed_or_aborted_with_it,
            transactions: a_newer_producer_of_the_id_fences_the_older,
            transactions: a_fenced_producer_gets_the_error_from_every_call,
            transactions: offsets_of_a_fenced_member_are_refused,
            transactions: one_producer_runs_many_transactions_in_turn,
            transactions: an_empty_transaction_commits,
            transactions: the_position_skips_control_and_aborted_records,
            transactions: requested_committed_ends_are_before_open_transactions,
            transactions: requested_uncommitted_ends_are_behind_open_transactions,
            cleanup: compaction_keeps_the_newest_record_of_each_key,
            cleanup: a_tombstone_is_removed_after_its_retention,
            cleanup: a_compacted_topic_refuses_records_without_a_key,
            cleanup: retention_by_age_moves_the_start_and_keeps_offsets_contiguous,
            cleanup: retention_by_size_keeps_at_least_that_much,
            cleanup: an_emptied_partition_continues_at_its_next_offset,
            cleanup: a_reader_behind_retention_gets_out_of_range,
            cleanup: compaction_with_retention_removes_old_keys,
            restart: records_offsets_and_topics_survive_a_restart,
            restart: an_open_transaction_is_gone_after_a_restart,
            restart: starts_moved_by_retention_survive_a_restart,
            restart: compaction_continues_after_a_restart,
        );

        #[test]
        fn acknowledged_records_survive_a_killed_writer_and_aborted_ones_do_not() {
            let child = concat!(module_path!(), "::child_writer");
            crate::conformance::killed::kill_children::<$subject>(child);
        }

        #[test]
        #[ignore = "the child of the test above, which starts it by name"]
        fn child_writer() {
            crate::conformance::killed::write_until_killed::<$subject>();
        }
    };
    (@clauses $subject:ty; $($file:ident: $clause:ident,)*) => {
        $(
            #[test]
            fn $clause() {
                crate::conformance::$file::$clause::<$subject>();
            }
        )*
    };
}
pub(crate) use conformance;
