//! Random histories of the state topic, with restarts, against a model.

use proptest::prelude::*;

use super::super::log::LogTransactionEnd;
use super::super::stores::StoreWriter;
use super::fixture::{FoldFixture, StateRecord};
use crate::fanout::identity::Accounts;
use crate::record::Millis;
use crate::turn::EngineError;

const CHANNELS: [&str; 4] = ["c:1", "c:10", "c:2", "d"];
const ACCOUNTS: [&str; 3] = ["a1", "a10", "b"];
const KEYS: [&str; 3] = ["", "k", "k\0l"];

#[derive(Clone, Debug)]
enum FoldStep {
    Put {
        channel: usize,
        account: usize,
        key: usize,
    },
    Remove {
        channel: usize,
        account: usize,
        key: usize,
    },
    NoState(usize),
    Control(usize),
    /// Opens a transaction, or ends the open one.
    Transaction(usize, LogTransactionEnd),
    Turns(usize),
    Time(i64),
    Write,
    Ask {
        channel: usize,
        accounts: Vec<usize>,
    },
    Kill,
    Close,
    CreateTopicsAgain,
}

fn step() -> impl Strategy<Value = FoldStep> {
    let key = (0..CHANNELS.len(), 0..ACCOUNTS.len(), 0..KEYS.len());
    let end = prop_oneof![Just(LogTransactionEnd::Commit), Just(LogTransactionEnd::Abort)];
    let channel = 0..CHANNELS.len();
    prop_oneof![
        8 => key
            .clone()
            .prop_map(|(channel, account, key)| FoldStep::Put { channel, account, key }),
        4 => key.prop_map(|(channel, account, key)| FoldStep::Remove { channel, account, key }),
        1 => channel.clone().prop_map(FoldStep::NoState),
        1 => channel.clone().prop_map(FoldStep::Control),
        2 => (channel.clone(), end).prop_map(|(channel, end)| FoldStep::Transaction(channel, end)),
        6 => (1usize..4).prop_map(FoldStep::Turns),
        3 => (1i64..400).prop_map(FoldStep::Time),
        2 => Just(FoldStep::Write),
        6 => (channel, proptest::collection::vec(0..ACCOUNTS.len() + 1, 0..3))
            .prop_map(|(channel, accounts)| FoldStep::Ask { channel, accounts }),
        1 => Just(FoldStep::Kill),
        1 => Just(FoldStep::Close),
        1 => Just(FoldStep::CreateTopicsAgain),
    ]
}

/// One of the numbers means all accounts.
fn accounts(numbers: &[usize]) -> Accounts {
    match numbers.iter().any(|number| *number == ACCOUNTS.len()) {
        true => Accounts::All,
        false => Accounts::Only(numbers.iter().map(|number| ACCOUNTS[*number].into()).collect()),
    }
}

struct History {
    fixture: FoldFixture,
    /// Requests without an answer.
    open: Vec<usize>,
}

impl History {
    fn take(&mut self, step: &FoldStep) {
        let fixture = &mut self.fixture;
        let record = |channel: usize, account: usize, key: usize| StateRecord {
            channel: CHANNELS[channel],
            account: ACCOUNTS[account],
            state_key: KEYS[key],
        };
        match *step {
            FoldStep::Put { channel, account, key } => {
                fixture.put(record(channel, account, key));
            }
            FoldStep::Remove { channel, account, key } => {
                fixture.remove(record(channel, account, key));
            }
            FoldStep::NoState(channel) => {
                let channel = CHANNELS[channel];
                let key = format!("{channel}\0a1\0k");
                fixture.append_raw(channel, Some(key.as_bytes()), Some(b"no event"));
            }
            FoldStep::Control(channel) => fixture.skip(CHANNELS[channel]),
            FoldStep::Transaction(channel, end) => {
                let channel = CHANNELS[channel];
                match fixture.has_open_transaction(channel) {
                    true => fixture.end_transaction(channel, end),
                    false => fixture.open_transaction(channel),
                }
            }
            FoldStep::Turns(count) => (0..count).for_each(|_| self.turn()),
            FoldStep::Time(ms) => fixture.pass_time(ms),
            FoldStep::Write => fixture.stores.write_all(),
            FoldStep::Ask { channel, accounts: ref of } => {
                self.open.push(fixture.ask(CHANNELS[channel], accounts(of)));
            }
            FoldStep::Kill => self.restart(),
            FoldStep::Close => {
                self.fixture.close();
                self.check_answers();
                assert!(self.open.is_empty(), "a close answers all");
                self.fixture.reopen(Millis(0)).unwrap();
            }
            FoldStep::CreateTopicsAgain => {
                fixture.create_topics_again();
                fixture.follow_topics();
                // What is asked for the former topics is not compared.
                self.open.clear();
            }
        }
    }

    fn turn(&mut self) {
        match self.fixture.turn() {
            Ok(_) => self.check_answers(),
            Err(EngineError::Retry { .. }) => self.restart(),
            Err(error) => panic!("{error}"),
        }
    }

    fn restart(&mut self) {
        self.fixture.kill();
        self.fixture.reopen(Millis(0)).unwrap();
    }

    /// Compares the answers that have come.
    fn check_answers(&mut self) {
        let fixture = &self.fixture;
        self.open.retain(|asked| {
            fixture.check(*asked);
            fixture.answer(*asked).is_none()
        });
    }

    /// Everybody is answered in the end, with what the log has.
    fn finish(mut self) {
        for channel in CHANNELS {
            if self.fixture.has_open_transaction(channel) {
                self.fixture.end_transaction(channel, LogTransactionEnd::Commit);
            }
        }
        for _ in 0..4 {
            self.turn();
            self.fixture.stores.write_all();
        }
        assert!(self.open.is_empty(), "{:?} are not answered", self.open);
        for channel in CHANNELS {
            self.fixture.snapshot(channel, Accounts::All);
        }
    }
}

proptest! {
    #[test]
    fn a_snapshot_is_what_the_log_has_before_its_offset(
        steps in proptest::collection::vec(step(), 1..120),
        writer in prop_oneof![Just(StoreWriter::AtOnce), Just(StoreWriter::WhenTold)],
    ) {
        let mut history = History { fixture: FoldFixture::new(writer), open: Vec::new() };
        for step in &steps {
            history.take(step);
        }
        history.finish();
    }
}
