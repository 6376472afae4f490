//! Where a key lives: XXH3-64 with a fixed seed over bucket and key, top bits pick the partition.
//!
//! Stable for ever: changing one constant here would lose every stored key. The golden values in
//! the tests hold that line. Next to read: `placement/`.

use crate::ids::Partition;
use crate::key::Key;
use crate::limits::{BUCKET_NAME_BYTES_MAX, KEY_BYTES_MAX, PARTITIONS_MAX};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// Seed of the placement hash.
const PLACEMENT_SEED: u64 = 0x6761_6c76_616e_6931; // "galvani1"

/// Bytes of a bucket and a key that are short together.
const SHORT_BYTES: usize = 64;

/// The 64-bit placement hash of a key. The bucket's length goes first, so that bucket and key
/// cannot run into each other.
pub fn key_hash(key: &Key) -> u64 {
    with_flat_key(key, |flat| xxh3_64_with_seed(flat, PLACEMENT_SEED))
}

/// A 128-bit hash of a key under `seed`, for digests and bindings.
pub fn key_hash_128(key: &Key, seed: u64) -> u128 {
    with_flat_key(key, |flat| xxh3_128_with_seed(flat, seed))
}

/// The partition of a hash in a cluster of `partitions` partitions (a power of two).
pub fn partition_of(hash: u64, partitions: u16) -> Partition {
    assert!(
        partitions.is_power_of_two() && partitions <= PARTITIONS_MAX,
        "partitions is a power of two within PARTITIONS_MAX, checked when the layout was made"
    );
    let bits = partitions.trailing_zeros();
    if bits == 0 { Partition(0) } else { Partition((hash >> (64 - bits)) as u16) }
}

/// Calls `f` with length of bucket, bucket and key in one slice, without touching the heap.
fn with_flat_key<T>(key: &Key, f: impl FnOnce(&[u8]) -> T) -> T {
    // Most are short, and zeroing room for the longest costs more than hashing them.
    match 1 + key.bucket().as_str().len() + key.bytes().len() <= SHORT_BYTES {
        true => f(flatten(key, &mut [0; SHORT_BYTES])),
        false => f(flatten(key, &mut [0; 1 + BUCKET_NAME_BYTES_MAX + KEY_BYTES_MAX])),
    }
}

/// Writes length of bucket, bucket and key to the start of `flat`, which is long enough.
fn flatten<'a>(key: &Key, flat: &'a mut [u8]) -> &'a [u8] {
    let bucket = key.bucket().as_str().as_bytes();
    let bytes = key.bytes();
    flat[0] = bucket.len() as u8;
    flat[1..1 + bucket.len()].copy_from_slice(bucket);
    let end = 1 + bucket.len() + bytes.len();
    flat[1 + bucket.len()..end].copy_from_slice(bytes);
    &flat[..end]
}

#[cfg(test)]
mod tests {
    use super::{PLACEMENT_SEED, SHORT_BYTES, key_hash, key_hash_128};
    use crate::key::Key;
    use crate::limits::KEY_BYTES_MAX;
    use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

    #[test]
    fn short_and_long_keys_hash_as_one_slice_of_length_bucket_and_key() {
        for bucket in ["default", "b", "a-bucket-with-a-longer-name-than-most-of-them-have"] {
            let around = SHORT_BYTES - bucket.len();
            for length in [1, around - 2, around - 1, around, around + 1, KEY_BYTES_MAX] {
                let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
                let flat = [&[bucket.len() as u8], bucket.as_bytes(), &bytes].concat();
                let key = Key::new(bucket.parse().expect("a name"), bytes).expect("a key");
                assert_eq!(key_hash(&key), xxh3_64_with_seed(&flat, PLACEMENT_SEED), "{length}");
                assert_eq!(key_hash_128(&key, 7), xxh3_128_with_seed(&flat, 7), "{length}");
            }
        }
    }
}
