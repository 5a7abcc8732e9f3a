//! The contract of a log, stated in test names and written against the port alone, so that every
//! log goes through the same clauses: the embedded one, the simulator's, Kafka.
//!
//! A log under test is a [`Subject`]; `conformance!(MySubject)` makes one `#[test]` per clause.
//! What a subject can't do (restart, move time) is a capability; its clauses are then skipped and
//! say so. No clause may assume that transactions take no offsets of their own, that a wait does
//! not return early, or that a take returns all there is.

#![expect(clippy::unwrap_used, reason = "clauses are tests, called from the `#[test]`s below")]
#![expect(clippy::print_stdout, reason = "what is skipped, and how to repeat, is said")]

pub(crate) mod cleanup;
pub(crate) mod groups;
pub(crate) mod killed;
pub(crate) mod records;
pub(crate) mod restart;
pub(crate) mod subject;
pub(crate) mod topics;
pub(crate) mod transactions;
pub(crate) mod waits;

/// Makes one test per clause for this subject.
macro_rules! conformance {
    ($subject:ty) => {
        conformance!(@clauses $subject;
            topics: create_answers_whether_the_topic_is_new,
            topics: create_is_refused_when_the_topic_is_there_with_other_settings,
            topics: an_unknown_topic_or_partition_is_refused_by_name,
            topics: a_topic_keeps_its_id,
            records: order_holds_within_each_partition,
            records: offsets_outside_transactions_are_contiguous_from_zero,
            records: every_form_of_record_comes_back_as_it_was,
            records: reading_starts_at_the_offset_asked_for,
            records: reading_outside_the_log_is_out_of_range,
            records: a_take_respects_its_limit_and_gives_at_least_one_record,
            records: seeking_and_removing_move_only_their_own_partition,
            records: one_reader_reads_a_partition_at_two_places,
            records: append_times_never_run_backwards,
            records: the_offset_of_a_time_is_the_first_record_at_or_after_it,
            records: writers_side_by_side_get_offsets_of_their_own,
            records: a_reader_far_behind_gets_every_record_once,
            waits: a_wait_ends_when_a_record_comes,
            waits: a_wait_ends_when_it_is_woken_and_remembers_a_wake_before_it,
            waits: a_wait_ends_when_its_time_is_over,
            waits: no_wake_up_is_missed_between_taking_and_waiting,
            groups: a_lone_member_gets_every_partition_of_every_topic,
            groups: partitions_are_given_up_before_another_member_gets_them,
            groups: each_member_gets_the_same_partition_numbers_of_each_topic,
            groups: committed_offsets_are_read_back_with_their_metadata,
            groups: a_commit_of_a_passed_generation_is_fenced,
            groups: the_restart_of_a_named_member_is_no_rebalance,
            groups: groups_do_not_see_each_other,
            transactions: committed_records_appear_and_commit_tells_their_ends,
            transactions: nothing_is_visible_to_committed_readers_before_the_commit,
            transactions: aborted_records_never_appear_to_committed_readers,
            transactions: offsets_in_a_transaction_are_committed_or_aborted_with_it,
            transactions: a_newer_producer_of_the_id_fences_the_older,
            transactions: a_fenced_producer_is_told_so_wherever_it_stands,
            transactions: a_fenced_member_s_offsets_are_refused,
            transactions: one_producer_runs_many_transactions_in_turn,
            transactions: an_empty_transaction_commits,
            transactions: the_position_passes_what_no_reader_sees,
            cleanup: compaction_keeps_the_newest_record_of_each_key,
            cleanup: a_tombstone_stays_for_its_time_and_then_leaves,
            cleanup: a_compacted_topic_refuses_records_without_a_key,
            cleanup: retention_by_age_moves_the_start_and_keeps_offsets_contiguous,
            cleanup: retention_by_size_keeps_at_least_that_much,
            cleanup: a_partition_whose_records_all_left_goes_on_with_its_next_offset,
            cleanup: a_reader_that_retention_passed_is_told,
            cleanup: compaction_with_retention_lets_old_keys_leave,
            restart: records_offsets_and_topics_survive_a_restart,
            restart: an_open_transaction_is_gone_after_a_restart,
            restart: starts_moved_by_retention_survive_a_restart,
            restart: compaction_goes_on_after_a_restart,
        );

        #[test]
        fn what_was_acknowledged_survives_a_killed_writer_and_what_was_aborted_does_not() {
            let child = concat!(module_path!(), "::a_writer_to_be_killed");
            crate::conformance::killed::rounds::<$subject>(child);
        }

        #[test]
        #[ignore = "the child of the test above, which starts it by name"]
        fn a_writer_to_be_killed() {
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
