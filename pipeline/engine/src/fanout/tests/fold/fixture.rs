//! A fold over a log and stores in memory, and what its snapshots must be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tidewire_schemas::Priority;
use tidewire_schemas::event::{Event, EventView};

use super::super::log::{LogTransactionEnd, MemoryLog};
use super::super::stores::{MemoryStores, StoreWriter};
use crate::fanout::config::FanoutConfig;
use crate::fanout::fold::request::SnapshotAnswer;
use crate::fanout::fold::snapshot::ChannelSnapshot;
use crate::fanout::fold::worker::StateFold;
use crate::fanout::hub::Hub;
use crate::fanout::identity::Accounts;
use crate::fanout::offsets::STATE_TOPIC;
use crate::record::{Body, Millis, MonotonicMillis, Partition, TopicPartition};
use crate::topology::Topology;
use crate::turn::EngineError;

const DAY_MS: i64 = 24 * 3_600_000;

/// Channel, account and state key.
#[derive(Clone, Copy, Debug)]
pub(super) struct StateRecord<'a> {
    pub(super) channel: &'a str,
    pub(super) account: &'a str,
    pub(super) state_key: &'a str,
}

/// The wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct WallTime(i64);

impl WallTime {
    pub(super) fn after(self, ms: i64) -> Millis {
        Millis(self.0 + ms)
    }
}

/// A request, and what it needs.
struct AskedSnapshot {
    channel: String,
    accounts: Accounts,
    /// The end of the partition when it was asked for.
    end: u64,
    /// By which topics' generation.
    generation: u128,
    answers: Arc<Mutex<Vec<SnapshotAnswer>>>,
}

/// A snapshot and its entries.
#[derive(Debug)]
pub(super) struct FoundSnapshot {
    pub(super) found: Arc<ChannelSnapshot>,
    pub(super) entries: Vec<Value>,
}

/// The fold and all around it.
pub(super) struct FoldFixture {
    pub(super) log: Arc<MemoryLog>,
    pub(super) hub: Arc<Hub>,
    pub(super) stores: MemoryStores,
    topology: Topology,
    fold: Option<StateFold>,
    now: MonotonicMillis,
    pub(super) wall: WallTime,
    /// Committed records and those of open transactions, by partition and offset.
    records: BTreeMap<(Partition, u64), Body>,
    open_from: BTreeMap<Partition, u64>,
    events: u64,
    generation: u128,
    asked: Vec<AskedSnapshot>,
}

impl FoldFixture {
    pub(super) const PARTITIONS: u32 = 4;

    pub(super) fn new(writer: StoreWriter) -> Self {
        let topology = Topology::new("t.", Self::PARTITIONS);
        let log = Arc::new(MemoryLog::new(&topology, 1));
        let hub = Hub::open(&*log, &topology, FanoutConfig::default()).unwrap();
        let mut fixture = Self {
            log,
            hub,
            stores: MemoryStores::new(writer),
            topology,
            fold: None,
            now: MonotonicMillis(0),
            wall: WallTime(DAY_MS),
            records: BTreeMap::new(),
            open_from: BTreeMap::new(),
            events: 0,
            generation: 1,
            asked: Vec::new(),
        };
        fixture.reopen(Millis(0)).unwrap();
        fixture
    }

    /// Drops the fold as a failure does.
    pub(super) fn kill(&mut self) {
        self.fold = None;
    }

    pub(super) fn close(&mut self) {
        self.fold.take().expect("it is open").close().unwrap();
    }

    pub(super) fn reopen(&mut self, wall: Millis) -> Result<(), EngineError> {
        let log: Arc<MemoryLog> = Arc::clone(&self.log);
        self.fold = Some(StateFold::open(log, &self.stores, &self.hub, wall)?);
        Ok(())
    }

    pub(super) fn turn(&mut self) -> Result<bool, EngineError> {
        let fold = self.fold.as_mut().expect("it is open");
        fold.turn(self.now, Duration::ZERO)
    }

