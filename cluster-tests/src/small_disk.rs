//! A small file system in memory that a test can fill up.
//!
//! Mounting needs rights that not every machine gives. Where `CI` is `true` a test must not pass
//! without it; elsewhere it says loudly that it did not run.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system; unmounted on drop, also when the test panicked.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
    mib: u64,
}

impl SmallDisk {
    /// Mounts one of `mib` mebibytes at `at`, which is made. `None`: this machine does not allow
    /// it, and that was said; panics instead where `CI` is `true`.
    pub fn mount(at: &Path, mib: u64) -> Option<SmallDisk> {
        fs::create_dir_all(at).expect("the mount point can be made");
        let size = format!("size={mib}m");
        let ran =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        let why = match ran {
            Ok(output) if output.status.success() => {
                return Some(SmallDisk { at: at.to_owned(), mib });
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "a small file system cannot be mounted: {why}");
        eprintln!("NOT TESTED, a small file system cannot be mounted (needs root): {why}");
        None
    }

    /// Takes space until fewer than `kib` kibibytes are left.
    pub fn fill(&self, kib: u64) {
        let mut file = File::options().create(true).append(true).open(self.filler());
        let file = file.as_mut().expect("the filler can be made");
        let block = vec![0xaa_u8; 64 << 10];
        while self.free_kib() >= kib + 64 {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return,
                Err(error) => panic!("filling: {error}"),
            }
        }
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn empty(&self) {
        fs::remove_file(self.filler()).expect("the filler is there");
    }

    /// Makes it so small that `kib` kibibytes are left: as full as [`SmallDisk::fill`] makes it, at once,
    /// and without the memory that a filler takes.
    pub fn tighten(&self, kib: u64) {
        let mut why = String::new();
        for _ in 0..TRIES {
            let facts = rustix::fs::statvfs(&self.at).expect("a mounted file system has facts");
            let used_kib = (facts.f_blocks - facts.f_bfree) * facts.f_frsize / 1024;
            match self.resize(&format!("{}k", used_kib + kib)) {
                Ok(()) => return,
                // More than that was written meanwhile.
                Err(said) => why = said,
            }
        }
        panic!("{} cannot be made smaller: {why}", self.at.display());
    }

    /// As large again as it was mounted.
    pub fn loosen(&self) {
        self.resize(&format!("{}m", self.mib)).expect("a file system in memory can grow");
    }

    fn resize(&self, size: &str) -> Result<(), String> {
        let options = format!("remount,size={size}");
        let ran = Command::new("mount").args(["-o", &options]).arg(&self.at).output();
        match ran {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Kibibytes left.
    pub fn free_kib(&self) -> u64 {
        let facts = rustix::fs::statvfs(&self.at).expect("a mounted file system has facts");
        facts.f_bavail * facts.f_frsize / 1024
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that a process that is just ending does not hold it.
        let ran = Command::new("umount").arg("-l").arg(&self.at).status();
        if !ran.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.at.display());
        }
    }
}

/// Times that a file system is made smaller than what is written to it meanwhile.
const TRIES: u32 = 10;
