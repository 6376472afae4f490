use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use galvani_model::ids::{ClusterId, NodeId};

use super::{DataDir, DirError, DirIdentity, FORMAT_VERSION, OpenedDir, StartKind, UncleanWhy};
use crate::engine::PowerHistory;

const US: DirIdentity = DirIdentity { cluster: ClusterId(7), node: NodeId(11) };
const CRASHED: StartKind = StartKind::Unclean { why: UncleanWhy::Crashed };
const COPIED: StartKind = StartKind::Unclean { why: UncleanWhy::Copied };

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { root: tempfile::tempdir().expect("a temporary directory") }
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("deep/data")
    }

    /// A created and cleanly stopped directory.
    fn stopped(&self) -> PathBuf {
        create(&self.data()).dir.stop_clean().expect("stops");
        self.data()
    }
}

fn create(path: &Path) -> OpenedDir {
    DataDir::create(path, US).expect("creates")
}

fn open(path: &Path) -> OpenedDir {
    DataDir::open(path, Some(US)).expect("opens")
}

fn refusal(path: &Path) -> DirError {
    DataDir::open(path, Some(US)).expect_err("refused")
}

fn copy_with_cp(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success());
}

#[test]
fn a_new_directory_is_a_first_start_and_knows_whose_it_is() {
    let place = Place::new();
    let opened = create(&place.data());
    assert_eq!(opened.start, StartKind::Unclean { why: UncleanWhy::First });
    assert_eq!(opened.dir.identity(), US);
    drop(opened);
    assert_eq!(DataDir::open(&place.data(), None).expect("opens").dir.identity(), US);
    assert_eq!(DataDir::create(&place.data(), US).expect_err("there"), DirError::Exists);
}

#[test]
fn a_directory_without_identity_is_empty_and_stays_so() {
    let place = Place::new();
    assert_eq!(refusal(&place.data()), DirError::Empty);
    assert!(!place.data().exists(), "opening makes nothing");
    fs::create_dir_all(place.data()).expect("creates");
    assert_eq!(refusal(&place.data()), DirError::Empty);
    assert_eq!(fs::read_dir(place.data()).expect("reads").count(), 0);
}

#[test]
fn the_clean_mark_holds_for_one_start() {
    let place = Place::new();
    let path = place.stopped();
    let opened = open(&path);
    assert_eq!((opened.start, opened.power), (StartKind::Clean, PowerHistory::SameBoot));
    drop(opened);
    let again = open(&path);
    assert_eq!((again.start, again.power), (CRASHED, PowerHistory::SameBoot));
    again.dir.stop_clean().expect("stops");
    assert_eq!(open(&path).start, StartKind::Clean);
}

#[test]
fn a_crash_before_another_boot_may_have_lost_power() {
    let place = Place::new();
    let path = place.stopped();
    drop(open(&path));
    fs::write(path.join("boot"), "another boot").expect("writes");
    let opened = open(&path);
    assert_eq!((opened.start, opened.power), (CRASHED, PowerHistory::MayHaveLostPower));
}

/// Else damage in the midst of its first journal would pass for that, and be cut off.
#[test]
fn a_crash_in_the_first_use_is_no_loss_of_power() {
    let place = Place::new();
    drop(create(&place.data()));
    let opened = open(&place.data());
    assert_eq!((opened.start, opened.power), (CRASHED, PowerHistory::SameBoot));
}

#[test]
fn a_copy_of_a_cleanly_stopped_directory_is_noticed() {
    let place = Place::new();
    let path = place.stopped();
    let copy = place.root.path().join("copy");
    copy_with_cp(&path, &copy);
    let opened = open(&copy);
    assert_eq!((opened.start, opened.power), (COPIED, PowerHistory::MayHaveLostPower));
    drop(opened);
    let opened = open(&copy);
    assert_eq!(opened.start, COPIED, "a start that came to nothing changes nothing of that");
    opened.dir.settle().expect("room");
    drop(opened);
    let opened = open(&copy);
    assert_eq!(opened.start, StartKind::Unclean { why: UncleanWhy::Crashed });
    opened.dir.stop_clean().expect("stops");
    assert_eq!(open(&copy).start, StartKind::Clean, "the copy is now at home where it is");
    assert_eq!(open(&path).start, StartKind::Clean, "the original is not touched");
}

#[test]
fn a_directory_restored_in_place_is_noticed() {
    let place = Place::new();
    let path = place.stopped();
    let backup = place.root.path().join("backup");
    copy_with_cp(&path, &backup);
    open(&path).dir.stop_clean().expect("stops");
    fs::remove_dir_all(&path).expect("removes");
    copy_with_cp(&backup, &path);
    assert_eq!(open(&path).start, COPIED);
}

