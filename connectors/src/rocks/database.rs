//! The RocksDB database of one task: reads, writes, and the removal of expired entries.
//!
//! The write-ahead log is on: a batch has progress and data in it, so they agree after a killed
//! process and, because RocksDB recovers up to the first gap, after a power failure. A view in
//! another process reads what is not flushed from it (`table_view.rs`). A flush is due when the
//! write buffers of all tasks are full; RocksDB then flushes the family with the oldest writes.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use rocksdb::compaction_filter::Decision;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor,
    DBCompressionType, DBWithThreadMode, LogLevel, Options, SingleThreaded, WriteBatch,
    WriteBufferManager,
};
use tidewire_engine::port::{KeyRange, StoreBatch, StoreError, Table, TableSpec};
use tidewire_engine::record::Partition;

use super::config::{
    BLOCK_BYTES, Config, DROP_EVERY_MS, EXPIRE_SECONDS, FILTER_BITS, META_BUFFER_BYTES,
    TABLES_BUFFER_BYTES,
};
use super::layout::{
    META, PROGRESS, TableFamily, check_families, end_of, other_layout, put_row_key, row_key,
    split_row, table_key,
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
    /// Of each database.
    open_files_max: i32,
}

impl SharedBuffers {
    /// Allocates what is configured.
    pub(super) fn new(config: &Config) -> Self {
        let cache = Cache::new_lru_cache(config.block_cache_bytes);
        let buffers =
            WriteBufferManager::new_write_buffer_manager(config.write_buffer_bytes, false);
        Self { cache, buffers, open_files_max: config.open_files_max }
    }
}

/// Called with each key and value; breaks to stop.
pub(super) type VisitRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// An open database.
pub(super) struct TaskDatabase {
    rocks: SingleThreadedDb,
    dir: PathBuf,
    /// By number: the families of the tables that were declared when it was opened.
    tables: Vec<Option<TableFamily>>,
    horizons: Arc<Horizons>,
}

/// The horizon of each table, by number: entries with an earlier time may be deleted.
struct Horizons([AtomicI64; 256]);

impl Horizons {
    fn of(&self, table: Table) -> &AtomicI64 {
        &self.0[usize::from(table.0)]
    }

