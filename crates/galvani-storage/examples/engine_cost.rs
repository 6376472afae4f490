//! What one write costs each engine: the measure behind `docs/decisions/0002-storage-engine.md`.
//!
//! Per operation: read the old object row, then put a new object row (120 B), a log record (1.1
//! KiB, 1 KiB of it the value), an arrival row (26 B), a request row (40 B) and the clock row, 32
//! operations in each batch. Prints CPU per operation over all threads, bytes the process wrote to
//! files per byte of value, and the time of hot reads.
//!
//! `cargo run --release -p galvani-storage --example engine_cost -- ENGINE [OPERATIONS] [KEYS]`
//! with ENGINE one of `fjall`, `fjall-fsync`, `redb`, `redb-fsync`, `memory`,
//! or `none`, which keeps nothing and so shows what the measuring itself costs.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use galvani_storage::engine::{
    Batch, Durability, Engine, EngineConfig, FjallEngine, MemoryEngine, Op, PowerHistory, Table,
};
use redb::{ReadableDatabase, TableDefinition};

type Failure = Box<dyn Error>;

const VALUE_BYTES: usize = 1_024;
const RECORD_BYTES: usize = VALUE_BYTES + 100;
const OBJECT_BYTES: usize = 120;
const BATCH_OPS: u64 = 32;
const READS: u64 = 100_000;

/// What the workload needs of an engine.
trait Candidate {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<usize>, Failure>;
    fn commit(&self, batch: &Batch) -> Result<(), Failure>;
}

struct Ours<E> {
    engine: E,
    durability: Durability,
}

impl<E: Engine> Candidate for Ours<E> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<usize>, Failure> {
        Ok(self.engine.get(table, key)?.map(|value| value.len()))
    }

    fn commit(&self, batch: &Batch) -> Result<(), Failure> {
        Ok(self.engine.commit(batch, self.durability)?)
    }
}

/// Keeps nothing.
struct Nothing;

impl Candidate for Nothing {
    fn get(&self, _: Table, key: &[u8]) -> Result<Option<usize>, Failure> {
        std::hint::black_box(key);
        Ok(None)
    }

    fn commit(&self, batch: &Batch) -> Result<(), Failure> {
        std::hint::black_box(batch);
        Ok(())
    }
}

struct Redb {
    database: redb::Database,
    durability: redb::Durability,
}

const fn redb_table(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

impl Redb {
    fn create(path: &Path, durability: redb::Durability) -> Result<Redb, Failure> {
        let cache = EngineConfig::default().cache_bytes + EngineConfig::default().memtable_bytes;
        let database =
            redb::Builder::new().set_cache_size(cache as usize).create(path.join("redb"))?;
        let transaction = database.begin_write()?;
        for table in Table::ALL {
            transaction.open_table(redb_table(table))?;
        }
        transaction.commit()?;
        Ok(Redb { database, durability })
    }
}

impl Candidate for Redb {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<usize>, Failure> {
        let table = self.database.begin_read()?.open_table(redb_table(table))?;
        Ok(table.get(key)?.map(|value| value.value().len()))
    }

    fn commit(&self, batch: &Batch) -> Result<(), Failure> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        for table in Table::ALL {
            let mut rows = transaction.open_table(redb_table(table))?;
            for op in batch.iter() {
                match op {
                    Op::Put { table: of, key, value } if of == table => {
                        rows.insert(key, value)?;
                    }
                    Op::Delete { table: of, key } if of == table => {
                        rows.remove(key)?;
                    }
                    Op::Put { .. } | Op::Delete { .. } => {}
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

/// A repeatable sequence of numbers without pattern (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let number = self.next().to_le_bytes();
            part.copy_from_slice(&number[..part.len()]);
        }
    }
}

fn object_key(key: u64) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&((key % 256) as u32).to_be_bytes());
    bytes[4..12].copy_from_slice(&Numbers(key).next().to_be_bytes());
    bytes[12..].copy_from_slice(&key.to_be_bytes());
    bytes
}

/// Partition, origin, counter.
fn log_key(partition: u64, counter: u64) -> [u8; 26] {
    let mut bytes = [0; 26];
    bytes[..2].copy_from_slice(&(partition as u16).to_be_bytes());
    bytes[2..18].copy_from_slice(&[7; 16]);
    bytes[18..].copy_from_slice(&counter.to_be_bytes());
    bytes
}

