//! The RocksDB database of the embedded log: opening, column families of a topic, and errors.
//!
//! The name of a column family says how its files are deleted, because the options have to be known
//! before anything can be read:
//!
//! ```text
//! meta               everything that is not a record
//! aged.SECONDS.TOPIC records deleted by age alone: FIFO, whole files, nothing is rewritten
//! sized.TOPIC        records deleted by size too: levels, dropped below the start of the partition
//! data.TOPIC         records of a compacted topic
//! keys.TOPIC         its key index
//! ```
//!
//! The last three drop what is below the start of the partition while RocksDB compacts for other
//! reasons. Nobody reads there any more, so that never changes an answer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rocksdb::compaction_filter::Decision;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompactionStyle,
    DBCompressionType, DBWithThreadMode, FifoCompactOptions, LogLevel, MultiThreaded, Options,
    WriteBatch, WriteOptions,
};
use tidewire_engine::port::{Cleanup, LogError};
use tidewire_engine::record::{Partition, Topic};

use super::config::{
    BLOCK_BYTES, Config, Durability, FAMILY_BUFFER_BYTES, FILE_GRACE_SECONDS, SIZED_FILE_BYTES,
    WAL_BYTES_MAX,
};
use super::layout;

/// RocksDB as used here: column families are created while others are written.
pub(super) type MultiThreadedDb = DBWithThreadMode<MultiThreaded>;

/// The start of each partition of a topic, for its compaction filters. Unset until the topic is
/// loaded; until then nothing is dropped.
pub(super) type Floors = Arc<OnceLock<Vec<Arc<AtomicU64>>>>;

/// The names of a topic's column families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColumnFamilies {
    /// Its records.
    pub(super) records: String,
    /// Its key index, if it is compacted.
    pub(super) keys: Option<String>,
    /// Whether whole files expire by age, so that no range has to be reclaimed.
    pub(super) leaves_by_file: bool,
}

impl ColumnFamilies {
    /// The column families of a topic with this cleanup.
    pub(super) fn of(topic: &Topic, cleanup: &Cleanup) -> Self {
        match cleanup {
            Cleanup::Delete { retention_ms, retention_bytes: None } => {
                let seconds = retention_ms.map_or(0, |ms| ms.div_ceil(1000) + FILE_GRACE_SECONDS);
                let records = format!("aged.{seconds}.{topic}");
                Self { records, keys: None, leaves_by_file: true }
            }
            Cleanup::Delete { .. } => {
                Self { records: format!("sized.{topic}"), keys: None, leaves_by_file: false }
            }
            Cleanup::Compact { .. } | Cleanup::CompactDelete { .. } => Self {
                records: format!("data.{topic}"),
                keys: Some(format!("keys.{topic}")),
                leaves_by_file: false,
            },
        }
    }
}

/// The opened database.
pub(super) struct LogDatabase {
    rocks: MultiThreadedDb,
    dir: PathBuf,
    durability: Durability,
    cache: Cache,
    /// By topic name. An entry is made when a family is opened and set when its topic is loaded.
    floors: Mutex<HashMap<String, Floors>>,
    /// The options of column families created since the start. They own the compaction filters,
    /// and the binding keeps only those it was opened with. They must outlive the database, so this
    /// field comes after it.
    created: Mutex<Vec<Options>>,
}

const META: &str = "meta";

impl LogDatabase {
    /// Opens or creates the database of this directory.
    pub(super) fn open(config: &Config) -> Result<Self, LogError> {
        let dir = config.dir.clone();
        std::fs::create_dir_all(&dir).map_err(|error| {
            let text = format!(
                "can't create the directory {}; give one that can be written with --data-dir",
                dir.display()
            );
            LogError::Fatal(text, Some(Box::new(error)))
        })?;
        let options = database_options(config);
        let names = if dir.join("CURRENT").exists() {
            MultiThreadedDb::list_cf(&options, &dir).map_err(|error| log_error(&dir, &error))?
        } else {
            vec!["default".to_owned(), META.to_owned()]
        };
        let cache = Cache::new_lru_cache(config.block_cache_bytes);
        let mut floors = HashMap::new();
        let families: Vec<_> = names
            .iter()
            .map(|name| {
                let family = family_options(name, &cache, &mut floors);
                ColumnFamilyDescriptor::new(name, family)
            })
            .collect();
        let rocks = MultiThreadedDb::open_cf_descriptors(&options, &dir, families)
            .map_err(|error| log_error(&dir, &error))?;
        let floors = Mutex::new(floors);
        let created = Mutex::default();
        let database = Self { rocks, dir, durability: config.durability, cache, floors, created };
        for name in &names {
            database.merge_small_files(name)?;
        }
        Ok(database)
    }

