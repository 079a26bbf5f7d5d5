//! Programs on the kernel: they print what they print on Linux.
//!
//! Each program has its output in `kernel/user/expected`. It must come of a run on this Linux,
//! which keeps the file honest, and of a run on the kernel, on machines of several kinds. What is
//! missing (QEMU, a C compiler, busybox) is told in a line that starts with `SKIP`.

use std::io::{self, Cursor, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use vellum_emulator::boot::{Boot, BootError};
use vellum_emulator::console::{Event, OutOfMemory, Part};
use vellum_emulator::input::Input;
use vellum_emulator::programs::{Compiler, PROGRAMS, Program};
use vellum_emulator::{qemu, system};

fn skip(why: &str) {
    // Not `eprintln`, which the test harness keeps to itself.
    writeln!(io::stderr(), "SKIP: {why}").expect("stderr can be written to");
}

/// Every C compiler that is installed; a line if there is none.
fn compilers() -> Vec<Compiler> {
    let all = Compiler::installed();
    if all.is_empty() {
        skip("no C compiler: install musl-tools or gcc");
    }
    all
}

/// A machine that runs `program`; none, and a line about it, if there can be none.
fn machine<W: ToString>(program: &[W]) -> Option<Boot> {
    if let Err(error) = qemu::find() {
        skip(&error.to_string());
        return None;
    }
    let compiler = Some(compilers().into_iter().next()?);
    let program = program.iter().map(W::to_string).collect();
    Some(Boot { compiler, program, time_max: Some(Duration::from_mins(5)), ..Boot::default() })
}

/// The same with a program that is a shell's work.
fn shell(script: &str) -> Option<Boot> {
    if system::busybox().is_none() {
        skip("no static busybox: install busybox-static");
        return None;
    }
    machine(&["/bin/sh", "-c", script])
}

/// What a run said.
struct Said {
    output: String,
    notes: Vec<String>,
    report: Value,
    kills: Vec<OutOfMemory>,
    ended: Result<u8, BootError>,
}

impl Said {
    /// A number of the report, by its JSON pointer.
    fn number(&self, place: &str) -> u64 {
        let found = self.report.pointer(place).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("no number at {place} in {}", self.report))
    }
}

fn run(boot: &Boot) -> Said {
    run_on(boot, None)
}

/// Runs a program that can read `input`.
fn run_on(boot: &Boot, input: Option<Input>) -> Said {
    let (mut output, mut notes) = (Vec::new(), Vec::new());
    let (mut report, mut kills) = (Value::Null, Vec::new());
    let ended = boot.run(input, |part| match part {
        Part::Output(bytes) => output.extend_from_slice(bytes),
        Part::Note(line) => notes.push(line.to_owned()),
        Part::Event(Event::Report(fields)) => report = fields,
        Part::Event(Event::OutOfMemory(kill)) => kills.push(kill),
        Part::Event(_) => {}
    });
    let output = String::from_utf8_lossy(&output).into_owned();
    Said { output, notes, report, kills, ended }
}

/// Runs what must end well and leave nothing behind, and returns what it said.
fn run_well(boot: &Boot) -> Said {
    let said = run(boot);
    assert!(matches!(said.ended, Ok(0)), "{boot:?}: {:?}\n{}", said.ended, said.output);
    assert_eq!(said.report["leaked"], Value::Null, "{boot:?} leaked");
    let kinds = said.report["faults"]["by_kind"].as_object().expect("faults have kinds");
    assert!(kinds.values().any(|count| count.as_u64() > Some(0)), "{boot:?} had no faults");
    said
}

fn program(name: &str) -> &'static Program {
    PROGRAMS.iter().find(|program| program.name == name).expect("it is the name of a program")
}

fn words(program: &Program) -> Vec<String> {
    let path = format!("/bin/{}", program.name);
    [path].into_iter().chain(program.arguments.iter().map(ToString::to_string)).collect()
}

