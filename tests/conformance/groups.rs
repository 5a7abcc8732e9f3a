//! Clauses about consumer groups.

use std::time::Duration;

use tidewire_engine::port::{Change, Committed};
use tidewire_engine::record::Offset;

use super::log_under_test::{
    FOR_EVER, LogUnderTest, append, assert_fenced, at, changes, committed, member, names, progress,
    settle, topic, until,
};

pub(crate) fn a_single_member_gets_every_partition_of_every_topic<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let (a, b) = (topic(&subject, "ga", (3, FOR_EVER)), topic(&subject, "gb", (3, FOR_EVER)));
    let mut only = member(&*log, &subject.group("lone"), "one", &[a.clone(), b.clone()]);
    let mut holds = Vec::new();
    settle(&mut [(&mut *only, &mut holds)], &[&names(&[&a, &b], &[0, 1, 2])]);
    append(&*log, &at(&a, 1), &["x"]);
    let slot = only.add(&at(&a, 1), Offset(0)).unwrap();
    let mut out = Vec::new();
    until("a member reads", || {
        only.wait(Duration::from_millis(20)).unwrap();
        only.changes().unwrap();
        (only.take(slot, super::log_under_test::ALL, &mut out).unwrap() > 0).then_some(())
    });
}

pub(crate) fn partitions_are_revoked_before_another_member_gets_them<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "handed", (2, FOR_EVER));
    let topics = [topic.clone()];
    let group = subject.group("handed");
    let mut first = member(&*log, &group, "one", &topics);
    settle(&mut [(&mut *first, &mut Vec::new())], &[&names(&[&topic], &[0, 1])]);
    std::thread::scope(|scope| {
        // Joining may wait for the other member, so it runs on a thread of its own.
        let joining = scope.spawn(|| member(&*log, &group, "two", &topics));
        let revoked = until("the first member gets the revocation", || {
            first.wait(Duration::from_millis(20)).unwrap();
            let revoked = first.changes().unwrap();
            (!revoked.is_empty()).then_some(revoked)
        });
        let [Change::Revoked(given_up)] = &revoked[..] else { panic!("not revoked: {revoked:?}") };
        // Either all of them are revoked and the second member gets the last one, or only what the
        // second gets, which may be either where a broker decides.
        let goes =
            given_up.iter().max_by_key(|at| at.partition).expect("something is revoked").clone();
        let stays = at(&topic, 1 - goes.partition.0);
        let mut one = Vec::new();
        if !given_up.contains(&stays) {
            one.push(stays.to_string());
        }
        let mut second = joining.join().unwrap();
        for _ in 0..5 {
            assert_eq!(
                changes(&mut *second),
                [""; 0],
                "nothing before the others have given it up"
            );
        }
        // Not acknowledged yet, so finished work can still be committed.
        first.commit(&progress(&goes, 0)).unwrap();
        let mut two = Vec::new();
        settle(
            &mut [(&mut *first, &mut one), (&mut *second, &mut two)],
            &[&[stays.to_string()], &[goes.to_string()]],
        );
    });
}

pub(crate) fn each_member_gets_the_same_partition_numbers_of_each_topic<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let (a, b) = (topic(&subject, "ra", (5, FOR_EVER)), topic(&subject, "rb", (5, FOR_EVER)));
    let topics = [a.clone(), b.clone()];
    let mut one = member(&*log, &subject.group("range"), "one", &topics);
    let mut two = member(&*log, &subject.group("range"), "two", &topics);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    settle(
        &mut [(&mut *one, &mut first), (&mut *two, &mut second)],
        &[&names(&[&a, &b], &[0, 1, 2]), &names(&[&a, &b], &[3, 4])],
    );
}

pub(crate) fn committed_offsets_are_read_back_with_their_metadata<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "commits", (2, FOR_EVER));
    let all = [at(&topic, 0), at(&topic, 1)];
    append(&*log, &all[1], &["a", "b"]);
    let mut only = member(&*log, &subject.group("commits"), "one", std::slice::from_ref(&topic));
    settle(&mut [(&mut *only, &mut Vec::new())], &[&names(&[&topic], &[0, 1])]);
    assert_eq!(log.committed(&subject.group("commits"), &all).unwrap(), [None, None]);
    for offset in [1, 2] {
        only.commit(&progress(&all[1], offset)).unwrap();
        let expected = Committed { offset: Offset(offset), metadata: format!("m{offset}") };
        assert_eq!(log.committed(&subject.group("commits"), &all).unwrap(), [None, Some(expected)]);
    }
}

pub(crate) fn a_commit_of_an_old_generation_is_fenced<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "fenced", (1, FOR_EVER));
    let topics = [topic.clone()];
    let mut old = member(&*log, "fenced", "one", &topics);
    settle(&mut [(&mut *old, &mut Vec::new())], &[&names(&[&topic], &[0])]);
    // The same name again, as when a process is restarted while its predecessor still runs.
    let mut new = member(&*log, "fenced", "one", &topics);
    settle(&mut [(&mut *new, &mut Vec::new())], &[&names(&[&topic], &[0])]);
    new.commit(&progress(&at(&topic, 0), 0)).unwrap();
    assert_fenced(old.commit(&progress(&at(&topic, 0), 7)));
    assert_eq!(committed(&*log, "fenced", &at(&topic, 0)), Some(0));
}

pub(crate) fn the_restart_of_a_static_member_causes_no_rebalance<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "named", (2, FOR_EVER));
    let topics = [topic.clone()];
    let mut one = member(&*log, "named", "one", &topics);
    let mut two = member(&*log, "named", "two", &topics);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let (zero, one_) = (names(&[&topic], &[0]), names(&[&topic], &[1]));
    settle(&mut [(&mut *one, &mut first), (&mut *two, &mut second)], &[&zero, &one_]);
    drop(one);
    let mut one = member(&*log, "named", "one", &topics);
    let mut first = Vec::new();
    settle(&mut [(&mut *one, &mut first)], &[&zero]);
    assert_eq!(changes(&mut *two), [""; 0]);
    two.commit(&progress(&at(&topic, 1), 0)).unwrap();
}

pub(crate) fn groups_do_not_see_each_other<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "apart", (1, FOR_EVER));
    let topics = [topic.clone()];
    let (mut one, mut two) =
        (member(&*log, "apart-1", "x", &topics), member(&*log, "apart-2", "x", &topics));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let all = names(&[&topic], &[0]);
    settle(&mut [(&mut *one, &mut first), (&mut *two, &mut second)], &[&all, &all]);
    one.commit(&progress(&at(&topic, 0), 0)).unwrap();
    assert_eq!(committed(&*log, "apart-1", &at(&topic, 0)), Some(0));
    assert_eq!(committed(&*log, "apart-2", &at(&topic, 0)), None);
}
