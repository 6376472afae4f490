//! Disks that lose power: an ext4 file system in a file, shut down so that what was not synced is gone.
//!
//! The shutdown is ext4's own ioctl, without a flush of its journal: every later write fails, and after
//! the next mount there is what had been synced, and what the kernel happened to write back. Mounting needs
//! rights and loop devices that not every machine gives. Where `CI` is `true` a test must not pass without
//! them; elsewhere it says loudly that it did not run. Dropping a disk unmounts it, also in a panic.

use crate::cluster::{Cluster, temporary};
use crate::processes;
use crate::wait::until;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Shuts the file systems of its arguments down, one right after the other. A file that is written just
/// before each is in no transaction that could still be synced.
const CUTTER: &str = r#"
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define EXT4_IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define NO_FLUSH_OF_THE_LOG 2

int main(int count, char **paths) {
    int failed = 0;
    for (int at = 1; at < count; at++) {
        uint32_t how = NO_FLUSH_OF_THE_LOG;
        int disk = open(paths[at], O_RDONLY | O_DIRECTORY);
        int canary = openat(disk, "canary", O_WRONLY | O_CREAT, 0600);
        if (disk < 0 || canary < 0 || write(canary, "!", 1) != 1 ||
            ioctl(disk, EXT4_IOC_SHUTDOWN, &how) != 0) {
            perror(paths[at]);
            failed = 1;
        }
    }
    return failed;
}
"#;

/// A mounted file system that can lose power.
#[derive(Debug)]
pub struct PowerDisk {
    image: PathBuf,
    at: PathBuf,
}

impl PowerDisk {
    /// Makes one of `mib` mebibytes in the file `image` and mounts it at `at`, which is made. `None`: this
    /// machine does not allow it, and that was said; panics instead where `CI` is `true` and there are
    /// loop devices.
    pub fn mount(image: &Path, at: &Path, mib: u64) -> Option<PowerDisk> {
        fs::create_dir_all(at).expect("the mount point can be made");
        let file = fs::File::create(image).expect("a scratch directory is writable");
        file.set_len(mib << 20).expect("a file can be sparse");
        let made = ran(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image));
        let mounted = made.and_then(|()| mount(image, at));
        let Err(why) = mounted else {
            // A node wants its data directory empty.
            fs::remove_dir(at.join("lost+found")).expect("it is empty");
            return Some(PowerDisk { image: image.to_owned(), at: at.to_owned() });
        };
        // A machine without loop devices cannot, whatever `.ci/run` installs.
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        let can = ran(Command::new("losetup").arg("--find")).is_ok();
        assert!(!in_ci || !can, "a disk that can lose power cannot be mounted: {why}");
        eprintln!(
            "NOT TESTED, no ext4 can be mounted from a file (needs root and loop devices): {why}"
        );
        None
    }

    /// The power is back: mounts it anew, which replays the file system's journal. No process may have
    /// a file of it open. Panics if what [`lose_power`] wrote just before is there: nothing was lost then.
    pub fn plug_in_again(&self) {
        until("the disk to be unmounted", || ran(Command::new("umount").arg(&self.at)));
        mount(&self.image, &self.at).expect("a file system is mounted again after a cut");
        // Its name may be there, because a node's sync in that moment wrote the log; what is in it not.
        let canary = fs::read(self.at.join("canary")).unwrap_or_default();
        assert!(canary.is_empty(), "what was not synced is there: the cut was none");
        // After a real cut the machine has started anew, and a node knows that by this.
        let boot = self.at.join("boot");
        if boot.exists() {
            fs::write(boot, "the boot before the cut").expect("the disk has power");
        }
    }
}

/// The program that cuts, which is built once in `scratch`.
fn cutter(scratch: &Path) -> PathBuf {
    let (source, cutter) = (scratch.join("cutter.c"), scratch.join("cutter"));
    if !cutter.exists() {
        fs::write(&source, CUTTER).expect("a scratch directory is writable");
        let built = ran(Command::new("cc").arg("-o").arg(&cutter).arg(&source));
        built.expect("there is a C compiler: Rust links with it");
    }
    cutter
}

/// All of `disks` lose power at once, as near as one process can do it.
fn cut(disks: &[PowerDisk], cutter: &Path) {
    let paths = disks.iter().map(|disk| &disk.at);
    ran(Command::new(cutter).args(paths)).expect("ext4 can be shut down");
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        // Lazily, so that a process that is just ending does not hold it.
        if let Err(why) = ran(Command::new("umount").arg("-l").arg(&self.at)) {
            eprintln!("{} is still mounted: {why}", self.at.display());
        }
        // The loop device goes with its mount. Where it has not, it goes with its last user.
        let listed =
            Command::new("losetup").args(["-n", "-O", "NAME", "-j"]).arg(&self.image).output();
        let devices = listed.map(|listed| String::from_utf8_lossy(&listed.stdout).into_owned());
        for device in devices.unwrap_or_default().split_whitespace() {
            // One that is gone by now needs nothing.
            let _ = ran(Command::new("losetup").arg("-d").arg(device));
        }
    }
}

/// Room for a node's engine and the reserve that writes leave free.
const DISK_MIB: u64 = 384;

/// The data of these nodes on disks that can lose power.
pub fn on_power_disks(nodes: &[&str], durability: &str) -> Option<(Cluster, Vec<PowerDisk>)> {
    let root = temporary();
    let mount = |name: &&str| {
        let (image, home) = (root.path().join(format!("{name}.img")), root.path().join("dev"));
        PowerDisk::mount(&image, &home.join(name).join("data"), DISK_MIB)
    };
    let disks: Vec<PowerDisk> = nodes.iter().map(mount).collect::<Option<_>>()?;
    Some((Cluster::in_root(root, &["--durability", durability]), disks))
}

/// The power of these nodes goes, and that of their disks. The nodes end first, as they do in a power cut:
/// one that went on would ack what a file system that is shut down calls synced, and that has an error
/// of its own there (ext4 says nothing where it could not finish what a sync had begun).
pub fn lose_power(cluster: &Cluster, nodes: &[&str], disks: &[PowerDisk]) {
    let cutter = cutter(cluster.scratch());
    for name in nodes {
        processes::signal(&cluster.home(name), Signal::KILL);
    }
    cut(disks, &cutter);
    for name in nodes {
        let home = cluster.home(name);
        until(&format!("{name} to be gone"), || match processes::of_node(&home).len() {
            0 => Ok(()),
            left => Err(left),
        });
    }
    disks.iter().for_each(PowerDisk::plug_in_again);
}

fn mount(image: &Path, at: &Path) -> Result<(), String> {
    ran(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(image).arg(at))
}

/// Runs a command; what it said, if it failed.
fn ran(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