fn assert_prints(boot: &Boot, expected: &str) -> Said {
    let said = run_well(boot);
    assert_eq!(said.output, expected, "{boot:?}");
    said
}

/// `program` on this Linux, where addresses and the first stack pages are the same in every run.
fn native(program: &Program, path: PathBuf) -> Command {
    let mut command = Command::new("/usr/bin/setarch");
    command.arg("-R").arg(path).args(program.arguments);
    // What is in the environment is on the stack, and moves it from page to page.
    command.env_clear().env("GLIBC_TUNABLES", "glibc.pthread.rseq=0");
    command
}

#[test]
fn programs_print_on_linux_what_is_expected() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image/programs");
    for compiler in compilers() {
        let built = compiler.build(&directory).expect("the programs compile");
        for (program, built) in PROGRAMS.iter().zip(built) {
            // Linux has no machine of its own to run out of memory on.
            if program.name == "oom" {
                continue;
            }
            // A Linux that is short of memory takes a page of the program's text now and then, and
            // counts one fault more.
            let run = || native(program, built.path.clone()).output().expect("setarch runs");
            let as_expected = |ran: &Output| ran.stdout == program.expected.as_bytes();
            let mut ran = run();
            for _ in 0..4 {
                if as_expected(&ran) {
                    break;
                }
                ran = run();
            }
            let output = String::from_utf8_lossy(&ran.stdout);
            let name = (program.name, compiler.name());
            assert_eq!(output, program.expected, "{name:?}: {}", ran.status);
            assert!(ran.status.success(), "{name:?}: {}", ran.status);
        }
    }
}

#[test]
fn programs_print_on_the_kernel_what_they_print_on_linux() {
    for program in PROGRAMS {
        for compiler in compilers() {
            let Some(boot) = machine(&words(program)) else { return };
            assert_prints(&Boot { compiler: Some(compiler), ..boot }, program.expected);
        }
    }
}

#[test]
fn several_processors_and_nodes_change_no_output() {
    for (cpus, nodes) in [(2, 1), (4, 2)] {
        for name in ["forktest", "threads", "signals", "pipes", "stress"] {
            let program = program(name);
            let Some(boot) = machine(&words(program)) else { return };
            let said = assert_prints(&Boot { cpus, nodes, ..boot }, program.expected);
            assert_eq!(said.number("/machine/cpus"), u64::from(cpus));
        }
    }
}

#[test]
fn a_program_larger_than_memory_runs_on_swap_under_any_policy() {
    for policy in
        ["fifo", "clock", "enhanced-clock", "wsclock", "sieve", "clock-pro", "linux", "mglru"]
    {
        let Some(boot) = machine(&["/bin/churn", "24M", "2"]) else { return };
        let memory_bytes = 16 << 20;
        let said = run_well(&Boot { memory_bytes, policy: policy.to_owned(), ..boot });
        assert!(said.output.ends_with("churn: done\n"), "{policy}: {}", said.output);
        assert_eq!(said.number("/machine/memory_bytes"), memory_bytes);
        // 8 MiB and more do not fit, in each of two passes and in the last look at all pages.
        assert!(said.number("/reclaim/swapped_in") >= 3 * 2048, "{policy}: {}", said.report);
        assert!(said.number("/faults/major") > 0, "{policy}: {}", said.report);
    }
}

#[test]
fn lack_of_memory_kills_who_has_most_and_no_other() {
    let program = program("oom");
    for swap_bytes in [0, 16 << 20] {
        let Some(boot) = machine(&words(program)) else { return };
        let boot = Boot { memory_bytes: 16 << 20, swap_bytes, ..boot };
        let said = assert_prints(&boot, program.expected);
        let [kill] = &said.kills[..] else { panic!("killed {:?}", said.kills) };
        assert!(kill.resident_bytes > 8 << 20, "{kill:?}");
        assert_eq!(kill.swap_bytes > 0, swap_bytes > 0, "{kill:?}");
    }
}