    /// Whether a row of an expiring table, whose value begins with its time, is before it.
    fn expired(&self, row: &[u8], value: &[u8]) -> bool {
        let table = split_row(row).map(|(table, _)| table);
        let time = value.first_chunk::<8>().map(|time| i64::from_be_bytes(*time));
        let horizon = |table| self.of(table).load(Ordering::Relaxed);
        table.zip(time).is_some_and(|(table, time)| time < horizon(table))
    }
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
        if dir.join("CURRENT").exists() {
            let names = SingleThreadedDb::list_cf(&options, dir);
            check_families(dir, &names.map_err(|error| store_error(dir, &error))?)?;
        }
        let horizons = Arc::new(Horizons(std::array::from_fn(|_| AtomicI64::new(i64::MIN))));
        let families = TableFamily::ALL.map(|family| {
            let options = tables_options(shared, family, &horizons);
            ColumnFamilyDescriptor::new(family.name(), options)
        });
        let meta = ColumnFamilyDescriptor::new(META, meta_options(shared));
        let families = families.into_iter().chain([meta]);
        let rocks = SingleThreadedDb::open_cf_descriptors(&options, dir, families)
            .map_err(|error| store_error(dir, &error))?;
        let mut opened = Self { rocks, dir: dir.to_owned(), tables: vec![None; 256], horizons };
        opened.declare(tables)?;
        Ok(opened)
    }

    /// Notes the families of these tables, and writes those of new tables.
    fn declare(&mut self, tables: &[TableSpec]) -> Result<(), StoreError> {
        let mut rows = WriteBatch::default();
        for spec in tables {
            let (family, key) = (TableFamily::of(spec.expiry), table_key(spec.table));
            let stored = self.rocks.get(&key).map_err(|error| self.error(&error))?;
            if let Some(stored) = stored.filter(|stored| stored[..] != family.encode()) {
                let of = TableFamily::decode(&stored).map_or("an unknown one", TableFamily::name);
                let number = spec.table.0;
                let why =
                    format!("table {number} is in the column family {of}, not {}", family.name());
                return Err(other_layout(&self.dir, &why));
            }
            rows.put(&key, family.encode());
            self.tables[usize::from(spec.table.0)] = Some(family);
        }
        self.rocks.write(rows).map_err(|error| self.error(&error))
    }

    /// A declared table's family.
    fn family(&self, table: Table) -> Result<&ColumnFamily, StoreError> {
        let declared = self.tables[usize::from(table.0)].ok_or_else(|| StoreError {
            message: format!("table {} was not declared when the store was opened", table.0),
            source: None,
        })?;
        Ok(self.column_family(declared))
    }

    /// The family of a table that may be one of another build; `None` if no build has declared it
    /// in this database, so it has no rows.
    fn stored_family(&self, table: Table) -> Result<Option<&ColumnFamily>, StoreError> {
        if let Some(declared) = self.tables[usize::from(table.0)] {
            return Ok(Some(self.column_family(declared)));
        }
        let stored = self.rocks.get_pinned(table_key(table));
        let stored = stored.map_err(|error| self.error(&error))?;
        let family = stored.and_then(|stored| TableFamily::decode(&stored));
        Ok(family.map(|family| self.column_family(family)))
    }

    fn column_family(&self, family: TableFamily) -> &ColumnFamily {
        self.rocks.cf_handle(family.name()).expect("opened with the database")
    }

    /// Lets entries of this table with an earlier time be deleted. Where the key begins with the
    /// time, the range is deleted once the horizon moved far enough: whole files first, then the
    /// rest by one range tombstone, never entry by entry.
    pub(super) fn set_horizon(&self, table: Table, before: i64) -> Result<(), StoreError> {
        let Some(family) = self.tables[usize::from(table.0)] else { return Ok(()) };
        let horizon = self.horizons.of(table);
        let last = horizon.load(Ordering::Relaxed);
        if family != TableFamily::Windowed {
            horizon.fetch_max(before, Ordering::Relaxed);
        } else if before >= last.saturating_add(DROP_EVERY_MS) {
            horizon.store(before, Ordering::Relaxed);
            let to = row_key(table, &(before ^ i64::MIN).to_be_bytes());
            self.drop_range(table, &to)?;
        }
        Ok(())
    }

    /// Deletes the rows of a table before `to`. Without such rows it writes nothing: a tombstone
    /// costs the reads of all tables of the family.
    fn drop_range(&self, table: Table, to: &[u8]) -> Result<(), StoreError> {
        let (family, from) = (self.family(table)?, row_key(table, &[]));
        let outcome = self.rocks.delete_file_in_range_cf(family, &from[..], to);
        outcome.map_err(|error| self.error(&error))?;
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut rows = self.rocks.raw_iterator_cf_opt(family, options);
        rows.seek(&from);
        rows.status().map_err(|error| self.error(&error))?;
        if !rows.valid() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(family, &from[..], to);
        self.rocks.write(batch).map_err(|error| self.error(&error))
    }

    /// The value of a key.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.rocks.get_pinned_cf(self.family(table)?, row_key(table, key));
        let found = found.map_err(|error| self.error(&error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The progress last written.
    pub(super) fn progress(&self) -> Result<Option<Bytes>, StoreError> {
        let found = self.rocks.get(PROGRESS);
        Ok(found.map_err(|error| self.error(&error))?.map(Bytes::from))
    }

    /// Visits a range of a table in order until the visitor breaks.
    pub(super) fn scan(
        &self,
        table: Table,
        KeyRange { from, to }: KeyRange<'_>,
        visit: VisitRow<'_>,
    ) -> Result<(), StoreError> {
        let mut options = rocksdb::ReadOptions::default();
        if let Some(to) = to.map(|to| row_key(table, to)).or_else(|| end_of(table)) {
            options.set_iterate_upper_bound(to);
        }
        let mut rows = self.rocks.raw_iterator_cf_opt(self.family(table)?, options);
        rows.seek(row_key(table, from));
        while let Some((row, value)) = rows.item() {
            let key = split_row(row).map_or(&[][..], |(_, key)| key);
            if visit(key, value).is_break() {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(|error| self.error(&error))
    }

    /// Writes a batch and its progress atomically.
    pub(super) fn write(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        let (mut rows, mut row) = (WriteBatch::default(), Vec::new());
        for write in &batch.writes {
            put_row_key(write.table, &write.key, &mut row);
            match &write.value {
                Some(value) => rows.put_cf(self.family(write.table)?, &row, value),
                None => {
                    let family = self.stored_family(write.table)?;
                    family.into_iter().for_each(|family| rows.delete_cf(family, &row));
                }
            }
        }
        rows.put(PROGRESS, &batch.progress);
        self.rocks.write(rows).map_err(|error| self.error(&error))
    }

    /// Creates a checkpoint in a new directory on the same disk, by hard links.
    pub(super) fn create_checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        rocksdb::checkpoint::Checkpoint::new(&self.rocks)
            .and_then(|checkpoint| checkpoint.create_checkpoint(dir))
            .map_err(|error| store_error(dir, &error))
    }

    fn error(&self, error: &rocksdb::Error) -> StoreError {
        store_error(&self.dir, error)
    }
}

/// The share of a write buffer that its bloom filter takes. Most reads are of keys that are new,
/// and a search of the buffer costs more than all else of such a read. Up to a quarter of a block
/// of 1 MiB, it is a part of the first block, which an empty buffer has as well.
const BUFFER_FILTER_RATIO: f64 = 0.015;

fn database_options(shared: &SharedBuffers) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_manager(&shared.buffers);
    options.set_max_open_files(shared.open_files_max);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(64 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options
}

/// Options of the family of progress: a few small rows.
fn meta_options(shared: &SharedBuffers) -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(&block_options(shared));
    options.set_write_buffer_size(META_BUFFER_BYTES);
    options
}

fn tables_options(
    shared: &SharedBuffers,
    family: TableFamily,
    horizons: &Arc<Horizons>,
) -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(&block_options(shared));
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(TABLES_BUFFER_BYTES);
    options.set_target_file_size_base(TABLES_BUFFER_BYTES as u64);
    options.set_memtable_prefix_bloom_ratio(BUFFER_FILTER_RATIO);
    options.set_memtable_whole_key_filtering(true);
    if family == TableFamily::Expiring {
        let horizons = horizons.clone();
        options.set_periodic_compaction_seconds(EXPIRE_SECONDS);
        options.set_compaction_filter("before-horizon", move |_, row: &[u8], value: &[u8]| {
            if horizons.expired(row, value) { Decision::Remove } else { Decision::Keep }
        });
    }
    options
}

/// Indices and bloom filters are divided into blocks. Otherwise a read loads the whole filter of a
/// file, some hundred KiB, once the filters together exceed the block cache.
fn block_options(shared: &SharedBuffers) -> BlockBasedOptions {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&shared.cache);
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_bloom_filter(FILTER_BITS, false);
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_metadata_block_size(BLOCK_BYTES);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_top_level_index_and_filter(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_format_version(5);
    blocks
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_expires_by_the_horizon_of_its_own_table() {
        let horizons = Horizons(std::array::from_fn(|_| AtomicI64::new(i64::MIN)));
        horizons.of(Table(3)).store(1_000, Ordering::Relaxed);
        let expired = |table, time: i64| {
            horizons.expired(&row_key(Table(table), b"key"), &time.to_be_bytes())
        };
        assert_eq!([expired(3, 999), expired(3, 1_000), expired(4, 999)], [true, false, false]);
        assert!(!horizons.expired(&[3], b"short") && !horizons.expired(b"", &[0; 8]));
    }
}