    /// RocksDB itself, for reading.
    pub(super) fn rocks(&self) -> &MultiThreadedDb {
        &self.rocks
    }

    /// Creates the column families of a new topic that do not exist yet.
    pub(super) fn create_families(&self, families: &ColumnFamilies) -> Result<(), LogError> {
        let names = std::iter::once(&families.records).chain(&families.keys);
        for name in names {
            if self.rocks.cf_handle(name).is_some() {
                continue;
            }
            let options = {
                let mut floors = self.floors.lock().expect("no holder panics");
                family_options(name, &self.cache, &mut floors)
            };
            self.rocks.create_cf(name, &options).map_err(|error| self.log_error(&error))?;
            self.created.lock().expect("no holder panics").push(options);
            self.merge_small_files(name)?;
        }
        Ok(())
    }

    /// Gives the compaction filters of a topic the starts of its partitions.
    pub(super) fn set_floors(&self, topic: &Topic, starts: Vec<Arc<AtomicU64>>) {
        let mut floors = self.floors.lock().expect("no holder panics");
        let floor = floors.entry(topic.as_str().to_owned()).or_default();
        assert!(floor.set(starts).is_ok(), "a topic is loaded once");
    }

    /// A column family of a loaded topic.
    pub(super) fn family(&self, name: &str) -> Result<Arc<BoundColumnFamily<'_>>, LogError> {
        self.rocks.cf_handle(name).ok_or_else(|| {
            self.corruption(&format!(
                "the column family {name} is missing although its topic exists"
            ))
        })
    }

    /// The column family of everything that is not a record.
    pub(super) fn meta(&self) -> Result<Arc<BoundColumnFamily<'_>>, LogError> {
        self.family(META)
    }

    /// A row of meta.
    pub(super) fn meta_row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        self.rocks.get_cf(&self.meta()?, key).map_err(|error| self.log_error(&error))
    }

    /// Writes a batch with the configured durability.
    pub(super) fn write(&self, batch: WriteBatch) -> Result<(), LogError> {
        self.write_as(batch, self.durability)
    }

    /// Writes a batch with this durability.
    pub(super) fn write_as(
        &self,
        batch: WriteBatch,
        durability: Durability,
    ) -> Result<(), LogError> {
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Host);
        options.set_memtable_insert_hint_per_batch(true);
        self.rocks.write_opt(batch, &options).map_err(|error| self.log_error(&error))
    }

    /// Deletes whole files of this span. Best effort: the compaction filters drop the rest.
    pub(super) fn reclaim(
        &self,
        family: &str,
        partition: Partition,
        span: std::ops::Range<u64>,
    ) -> Result<(), LogError> {
        let from = layout::record_key(partition, span.start);
        let to = layout::record_key(partition, span.end.saturating_sub(1));
        self.rocks
            .delete_file_in_range_cf(&self.family(family)?, from, to)
            .map_err(|error| self.log_error(&error))
    }

    /// An error of RocksDB with what to do about it.
    pub(super) fn log_error(&self, error: &rocksdb::Error) -> LogError {
        log_error(&self.dir, error)
    }

    /// The error for stored bytes that can't be decoded.
    pub(super) fn corruption(&self, what: &str) -> LogError {
        let dir = self.dir.display();
        let text = format!(
            "the data in {dir} is damaged ({what}); move the directory away and start with an \
             empty one, or restore a backup of it"
        );
        LogError::Fatal(text, None)
    }

    /// Lets FIFO families merge small files of quiet topics, so that the number of files and open
    /// descriptors stays low. RocksDB offers this through its text options only.
    fn merge_small_files(&self, name: &str) -> Result<(), LogError> {
        if !name.starts_with("aged.") {
            return Ok(());
        }
        let fifo = format!("{{max_table_files_size={NO_SIZE_LIMIT};allow_compaction=true;}}");
        self.rocks
            .set_options_cf(&self.family(name)?, &[("compaction_options_fifo", &fifo)])
            .map_err(|error| self.log_error(&error))
    }
}