/// As above where other processors run the victim when it is chosen, and wait for memory themselves.
#[test]
fn on_several_processors_nobody_dies_in_the_place_of_a_victim() {
    let scratch = tempfile::tempdir().expect("there is a temporary directory");
    let Some(boot) = machine_with("hogs", &[], scratch.path()) else { return };
    let said = run_well(&Boot { cpus: 4, memory_bytes: 24 << 20, swap_bytes: 8 << 20, ..boot });
    assert_eq!(said.output, "the hog was killed, and 0 others\n".repeat(3));
}

/// What they want is more than memory and swap, so that in the end only text can be evicted. Then some
/// must die for the others to get on, though reclaim always finds a page.
#[test]
fn a_machine_that_crawls_kills_until_others_get_on() {
    let mut kills = 0;
    for policy in ["fifo", "clock", "linux"] {
        let Some(boot) = machine(&["/bin/stress", "60", "103", "6", "60M"]) else { return };
        let (memory_bytes, swap_bytes) = (20 << 20, 32 << 20);
        let boot = Boot { memory_bytes, swap_bytes, policy: policy.to_owned(), ..boot };
        let said = run_well(&boot);
        assert!(said.output.ends_with("stress: done\n"), "{policy}: {}", said.output);
        kills += said.kills.len();
    }
    assert!(kills > 0, "it all fitted");
}

#[test]
fn a_shell_sorts_as_it_does_on_linux() {
    let script =
        "sort /etc/lines.txt | sha256sum; sort -r /etc/lines.txt | head -3; wc -l /etc/lines.txt";
    let Some(boot) = shell(script) else { return };
    let said = run_well(&boot);
    let directory = tempfile::tempdir().expect("there is a temporary directory");
    let lines = directory.path().join("lines.txt");
    std::fs::write(&lines, system::lines()).expect("it can be written");
    let here = lines.to_str().expect("it is text");
    let script = script.replace("/etc/lines.txt", here);
    let busybox = system::busybox().expect("it was there before");
    let native = Command::new(busybox).args(["sh", "-c", &script]).output().expect("it runs");
    let native = String::from_utf8_lossy(&native.stdout).replace(here, "/etc/lines.txt");
    assert_eq!(said.output, native);
    assert_eq!(native.lines().count(), 5, "{native}");
}

/// Files live in memory and may take half of it. What busybox is has names, also where scripts look.
#[test]
fn a_shell_fills_memory_with_files_and_runs_scripts() {
    let script = "cd /tmp; dd if=/dev/zero of=big bs=1M count=100 2>/dev/null; echo dd $?
        du -k big | awk '{ print ($1 > 8000) }'; echo x > big; cat big
        printf '#!/usr/bin/env sh\\necho ran $1\\n' > run; ./run 2>/dev/null || echo not yet
        chmod +x run; ./run it; echo in | cat /dev/stdin; echo out > /dev/stdout
        mkdir d; touch d/a; tar czf d.tgz d; tar tzf d.tgz";
    let expected = "dd 1\n1\nx\nnot yet\nran it\nin\nout\nd/\nd/a\n";
    let Some(boot) = shell(script) else { return };
    let said = assert_prints(&Boot { memory_bytes: 24 << 20, swap_bytes: 0, ..boot }, expected);
    assert!(said.kills.is_empty(), "{:?}", said.kills);
}