fn write(candidate: &dyn Candidate, operations: u64, keys: u64) -> Result<u64, Failure> {
    let mut numbers = Numbers(42);
    let mut batch = Batch::new();
    let mut counters = [0u64; 256];
    let mut record = vec![0; RECORD_BYTES];
    let mut object = vec![0; OBJECT_BYTES];
    let mut hits = 0;
    for operation in 0..operations {
        let key = numbers.next() % keys;
        let partition = key % 256;
        let counter = &mut counters[partition as usize];
        *counter += 1;
        let object_key = object_key(key);
        hits += u64::from(candidate.get(Table::Objects, &object_key)?.is_some());
        numbers.fill(&mut record);
        numbers.fill(&mut object[..40]);
        let mut request = [0; 18];
        numbers.fill(&mut request[2..]);
        batch.put(Table::Objects, &object_key, &object);
        batch.put(Table::Log, &log_key(partition, *counter), &record);
        let mut arrival = [0; 10];
        arrival[..2].copy_from_slice(&(partition as u16).to_be_bytes());
        arrival[2..].copy_from_slice(&counter.to_be_bytes());
        batch.put(Table::Arrivals, &arrival, &object[..26]);
        batch.put(Table::RequestIds, &request, &object[..22]);
        batch.put(Table::Clocks, &(partition as u16).to_be_bytes(), &object[..60]);
        if (operation + 1) % BATCH_OPS == 0 || operation + 1 == operations {
            candidate.commit(&batch)?;
            batch.clear();
        }
    }
    Ok(hits)
}

fn read_hot(candidate: &dyn Candidate, keys: u64) -> Result<Duration, Failure> {
    // A working set that fits any cache, read twice: the second round is measured.
    let hot = keys.min(2_000);
    let mut elapsed = Duration::ZERO;
    for _ in 0..2 {
        let mut numbers = Numbers(7);
        let began = Instant::now();
        for _ in 0..READS {
            std::hint::black_box(candidate.get(Table::Objects, &object_key(numbers.next() % hot))?);
        }
        elapsed = began.elapsed();
    }
    Ok(elapsed / READS as u32)
}

/// CPU time of all threads of this process so far.
fn cpu_time() -> Result<Duration, Failure> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let fields = text.rsplit(')').next().ok_or("no fields")?;
    let ticks = |at: usize| -> Result<u64, Failure> {
        Ok(fields.split_whitespace().nth(at).ok_or("too few fields")?.parse()?)
    };
    // utime and stime, the 14th and 15th field, in units of 10 ms on every Linux.
    Ok(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

fn bytes_written() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).ok_or("no wchar")?;
    Ok(line.parse()?)
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let engine = arguments.next().unwrap_or_else(|| "fjall".to_owned());
    let operations: u64 = arguments.next().map_or(Ok(500_000), |text| text.parse())?;
    let keys: u64 = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let dir = tempfile::tempdir_in(".")?;
    let durability = match engine.ends_with("-fsync") {
        true => Durability::Fsync,
        false => Durability::Os,
    };
    let candidate: Box<dyn Candidate> = match engine.trim_end_matches("-fsync") {
        "fjall" => {
            let config = EngineConfig::default();
            let (engine, _) = FjallEngine::open(dir.path(), config, PowerHistory::SameBoot)?;
            Box::new(Ours { engine, durability })
        }
        "memory" => Box::new(Ours { engine: MemoryEngine::new(), durability }),
        "none" => Box::new(Nothing),
        "redb" => {
            let durability = match durability {
                Durability::Os => redb::Durability::None,
                Durability::Fsync => redb::Durability::Immediate,
            };
            Box::new(Redb::create(dir.path(), durability)?)
        }
        other => return Err(format!("no engine {other}").into()),
    };
    let (cpu, written, began) = (cpu_time()?, bytes_written()?, Instant::now());
    let hits = write(&*candidate, operations, keys)?;
    let elapsed = began.elapsed();
    let hot = read_hot(&*candidate, keys)?;
    // Closing is part of the cost: what an engine put off is done or dropped there.
    drop(candidate);
    let reads_cpu = hot * (2 * READS) as u32;
    let cpu = (cpu_time()? - cpu).saturating_sub(reads_cpu);
    let written = bytes_written()? - written;
    println!(
        "{engine}: {operations} operations on {keys} keys ({hits} rewrites): {:.1} us CPU/op, \
         {:.1} us/op elapsed, {:.2} bytes written per value byte, {:.2} us per hot object read",
        cpu.as_secs_f64() * 1e6 / operations as f64,
        elapsed.as_secs_f64() * 1e6 / operations as f64,
        written as f64 / (operations * VALUE_BYTES as u64) as f64,
        hot.as_secs_f64() * 1e6,
    );
    Ok(())
}