    pub(super) fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.turn().unwrap();
        }
    }

    pub(super) fn pass_time(&mut self, ms: i64) {
        self.now = self.now.plus(ms);
    }

    pub(super) fn partition_of(&self, channel: &str) -> Partition {
        self.topology.partition_of(channel.as_bytes())
    }

    /// The partition of a channel's state.
    fn at(&self, channel: &str) -> TopicPartition {
        self.hub.topic_partition(STATE_TOPIC, self.partition_of(channel))
    }

    /// Appends a new value; returns the event's id.
    pub(super) fn put(&mut self, record: StateRecord<'_>) -> String {
        self.put_large(record, 0)
    }

    /// The same with so many bytes of text.
    pub(super) fn put_large(&mut self, record: StateRecord<'_>, bytes: usize) -> String {
        let id = format!("e{}", self.events);
        self.events += 1;
        let text = match bytes {
            0 => "a \\\"quoted\\\" line".to_owned(),
            bytes => "x".repeat(bytes),
        };
        let event = Event {
            event_id: id.clone(),
            event_type: "presence.changed".to_owned(),
            account_id: record.account.to_owned(),
            timestamp_ms: DAY_MS,
            correlation_id: id.clone(),
            priority: Priority::Normal,
            key: "k".to_owned(),
            source: None,
            alias: None,
            data: format!("{{\"id\":\"{id}\",\n\"text\":\"{text}\"}}"),
        };
        self.append(record, Some(&event.encode()));
        id
    }

    pub(super) fn remove(&mut self, record: StateRecord<'_>) {
        self.append(record, None);
    }

    fn append(&mut self, record: StateRecord<'_>, value: Option<&[u8]>) {
        let StateRecord { channel, account, state_key } = record;
        let key = [channel, account, state_key].join("\0");
        self.append_raw(channel, Some(key.as_bytes()), value);
    }

    /// Appends any record to the partition of a channel.
    pub(super) fn append_raw(&mut self, channel: &str, key: Option<&[u8]>, value: Option<&[u8]>) {
        let at = self.at(channel);
        let body = Body::new(key, value, &[]);
        let offset = self.log.append(&at, Millis(self.wall.0), body.clone());
        self.records.insert((at.partition, offset), body);
    }

    /// Writes a control record.
    pub(super) fn skip(&mut self, channel: &str) {
        self.log.skip(&self.at(channel));
    }

    pub(super) fn has_open_transaction(&self, channel: &str) -> bool {
        self.open_from.contains_key(&self.partition_of(channel))
    }

    pub(super) fn open_transaction(&mut self, channel: &str) {
        let at = self.at(channel);
        self.log.open_transaction(&at);
        self.open_from.insert(at.partition, self.log.end(&at));
    }

    pub(super) fn end_transaction(&mut self, channel: &str, end: LogTransactionEnd) {
        let at = self.at(channel);
        self.log.end_transaction(&at, end);
        let from = self.open_from.remove(&at.partition).expect("one is open");
        if end == LogTransactionEnd::Abort {
            self.records.retain(|(of, offset), _| *of != at.partition || *offset < from);
        }
    }

    /// Removes the records before `start`.
    pub(super) fn retain_from(&mut self, channel: &str, start: u64) {
        let at = self.at(channel);
        self.log.retain_from(&at, start);
        self.records.retain(|(of, offset), _| *of != at.partition || *offset >= start);
    }

    pub(super) fn truncate(&mut self, channel: &str, end: u64) {
        let at = self.at(channel);
        self.log.truncate(&at, end);
        self.records.retain(|(of, offset), _| *of != at.partition || *offset < end);
    }

    /// Deletes the topics and creates them again.
    pub(super) fn create_topics_again(&mut self) {
        self.generation += 1;
        self.log.create_again(self.generation);
        self.records.clear();
        self.open_from.clear();
    }

    /// The hub learns of topics that were created again.
    pub(super) fn follow_topics(&self) {
        let hub = Hub::open(&*self.log, &self.topology, FanoutConfig::default()).unwrap();
        self.hub.set_next_epoch(hub.epoch());
    }

    /// Asks for a snapshot; returns the request's number.
    pub(super) fn ask(&mut self, channel: &str, accounts: Accounts) -> usize {
        let answers = Arc::<Mutex<Vec<SnapshotAnswer>>>::default();
        let to = Arc::clone(&answers);
        let answer = Box::new(move |answer| to.lock().unwrap().push(answer));
        assert!(self.hub.ask_snapshot(channel, accounts.clone(), answer), "there is room");
        let (end, generation) = (self.log.end(&self.at(channel)), self.generation);
        let channel = channel.to_owned();
        self.asked.push(AskedSnapshot { channel, accounts, end, generation, answers });
        self.asked.len() - 1
    }

    pub(super) fn answer(&self, asked: usize) -> Option<SnapshotAnswer> {
        let answers = self.asked[asked].answers.lock().unwrap();
        assert!(answers.len() <= 1, "a request is answered once");
        answers.first().cloned()
    }

    pub(super) fn is_unavailable(&self, asked: usize) -> bool {
        matches!(self.answer(asked), Some(SnapshotAnswer::Unavailable))
    }

    /// The snapshot that was asked for, once it is there. It must be what the log has.
    pub(super) fn found(&self, asked: usize) -> Option<FoundSnapshot> {
        let Some(SnapshotAnswer::Found(found)) = self.answer(asked) else { return None };
        let pages: Vec<Value> = found.pages.iter().flat_map(|page| entries(page.bytes())).collect();
        Some(FoundSnapshot { found, entries: pages })
    }

    /// Asks for a snapshot and waits for it.
    pub(super) fn snapshot(&mut self, channel: &str, accounts: Accounts) -> FoundSnapshot {
        let asked = self.ask(channel, accounts);
        for _ in 0..100 {
            self.turns(1);
            self.stores.write_all();
            if let Some(found) = self.found(asked) {
                self.check(asked);
                return found;
            }
        }
        panic!("no snapshot of {channel}");
    }

    /// Asserts that a snapshot, if there is one, is what the log has before its offset. Not to be
    /// called once the records before may be gone.
    pub(super) fn check(&self, asked: usize) {
        let Some(FoundSnapshot { found, entries }) = self.found(asked) else { return };
        let AskedSnapshot { channel, accounts, end, generation, .. } = &self.asked[asked];
        assert_eq!(*generation, self.generation, "topics that are gone");
        assert!(found.at >= *end, "it lacks what was there before");
        let partition = self.partition_of(channel);
        let open_from = self.open_from.get(&partition);
        assert!(open_from.is_none_or(|open| found.at <= *open), "it has what is not committed");
        let mut model = BTreeMap::new();
        for (_, body) in self.records.range((partition, 0)..(partition, found.at)) {
            let Some(key) = body.key().and_then(|key| std::str::from_utf8(key).ok()) else {
                continue;
            };
            let parts: Vec<&str> = key.splitn(3, '\0').collect();
            let &[of_channel, account, state_key] = &parts[..] else { continue };
            if of_channel != channel || account.is_empty() || !accounts.allows(account) {
                continue;
            }
            match body.value().map(EventView::decode) {
                Some(Ok(event)) => {
                    model.insert((account, state_key), event.event_id.to_owned());
                }
                Some(Err(_)) => {}
                None => drop(model.remove(&(account, state_key))),
            }
        }
        let model = model.into_iter().take(10_000).map(|((account, key), id)| (account, key, id));
        let entries = entries.iter().map(|entry| {
            let text = |name: &str| entry[name].as_str().expect("it is a text");
            (text("account_id"), text("key"), text("event_id").to_owned())
        });
        let (model, entries): (Vec<_>, Vec<_>) = (model.collect(), entries.collect());
        match found.is_truncated() {
            true => assert!(model.starts_with(&entries)),
            false => assert_eq!(model, entries),
        }
    }
}

fn entries(page: &[u8]) -> Vec<Value> {
    let page = [b"[", page, b"]"].concat();
    let Value::Array(entries) = serde_json::from_slice(&page).expect("a page is JSON") else {
        panic!("it is an array");
    };
    assert!((1..=1_000).contains(&entries.len()));
    let order = |entry: &Value| {
        let text = |name| entry[name].as_str().unwrap_or_default().to_owned();
        (text("account_id"), text("key"))
    };
    assert!(entries.is_sorted_by_key(order));
    assert_ne!(entries[0], json!(null));
    entries
}