/// A hundred thousand bytes, of all values.
fn bytes_of_all_values() -> Vec<u8> {
    (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn programs_read_every_byte_of_the_input_and_its_end() {
    let Some(sum) = shell("sha256sum; cat; echo end") else { return };
    let sent = bytes_of_all_values();
    let said = run_on(&sum, Some(Box::new(Cursor::new(sent.clone()))));
    assert!(matches!(said.ended, Ok(0)), "{:?}", said.ended);
    let busybox = system::busybox().expect("it was there before");
    let mut native = Command::new(busybox);
    native.arg("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut native = native.spawn().expect("it runs");
    native.stdin.take().expect("it is piped").write_all(&sent).expect("it reads");
    let native = native.wait_with_output().expect("it ends").stdout;
    assert_eq!(said.output, String::from_utf8_lossy(&native) + "end\n");
}

#[test]
fn input_that_no_program_reads_is_left_to_others() {
    let Some(boot) = machine(&["/bin/hello"]) else { return };
    let (sender, untouched) = mpsc::channel();
    let tell = move |_: &mut [u8]| {
        sender.send(()).expect("the test waits");
        0
    };
    let said = run_on(&boot, Some(Box::new(Reads(tell))));
    assert!(matches!(said.ended, Ok(0)), "{:?}", said.ended);
    assert_eq!(untouched.recv(), Err(mpsc::RecvError), "the input was read");
}

/// Somebody types only after a program has said something: a program that waits is not the end, and a
/// wait with a limit ends without any input.
#[test]
fn a_conversation_goes_back_and_forth() {
    let script = "read -t 0.1 x || echo late; read x; echo got $x; read y z; echo and $z";
    let Some(boot) = shell(script) else { return };
    let (typist, typed) = mpsc::channel::<&[u8]>();
    let typing = move |bytes: &mut [u8]| {
        let line = typed.recv().unwrap_or_default();
        bytes[..line.len()].copy_from_slice(line);
        line.len()
    };
    let mut lines: Vec<&[u8]> = vec![b"three four\n", b"one\n"];
    let mut output = Vec::new();
    let answers: [&[u8]; 2] = [b"late\n", b"got one\n"];
    let ended = boot.run(Some(Box::new(Reads(typing))), |part| {
        if let Part::Output(bytes) = part {
            output.extend_from_slice(bytes);
            if answers.iter().any(|answer| output.ends_with(answer)) {
                typist.send(lines.pop().expect("each answer comes once")).expect("it is read");
            }
        }
    });
    assert!(matches!(ended, Ok(0)), "{ended:?}");
    assert_eq!(String::from_utf8_lossy(&output), "late\ngot one\nand four\n");
}

/// Reads by a function, which tells how many bytes it has put in the buffer.
struct Reads<F>(F);

impl<F: FnMut(&mut [u8]) -> usize> Read for Reads<F> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(self.0(bytes))
    }
}

#[test]
fn the_exit_code_is_the_programs() {
    for (script, code) in [("exit 42", 42), ("kill -9 $$", 137), ("kill -11 $$", 139)] {
        let Some(boot) = shell(script) else { return };
        let said = run(&boot);
        assert!(matches!(said.ended, Ok(found) if found == code), "{script}: {:?}", said.ended);
    }
}

/// Nothing that a program makes uses up what the kernel needs for itself: it is refused, and again after
/// all is given back.
#[test]
fn a_program_that_exhausts_the_kernel_is_refused() {
    let scratch = tempfile::tempdir().expect("there is a temporary directory");
    let Some(boot) = machine_with("exhaust", &[], scratch.path()) else { return };
    let said = run_well(&Boot { memory_bytes: 32 << 20, swap_bytes: 0, ..boot });
    assert!(said.output.ends_with("exhaust: done\n"), "{}", said.output);
    assert!(!said.output.contains("No error"), "something has no end: {}", said.output);
}

/// The machine ends with its first process, whatever the others do: a child that has not asked about
/// children of its own, which have ended, and loops that other processors are in.
#[test]
fn who_is_left_at_the_end_leaves_nothing_behind() {
    let zombies = "sh -c 'true & true & exec sleep 100' & sleep 1";
    let loops = "for i in 1 2 3 4; do while :; do :; done & done; sleep 1";
    for (script, ended) in [(zombies, 4), (loops, 5)] {
        let Some(boot) = shell(script) else { return };
        let said = run_well(&Boot { cpus: 4, ..boot });
        let processes = said.report["processes"].as_array().expect("it is a list");
        assert!(processes.len() >= ended, "{script}: {}", said.report);
    }
}

#[test]
fn what_cannot_be_run_is_refused_in_a_line() {
    let Some(boot) = machine(&["/bin/nothing"]) else { return };
    let error = run(&boot).ended.expect_err("there is no such program").to_string();
    assert!(error.contains("/bin/nothing") && error.contains("forktest"), "{error}");
    let Some(boot) = machine(&["/bin/hello"]) else { return };
    let boot = Boot { policy: "nonsense".to_owned(), ..boot };
    let error = run(&boot).ended.expect_err("there is no such policy").to_string();
    assert!(error.contains("nonsense") || error.contains("policy"), "{error}");
}

#[test]
fn time_in_instructions_is_the_same_in_every_run() {
    let Some(boot) = machine(&["/bin/forktest"]) else { return };
    let boot = Boot { icount: true, swap_bytes: 64 << 20, ..boot };
    let (one, other) = (run_well(&boot), run_well(&boot));
    assert_eq!(one.report, other.report);
    assert!(one.number("/time/virtual_ns") > 0);
}

/// Builds a program that is for the kernel alone, and a machine that runs it.
fn machine_with(name: &str, words: &[&str], directory: &Path) -> Option<Boot> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("user");
    let built = directory.join(name);
    let boot = machine(&[&[&format!("/bin/{name}")[..]], words].concat())?;
    let compiler = boot.compiler.as_ref().expect("a machine has one").name();
    let compiled = Command::new(compiler)
        .args(["-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&built)
        .arg(folder.join(format!("{name}.c")))
        .status();
    assert!(compiled.expect("the compiler runs").success(), "{name}.c");
    Some(Boot { added: vec![built], ..boot })
}

/// A program ends at a page that its disk cannot give back; who needs none of those goes on.
#[test]
fn a_disk_that_cannot_be_read_kills_who_needs_it() {
    let scratch = tempfile::tempdir().expect("there is a temporary directory");
    for (fails, signal) in [("read", "Bus error"), ("write", "Killed")] {
        let Some(boot) = machine_with("unreadable", &["48"], scratch.path()) else { return };
        let faults = scratch.path().join(fails);
        let rule =
            format!("[inject-error]\nevent = \"none\"\niotype = \"{fails}\"\nerrno = \"5\"\n");
        std::fs::write(&faults, rule).expect("it can be written");
        let boot = Boot { memory_bytes: 24 << 20, swap_faults: Some(faults), ..boot };
        let said = run_well(&boot);
        let expected = format!("the child was killed by {signal}\nunreadable: done\n");
        assert_eq!(said.output, expected, "{fails} fails");
    }
}

/// A place of swap that cannot be written keeps one page in memory. Those that leave with it go without it.
#[test]
fn a_bad_place_of_swap_loses_no_page() {
    let scratch = tempfile::tempdir().expect("there is a temporary directory");
    let Some(boot) = machine(&["/bin/churn", "40M"]) else { return };
    let faults = scratch.path().join("faults");
    let sector = 100 * 8; // of slot 100
    let rule = format!(
        "[inject-error]\nevent = \"none\"\niotype = \"write\"\nsector = \"{sector}\"\nerrno = \"5\"\n"
    );
    std::fs::write(&faults, rule).expect("it can be written");
    let good = run_well(&Boot { memory_bytes: 24 << 20, ..boot.clone() });
    let bad = run_well(&Boot { memory_bytes: 24 << 20, swap_faults: Some(faults), ..boot });
    assert_eq!(bad.output, good.output);
    assert!(bad.number("/reclaim/swapped_in") > 0, "{}", bad.report);
}

/// An image of the repository.
fn image(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Every page of the large file is read more than once, since most of memory is needed in between.
#[test]
fn files_of_a_disk_are_read_mapped_evicted_and_read_again() {
    let scratch = tempfile::tempdir().expect("there is a temporary directory");
    let script = "cat /mnt/hello.txt /mnt/link; mounted /mnt/big; churn 24M 1; cd /mnt/sub;
        sha256sum ../big; mounted ../sparse; ../program; echo x > /mnt/new; mkdir /mnt/sub/new;
        mv /mnt/big /tmp; rm /mnt/link; ls /mnt";
    let expected = "hello from the disk\ndeeper\n15 pages the same, 0 failed, 0 wrong\n";
    let then = "39ee3e9f8733d16e6c4bf07123355e2747537f51bc7e68ad3253ea4414f9483d  ../big\n\
        8 pages the same, 0 failed, 0 wrong\nrun from disk!\n\
        /bin/sh: can't create /mnt/new: Read-only file system\n\
        mkdir: can't create directory '/mnt/sub/new': Read-only file system\n\
        mv: can't rename '/mnt/big': Read-only file system\n\
        rm: can't remove '/mnt/link': Read-only file system\n\
        big\nhello.txt\nlink\nlost+found\nprogram\nsparse\nsub\n";
    for (name, swap_bytes, then) in [
        ("disk.ext2", 64 << 20, then.to_owned()),
        ("disk.ext4", 64 << 20, then.to_owned() + "unwritten\n"),
    ] {
        let Some(with) = machine_with("mounted", &[], scratch.path()) else { return };
        let Some(boot) = shell(script) else { return };
        let boot = Boot { added: with.added, disk: Some(image(name)), ..boot };
        let said = run_well(&Boot { memory_bytes: 16 << 20, swap_bytes, ..boot });
        assert!(said.output.starts_with(expected), "{name}: {}", said.output);
        assert!(said.output.ends_with(&then), "{name}: {}", said.output);
        assert!(said.number("/reclaim/swapped_out") > 0, "{}", said.report);
    }
}

#[test]
fn a_machine_without_swap_starts_a_program_of_its_disk() {
    let Some(boot) = machine(&["/mnt/program"]) else { return };
    assert_prints(
        &Boot { disk: Some(image("disk.ext2")), swap_bytes: 0, ..boot },
        "run from disk!\n",
    );
}

/// The whole disk is refused, or a file's map is bad, or a sector cannot be read: what is not hit goes on.
#[test]
fn a_damaged_disk_harms_nobody_who_does_not_need_it() {
    let scratch = tempfile::tempdir().expect("there is a temporary directory");
    let sound = std::fs::read(image("disk.ext2")).expect("it is in the repository");
    let run = |disk: PathBuf, disk_faults: Option<PathBuf>| {
        let script = "mounted /mnt/big; mounted /mnt/sparse; cat /mnt/hello.txt; echo on";
        let with = machine_with("mounted", &[], scratch.path())?;
        let boot = Boot { added: with.added, disk: Some(disk), disk_faults, ..shell(script)? };
        let said = run_well(&boot);
        Some((said.output, said.notes))
    };
    let damaged = |name: &str, at: usize, word: [u8; 4]| {
        let (path, mut bytes) = (scratch.path().join(name), sound.clone());
        bytes[at..at + 4].copy_from_slice(&word);
        std::fs::write(&path, bytes).expect("it can be written");
        path
    };
    let magic = damaged("magic", 1024 + 0x38, [0; 4]);
    let Some((output, notes)) = run(magic, None) else { return };
    assert_eq!(notes, ["the disk is not mounted: it is no ext2, ext3 or ext4 file system"]);
    assert!(output.ends_with("on\n"), "{output}");

    let rest = "8 pages the same, 0 failed, 0 wrong\nhello from the disk\non\n";
    // The map of `big`: after 12 blocks, which begin so, comes the block of blocks.
    let map = sound.windows(8).position(|words| words == [22, 0, 0, 0, 23, 0, 0, 0]);
    let pointer = map.expect("it is on the disk") + 12 * 4;
    let ran = run(damaged("map", pointer, [0xff; 4]), None).expect("it ran before");
    assert_eq!(ran.0, format!("0 pages the same, 15 failed, 0 wrong\n{rest}"));

    // Contents of `big`, as are the sectors around it: what describes the tree can be read.
    let sector = 63 * 2;
    let rule = format!(
        "[inject-error]\nevent = \"none\"\niotype = \"read\"\nsector = \"{sector}\"\nerrno = \"5\"\n"
    );
    let faults = scratch.path().join("faults");
    std::fs::write(&faults, rule).expect("it can be written");
    let ran = run(image("disk.ext2"), Some(faults)).expect("it ran before");
    assert_eq!(ran.0, format!("14 pages the same, 1 failed, 0 wrong\n{rest}"));
}

/// What the kernel promises, in instructions.
const COSTS_AT_MOST: [(&str, f64); 5] = [
    ("null system call", 150.0),
    ("demand-zero fault", 1000.0),
    ("fork, each resident page", 60.0),
    ("copy-on-write fault", 1100.0),
    ("eviction with swap-out", 3000.0),
];

/// The counts are exact, and the same wherever the same compilers made kernel and program. Other
/// compilers may make a few instructions more or less of the same source.
#[test]
fn costs_are_what_they_were() {
    let scratch = tempfile::tempdir().expect("there is a temporary directory");
    let Some(boot) = machine_with("cost", &[], scratch.path()) else { return };
    let said = run_well(&Boot { icount: true, swap_bytes: 64 << 20, ..boot });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("user/expected/cost.txt");
    if std::env::var_os("VELLUM_BLESS").is_some() {
        std::fs::write(&path, &said.output).expect("it can be written");
    }
    let golden = std::fs::read_to_string(path).expect("it is in the repository");
    let split = |text: &str| -> Vec<(String, Option<f64>)> {
        let halves = text.lines().map(|line| line.rsplit_once(' ').unwrap_or((line, "")));
        halves.map(|(name, count)| (name.trim().to_owned(), count.parse().ok())).collect()
    };
    let (then, now) = (split(&golden), split(&said.output));
    assert_eq!(then.len(), now.len(), "{}", said.output);
    for ((name, then), (same, now)) in then.iter().zip(&now) {
        assert_eq!(name, same, "{}", said.output);
        let ratio = now.unwrap_or(1.0) / then.unwrap_or(1.0);
        assert!((0.97..1.03).contains(&ratio), "{name}: {then:?}, now {now:?}");
    }
    for (name, at_most) in COSTS_AT_MOST {
        let (_, cost) = now.iter().find(|(found, _)| found == name).expect("it is measured");
        assert!(cost.is_some_and(|cost| cost <= at_most), "{name}: {cost:?}, above {at_most}");
    }
}

#[test]
#[ignore = "takes a minute or two"]
fn chance_finds_no_byte_that_is_not_as_written() {
    for (cpus, memory_bytes, seed) in [(2, 32 << 20, 11), (4, 24 << 20, 12), (4, 16 << 20, 13)] {
        let Some(boot) = machine(&["/bin/stress", "20s", &seed.to_string(), "4", "40M"]) else {
            return;
        };
        let said = run_well(&Boot { cpus, memory_bytes, swap_bytes: 128 << 20, ..boot });
        assert!(said.output.contains("every byte as written"), "{}", said.output);
        assert!(said.number("/reclaim/swapped_in") > 0, "{}", said.report);
    }
    // Without swap some processes are killed; those that are left find their bytes.
    let Some(boot) = machine(&["/bin/stress", "300", "14", "4", "64M"]) else { return };
    let boot = Boot { cpus: 2, memory_bytes: 16 << 20, swap_bytes: 0, ..boot };
    let said = run_well(&boot);
    assert!(said.output.contains("every byte as written"), "{}", said.output);
    assert!(!said.kills.is_empty(), "64 MiB fit in 16: {}", said.report);
}