#[test]
fn a_renamed_directory_is_still_the_same() {
    let place = Place::new();
    let path = place.stopped();
    let elsewhere = place.root.path().join("elsewhere");
    fs::rename(&path, &elsewhere).expect("renames");
    assert_eq!(open(&elsewhere).start, StartKind::Clean);
}

#[test]
fn another_identity_is_refused_before_anything_changes() {
    let place = Place::new();
    let path = place.stopped();
    for other in
        [DirIdentity { cluster: ClusterId(8), ..US }, DirIdentity { node: NodeId(12), ..US }]
    {
        let error = DataDir::open(&path, Some(other)).expect_err("not theirs");
        assert_eq!(error, DirError::Belongs { found: US, expected: other });
    }
    assert_eq!(open(&path).start, StartKind::Clean, "a refused open keeps the clean mark");
}

#[test]
fn newer_format_refused_as_newer() {
    let place = Place::new();
    let path = place.stopped();
    let newer = FORMAT_VERSION + 1;
    let line = format!("{{\"format\":{newer},\"shape\":\"unknown to us\"}}");
    let sum = crc32c::crc32c(line.as_bytes());
    fs::write(path.join("galvani.json"), format!("{line}\n{sum:08x}\n")).expect("writes");
    let expected = DirError::NewerFormat { found: newer, supported: FORMAT_VERSION };
    assert_eq!(refusal(&path), expected);
}

#[test]
fn an_older_format_is_refused_with_what_to_do() {
    let place = Place::new();
    let path = place.stopped();
    let line = "{\"format\":1,\"shape\":\"as it was\"}";
    let sum = crc32c::crc32c(line.as_bytes());
    fs::write(path.join("galvani.json"), format!("{line}\n{sum:08x}\n")).expect("writes");
    let expected = DirError::OlderFormat { found: 1, supported: FORMAT_VERSION };
    assert_eq!(refusal(&path), expected);
    assert!(expected.to_string().contains("export"), "{expected}");
    // Format 2 knows no expiry.
    let line = line.replace("1", "2");
    let sum = crc32c::crc32c(line.as_bytes());
    fs::write(path.join("galvani.json"), format!("{line}\n{sum:08x}\n")).expect("writes");
    assert_eq!(refusal(&path), DirError::OlderFormat { found: 2, supported: FORMAT_VERSION });
}

#[test]
fn an_identity_torn_at_any_byte_or_with_any_bit_turned_is_damaged() {
    let place = Place::new();
    let path = place.stopped();
    let file = path.join("galvani.json");
    let whole = fs::read(&file).expect("reads");
    // Without the last line break it is still whole.
    for length in 0..whole.len() - 1 {
        fs::write(&file, &whole[..length]).expect("writes");
        assert!(matches!(refusal(&path), DirError::Damaged { .. }), "cut to {length}");
    }
    for at in 0..whole.len() - 1 {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x04;
        fs::write(&file, &bytes).expect("writes");
        assert!(matches!(refusal(&path), DirError::Damaged { .. }), "turned at {at}");
    }
}

#[test]
fn a_torn_clean_mark_is_no_mark() {
    let place = Place::new();
    let path = place.stopped();
    drop(open(&path));
    open(&path).dir.stop_clean().expect("stops");
    let whole = fs::read(path.join("clean")).expect("reads");
    fs::write(path.join("clean"), &whole[..whole.len() / 2]).expect("writes");
    assert_eq!(open(&path).start, CRASHED);
}

const CHILD_DIR: &str = "GALVANI_TEST_LOCK_DIR";

/// Not a test of its own: the second process of the test below.
#[test]
fn child_holds_the_directory() {
    let Some(path) = std::env::var_os(CHILD_DIR) else { return };
    let _held = open(Path::new(&path));
    println!("holding");
    // Until the parent ends this process, or goes away itself.
    let _ = std::io::stdin().lock().read_line(&mut String::new());
}

#[test]
fn a_second_process_is_refused_until_the_first_ends() {
    let place = Place::new();
    let path = place.stopped();
    let mut child = Command::new(std::env::current_exe().expect("this test's binary"))
        .args(["dir::tests::child_holds_the_directory", "--exact", "--nocapture"])
        .env(CHILD_DIR, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let held = lines.map_while(Result::ok).any(|line| line.contains("holding"));
    assert!(held, "the child opened the directory");
    assert_eq!(refusal(&path), DirError::Locked { pid: Some(child.id()) });
    assert_eq!(
        DataDir::create(&path, US).expect_err("held"),
        DirError::Locked { pid: Some(child.id()) }
    );
    child.kill().expect("kills");
    child.wait().expect("ends");
    assert_eq!(open(&path).start, CRASHED);
}

#[test]
fn a_second_open_in_one_process_is_refused_too() {
    let place = Place::new();
    let path = place.stopped();
    let held = open(&path);
    assert_eq!(refusal(&path), DirError::Locked { pid: Some(std::process::id()) });
    drop(held);
    open(&path);
}
