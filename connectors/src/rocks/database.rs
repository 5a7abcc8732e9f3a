//! The RocksDB database of one task: a column family per table, and one for progress.
//!
//! ```text
//! family      key          value
//! meta        "progress"   the encoded changelog offsets this state corresponds to
//! table-N     as given     as given
//! ```
//!
//! The write-ahead log is on: a batch has progress and data in it, so they agree after a killed
//! process and, because RocksDB recovers up to the first gap, after a power failure.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use rocksdb::compaction_filter::Decision;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DBCompressionType,
    DBWithThreadMode, LogLevel, Options, SingleThreaded, WriteBatch, WriteBufferManager,
};
use tidewire_engine::port::{KeyRange, StoreBatch, StoreError, Table, TableExpiry, TableSpec};
use tidewire_engine::record::Partition;

use super::config::{
    BLOCK_BYTES, Config, DROP_EVERY_MS, EXPIRE_SECONDS, FILTER_BITS, OPEN_FILES_MAX,
};

/// What the names of the tasks' directories begin with.
pub(super) const TASK_DIR_PREFIX: &str = "task-";

/// The name of a task's directory, for its store and for its checkpoints.
pub(super) fn task_dir_name(partition: Partition) -> String {
    format!("{TASK_DIR_PREFIX}{}", partition.0)
}

/// Removes a directory if it exists.
pub(super) fn remove_dir(dir: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError {
            message: format!("can't remove {}; remove it by hand", dir.display()),
            source: Some(Box::new(error)),
        }),
        _ => Ok(()),
    }
}

/// RocksDB as used here: all column families are opened with the database.
pub(super) type SingleThreadedDb = DBWithThreadMode<SingleThreaded>;

/// Memory that the databases of all tasks share.
pub(super) struct SharedBuffers {
    cache: Cache,
    buffers: WriteBufferManager,
}

impl SharedBuffers {
    /// Allocates what is configured.
    pub(super) fn new(config: &Config) -> Self {
        let cache = Cache::new_lru_cache(config.block_cache_bytes);
        let buffers =
            WriteBufferManager::new_write_buffer_manager(config.write_buffer_bytes, false);
        Self { cache, buffers }
    }
}

/// Called with each key and value; breaks to stop.
pub(super) type VisitRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// An open database.
pub(super) struct TaskDatabase {
    rocks: SingleThreadedDb,
    dir: PathBuf,
    /// By number.
    tables: Vec<Option<DeclaredTable>>,
}

/// A table that was declared when the database was opened.
#[derive(Clone)]
struct DeclaredTable {
    family: String,
    expiry: TableExpiry,
    /// Entries with an earlier time may be deleted.
    horizon: Arc<AtomicI64>,
}

pub(super) const META: &str = "meta";
pub(super) const PROGRESS: &[u8] = b"progress";

/// What the names of the tables' families begin with.
pub(super) const TABLE_PREFIX: &str = "table-";

/// The name of a table's family.
pub(super) fn family_name(table: Table) -> String {
    format!("{TABLE_PREFIX}{}", table.0)
}

