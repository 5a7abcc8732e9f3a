//! ADMIT's second copies: each record is processed once, whatever its age and order.
//!
//! ADMIT's commit fails after its append, so that it appends everything again.

use tidewire_engine::derive::dedup::WINDOW_MS;

use crate::one_partition::OnePartition;

#[test]
fn a_copy_that_admit_writes_after_the_window_of_ids_is_dropped() {
    let mut fixture = OnePartition::new();
    fixture.produce(&["e-1", "e-2"]);
    fixture.admit(true);
    fixture.derive();
    fixture.pass(2 * WINDOW_MS);
    fixture.restart_derive();
    fixture.produce(&["e-3"]);
    fixture.admit(false);
    fixture.derive();
    assert_eq!(fixture.delivered(), ["e-1", "e-2", "e-3"]);
}

#[test]
fn a_copy_is_dropped_after_many_transactions_and_a_restart() {
    let mut fixture = OnePartition::new();
    let mut wanted = vec!["e-1000".to_owned()];
    fixture.write_lane("e-1000", 1_000, 0);
    fixture.derive();
    // More transactions than changes are kept apart from the row.
    for offset in 0..150 {
        wanted.push(format!("e-{offset}"));
        fixture.write_lane(&format!("e-{offset}"), offset, 0);
        fixture.derive_turns(2);
        if offset % 40 == 20 {
            fixture.restart_derive();
        }
    }
    fixture.derive();
    fixture.pass(2 * WINDOW_MS);
    fixture.restart_derive();
    for offset in [1_000, 0, 149] {
        fixture.write_lane(&format!("e-{offset}"), offset, 0);
    }
    fixture.derive();
    assert_eq!(fixture.delivered(), wanted);
}

#[test]
fn a_first_occurrence_behind_a_higher_offset_is_delivered() {
    let mut fixture = OnePartition::new();
    // The broker refused 5 and accepted what came after it; ADMIT then appended all of them again.
    for (offset, delivered) in [(6, 5), (7, 5), (5, 5), (6, 5), (7, 5), (8, 8)] {
        fixture.write_lane(&format!("e-{offset}"), offset, delivered);
    }
    fixture.derive();
    assert_eq!(fixture.delivered(), ["e-6", "e-7", "e-5", "e-8"]);
}

#[test]
fn an_input_that_was_created_again_has_no_copies_of_the_former_one() {
    let mut fixture = OnePartition::new();
    fixture.produce(&["e-1", "e-2", "e-3"]);
    fixture.admit(false);
    fixture.derive();
    let input = fixture.topology.input().clone();
    fixture.log.state().create_again(&input);
    fixture.produce(&["e-4", "e-5"]);
    fixture.admit(false);
    fixture.derive();
    assert_eq!(fixture.delivered(), ["e-1", "e-2", "e-3", "e-4", "e-5"]);
}
