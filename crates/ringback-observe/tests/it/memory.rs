//! Memory stays bounded however long a file or a line is. Measured in a process of its own.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::process::Stdio;

use ringback_model::{Activity, SessionId};

use crate::world::{SESSION, World, answer, at, prompt, sightings, tool_result, tool_use};

const CHILD: &str = "RINGBACK_OBSERVE_MEMORY_TEST";
const LINE: usize = 50 * 1024 * 1024;
const FILE: u64 = 150 * 1024 * 1024;

#[test]
fn a_long_transcript_with_a_50_mb_line_takes_at_most_16_mib_more() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "this very test, in a process whose memory nothing else uses"
    )]
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "memory::a_long_transcript_with_a_50_mb_line_takes_at_most_16_mib_more",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

fn child() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    write(&path);
    // From here on the peak counts, without what writing the file took.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = resident_kib("VmHWM:");
    let seen = sightings(world.observer.scan(at(10)));
    assert_eq!(seen.last().unwrap().sighting.activity, Activity::Waiting);
    world.sum_up(1024 * 1024, 20);
    // Once more, as a file that grew all at once before the observer's eyes.
    let fork = world.transcript("grown");
    world.add(&fork, &[prompt(30)], 30);
    fs::copy(&path, world.home.path().join("copy")).unwrap();
    fs::rename(world.home.path().join("copy"), &fork).unwrap();
    world.look(&fork, 40);
    let about = world.observer.session(&SessionId::new(SESSION)).unwrap().about;
    assert!(about.totals.assistant_messages > 1000, "{:?}", about.totals);
    let grown = resident_kib("VmHWM:") - before;
    println!("{} MiB read twice: {} KiB more", FILE >> 20, grown);
    assert!(grown <= 16 * 1024, "{grown} KiB");
}

fn write(path: &std::path::Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = BufWriter::new(File::create(path).unwrap());
    let filler = "f".repeat(100_000);
    let mut written = 0;
    let mut n = 0;
    let put = |file: &mut BufWriter<File>, line: &str| {
        writeln!(file, "{line}").unwrap();
        line.len() as u64 + 1
    };
    while written < FILE {
        let ms = n * 10 - 900_000;
        written += put(&mut file, &prompt(ms));
        written += put(&mut file, &tool_use(ms + 1, &format!("t{n}"), "Read"));
        written +=
            put(&mut file, &tool_result(ms + 2, &format!("t{n}")).replace("\"ok\"", &format!("{filler:?}")));
        if n == 700 {
            let bulk = "x".repeat(LINE);
            written += put(&mut file, &tool_result(ms + 3, "none").replace("\"ok\"", &format!("{bulk:?}")));
        }
        n += 1;
    }
    put(&mut file, &answer(-1));
    file.flush().unwrap();
}

fn resident_kib(field: &str) -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(field)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}