/// FIFO by age alone: by size it could drop a quiet partition's last records with a busy one's.
const NO_SIZE_LIMIT: u64 = 1 << 60;

fn database_options(config: &Config) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_db_write_buffer_size(config.write_buffer_bytes);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_background_jobs(2);
    // FIFO by age requires it. The number of files stays low, see `merge_small_files`.
    options.set_max_open_files(-1);
    options.set_bytes_per_sync(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    options
}

/// The share of the write buffer of an index of keys that its bloom filter takes: most keys that
/// are looked up are new. It is a part of the buffer's first block up to a quarter of that.
const KEYS_BUFFER_FILTER_RATIO: f64 = 0.0075;

fn family_options(name: &str, cache: &Cache, floors: &mut HashMap<String, Floors>) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(5);
    let mut options = Options::default();
    options.set_write_buffer_size(FAMILY_BUFFER_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    match name.split_once('.') {
        Some(("aged", rest)) => {
            let seconds = rest.split('.').next().and_then(|s| s.parse().ok()).unwrap_or(0);
            let mut fifo = FifoCompactOptions::default();
            fifo.set_max_table_files_size(NO_SIZE_LIMIT);
            options.set_compaction_style(DBCompactionStyle::Fifo);
            options.set_fifo_compaction_options(&fifo);
            options.set_ttl(seconds);
        }
        Some((kind @ ("sized" | "data" | "keys"), topic)) => {
            options.set_target_file_size_base(SIZED_FILE_BYTES);
            let floor = floors.entry(topic.to_owned()).or_default().clone();
            if kind == "keys" {
                table.set_bloom_filter(10.0, false);
                options.set_memtable_prefix_bloom_ratio(KEYS_BUFFER_FILTER_RATIO);
                options.set_memtable_whole_key_filtering(true);
                options.set_compaction_filter("below-start", keys_filter(floor));
            } else {
                options.set_compaction_filter("below-start", records_filter(floor));
            }
        }
        _ => options.set_write_buffer_size(4 << 20),
    }
    options.set_block_based_table_factory(&table);
    options
}

fn below(floor: &Floors, row: Option<(Partition, u64)>) -> Decision {
    let start = |partition: Partition| {
        let starts = floor.get()?;
        starts.get(partition.0 as usize).map(|start| start.load(Ordering::Acquire))
    };
    match row.and_then(|(partition, offset)| Some(offset < start(partition)?)) {
        Some(true) => Decision::Remove,
        _ => Decision::Keep,
    }
}

fn records_filter(
    floor: Floors,
) -> impl FnMut(u32, &[u8], &[u8]) -> Decision + Send + Sync + 'static {
    move |_, key, _| below(&floor, layout::split_record_key(key))
}

fn keys_filter(floor: Floors) -> impl FnMut(u32, &[u8], &[u8]) -> Decision + Send + Sync + 'static {
    move |_, key, value| below(&floor, layout::index_row(key, value))
}

/// An error of RocksDB with what to do about it.
fn log_error(dir: &Path, error: &rocksdb::Error) -> LogError {
    let dir = dir.display();
    let raw = error.to_string();
    let has = |what: &str| raw.contains(what);
    let text = if has("lock file") || has("lock hold") {
        format!(
            "{dir} is in use by another process; stop it, or give this one another --data-dir; \
             commands can ask it with --url"
        )
    } else if has("No space left") {
        format!(
            "the disk of {dir} is full; free some space and start again, nothing that was \
             acknowledged is lost"
        )
    } else if has("Corruption") {
        format!(
            "the data in {dir} is damaged; move the directory away and start with an empty one, or \
             restore a backup of it"
        )
    } else {
        format!("reading or writing {dir} failed; check the disk and the permissions of its files")
    };
    LogError::Fatal(text, Some(raw.into()))
}
