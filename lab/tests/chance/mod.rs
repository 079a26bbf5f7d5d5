//! Scripts by chance: whatever processes may do, in any order.

/// Numbers by chance, from a seed: `SplitMix64`.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// One of a few pages, so that statements meet.
    fn page(&mut self) -> String {
        format!("{:#x}", 0x10000 + 0x1000 * self.below(12))
    }

    fn area(&mut self) -> String {
        format!("{} {}", self.page(), 1 + self.below(6))
    }
}

/// What a process does by chance.
fn call(dice: &mut Dice) -> String {
    let (area, page) = (dice.area(), dice.page());
    match dice.below(17) {
        0..=2 => {
            let rights = dice.of(&["r", "rw", "rw", "rwx", "none"]);
            let object =
                dice.of(&["file data 0", "file data 4", "file lib 2", "file box 1", "", ""]);
            let sharing = dice.of(&["private", "shared"]);
            let flags = dice.of(&["", "", "fixed", "fixed", "locked", "growsdown"]);
            format!("mmap {area} {rights} {sharing} {object} {flags}")
        }
        3 => format!("munmap {area}"),
        4 => format!("mremap {area} {} {}", dice.below(8), dice.of(&["", "maymove"])),
        5 => format!("mremap {area} {} to {page}", 1 + dice.below(4)),
        6 => format!("mprotect {area} {}", dice.of(&["none", "r", "rw", "rx"])),
        7 => format!("brk {:#x}", 0x5555_5555_3800_u64 + 0x800 * dice.below(8)),
        8 | 9 => {
            let all = [
                "normal",
                "random",
                "sequential",
                "willneed",
                "dontneed",
                "free",
                "cold",
                "pageout",
                "pageout",
                "remove",
                "dontfork",
                "wipeonfork",
            ];
            format!("madvise {area} {}", dice.of(&all))
        }
        10 => format!("{} {area}", dice.of(&["mlock", "munlock", "munlock"])),
        11..=13 => format!("write {area}"),
        _ => format!("{} {area}", dice.of(&["read", "read", "exec"])),
    }
}

/// A script by chance, that in the end lets everything go.
pub(crate) fn any_script(seed: u64) -> String {
    let mut dice = Dice(seed);
    let policy = dice.of(&["fifo", "clock", "lru", "random"]);
    let frames = dice.of(&["16", "24", "40", "64"]);
    let swap = dice.of(&["0", "2", "8 page-cluster 1", "64 page-cluster 3"]);
    let ahead = dice.of(&["1", "4", "32"]);
    let mut lines = vec![format!(
        "frames {frames}\nswap {swap}\npolicy {policy}\nread-ahead {ahead}\nfault-around 4\n\
         file data 8\nfile lib 12 warm\nmemory box 6"
    )];
    let mut alive = vec!["p0".to_owned()];
    for number in 1..100 {
        let who = alive[dice.below(alive.len() as u64) as usize].clone();
        let file = dice.of(&["data", "lib", "box"]);
        lines.push(match dice.below(30) {
            0 if alive.len() < 4 => {
                alive.push(format!("p{number}"));
                format!("{who}: fork p{number}")
            }
            1 => format!("{who}: vfork p{number}\np{number}: {}\np{number}: exit", call(&mut dice)),
            2 if alive.len() > 1 => {
                alive.retain(|name| *name != who);
                format!("{who}: exit")
            }
            3 => format!("{} {file} {}", dice.of(&["fread", "fwrite"]), dice.below(12)),
            4 => format!("sync {file}"),
            5 => format!("truncate {file} {}", dice.below(12)),
            6 => format!("reclaim {}", 1 + dice.below(8)),
            7 => "pressure".to_owned(),
            8 => "hold".to_owned(),
            9 | 10 => dice.of(&["complete", "complete", "fail"]).to_owned(),
            11 => format!("{who}: exec"),
            _ => format!("{who}: {}", call(&mut dice)),
        });
    }
    lines.push("complete".to_owned());
    lines.extend(alive.iter().map(|name| format!("{name}: exit")));
    lines.push("forget data\nforget lib\nforget box\ncheck no-leaks".to_owned());
    lines.join("\n")
}