impl TaskDatabase {
    /// Opens or creates the database.
    pub(super) fn open(
        dir: &Path,
        tables: &[TableSpec],
        shared: &SharedBuffers,
    ) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|error| StoreError {
            message: format!(
                "can't create the directory {}; give one that can be written with --data-dir",
                dir.display()
            ),
            source: Some(Box::new(error)),
        })?;
        let options = database_options(shared);
        let mut names = vec!["default".to_owned(), META.to_owned()];
        if dir.join("CURRENT").exists() {
            // RocksDB opens only with all families, those of tables of older builds included.
            names.extend(
                SingleThreadedDb::list_cf(&options, dir)
                    .map_err(|error| store_error(dir, &error))?,
            );
        }
        let mut known = vec![None; 256];
        for spec in tables {
            let family = family_name(spec.table);
            names.push(family.clone());
            let horizon = Arc::new(AtomicI64::new(i64::MIN));
            known[usize::from(spec.table.0)] =
                Some(DeclaredTable { family, expiry: spec.expiry, horizon });
        }
        names.sort();
        names.dedup();
        let families: Vec<_> = names
            .iter()
            .map(|name| {
                let table = known.iter().flatten().find(|known| known.family == *name);
                let stamped = table.filter(|known| known.expiry == TableExpiry::ByValueTime);
                let options = table_options(shared, stamped.map(|known| known.horizon.clone()));
                ColumnFamilyDescriptor::new(name, options)
            })
            .collect();
        let rocks = SingleThreadedDb::open_cf_descriptors(&options, dir, families)
            .map_err(|error| store_error(dir, &error))?;
        Ok(Self { rocks, dir: dir.to_owned(), tables: known })
    }

    /// A table's family.
    fn family(&self, table: Table) -> Result<&ColumnFamily, StoreError> {
        let known = self.tables[usize::from(table.0)].as_ref();
        known.and_then(|known| self.rocks.cf_handle(&known.family)).ok_or_else(|| StoreError {
            message: format!("table {} was not declared when the store was opened", table.0),
            source: None,
        })
    }

    fn meta(&self) -> &ColumnFamily {
        self.rocks.cf_handle(META).expect("created or opened with the database")
    }

    /// Lets entries of this table with an earlier time be deleted. Where the key begins with the
    /// time, the range is deleted once the horizon moved far enough: whole files first, then the
    /// rest by one range tombstone, never entry by entry.
    pub(super) fn set_horizon(&self, table: Table, before: i64) -> Result<(), StoreError> {
        let Some(known) = &self.tables[usize::from(table.0)] else { return Ok(()) };
        let last = known.horizon.load(Ordering::Relaxed);
        if known.expiry != TableExpiry::ByKeyTime {
            known.horizon.fetch_max(before, Ordering::Relaxed);
        } else if before >= last.saturating_add(DROP_EVERY_MS) {
            known.horizon.store(before, Ordering::Relaxed);
            let (from, to) = ([0; 8], (before ^ i64::MIN).to_be_bytes());
            let family = self.family(table)?;
            let mut rows = WriteBatch::default();
            rows.delete_range_cf(family, from, to);
            self.rocks
                .delete_file_in_range_cf(family, from, to)
                .and_then(|()| self.rocks.write(rows))
                .map_err(|error| store_error(&self.dir, &error))?;
        }
        Ok(())
    }

    /// The value of a key.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.rocks.get_pinned_cf(self.family(table)?, key);
        let found = found.map_err(|error| store_error(&self.dir, &error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The progress last written.
    pub(super) fn progress(&self) -> Result<Option<Bytes>, StoreError> {
        let found = self.rocks.get_cf(self.meta(), PROGRESS);
        Ok(found.map_err(|error| store_error(&self.dir, &error))?.map(Bytes::from))
    }

    /// Visits a range in order until the visitor breaks.
    pub(super) fn scan(
        &self,
        table: Table,
        KeyRange { from, to }: KeyRange<'_>,
        visit: VisitRow<'_>,
    ) -> Result<(), StoreError> {
        let mut options = rocksdb::ReadOptions::default();
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let mut rows = self.rocks.raw_iterator_cf_opt(self.family(table)?, options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(|error| store_error(&self.dir, &error))
    }

    /// Writes a batch and its progress atomically.
    pub(super) fn write(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        let mut rows = WriteBatch::default();
        for write in &batch.writes {
            let family = self.family(write.table)?;
            match &write.value {
                Some(value) => rows.put_cf(family, &write.key, value),
                None => rows.delete_cf(family, &write.key),
            }
        }
        rows.put_cf(self.meta(), PROGRESS, &batch.progress);
        self.rocks.write(rows).map_err(|error| store_error(&self.dir, &error))
    }

    /// Creates a checkpoint in a new directory on the same disk, by hard links.
    pub(super) fn create_checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        rocksdb::checkpoint::Checkpoint::new(&self.rocks)
            .and_then(|checkpoint| checkpoint.create_checkpoint(dir))
            .map_err(|error| store_error(dir, &error))
    }
}

fn database_options(shared: &SharedBuffers) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_manager(&shared.buffers);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(64 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options
}

fn table_options(shared: &SharedBuffers, horizon: Option<Arc<AtomicI64>>) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&shared.cache);
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_bloom_filter(FILTER_BITS, false);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(16 << 20);
    options.set_target_file_size_base(16 << 20);
    if let Some(horizon) = horizon {
        options.set_periodic_compaction_seconds(EXPIRE_SECONDS);
        options.set_compaction_filter("before-horizon", move |_, _: &[u8], value: &[u8]| {
            let time = value.first_chunk::<8>().map(|time| i64::from_be_bytes(*time));
            match time {
                Some(time) if time < horizon.load(Ordering::Relaxed) => Decision::Remove,
                _ => Decision::Keep,
            }
        });
    }
    options
}

/// An error of RocksDB with what to do about it.
fn store_error(dir: &Path, error: &rocksdb::Error) -> StoreError {
    let dir = dir.display();
    let raw = error.to_string();
    let has = |what: &str| raw.contains(what);
    let message = if has("lock file") || has("lock hold") {
        format!("{dir} is open already, and only one task can open it; stop the other process")
    } else if has("No space left") {
        format!("the disk of {dir} is full; free some space and start again")
    } else if has("Corruption") {
        format!("{dir} is damaged; remove it, and it is rebuilt from the changelog")
    } else {
        format!(
            "reading or writing {dir} failed; check the disk, or remove the directory to have it \
             rebuilt from the changelog"
        )
    };
    StoreError { message, source: Some(raw.into()) }
}
