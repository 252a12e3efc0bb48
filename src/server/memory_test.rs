//! The test of the machine's memory: patterns are written to fresh memory and read back. For
//! `--test-memory`, and in the report of a crash.

use std::io::Write;
use std::process::ExitCode;

/// What is written, mixed with each word's number.
const PATTERNS: [u64; 4] = [0, u64::MAX, 0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa];
/// Words between two tellings of progress.
const SLICE: usize = 1 << 20;

/// What a test found.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was read as it was written.
    Sound,
    /// The first word that was not.
    Bad(usize),
    /// There is not so much memory.
    NoMemory,
}

/// Tests `bytes` of fresh memory; `progress` is told, now and then, how many of all steps are done.
pub fn test(bytes: usize, mut progress: impl FnMut(usize, usize)) -> Outcome {
    let words = bytes / 8;
    let mut memory: Vec<u64> = Vec::new();
    if memory.try_reserve_exact(words).is_err() {
        return Outcome::NoMemory;
    }
    memory.resize(words, 0);
    let steps = 2 * PATTERNS.len() * words.div_ceil(SLICE);
    let mut done = 0;
    for pattern in PATTERNS {
        let word_at = |slice: usize, i: usize| pattern ^ (slice * SLICE + i) as u64;
        for (slice, words) in memory.chunks_mut(SLICE).enumerate() {
            for (i, word) in words.iter_mut().enumerate() {
                *word = word_at(slice, i);
            }
            done += 1;
            progress(done, steps);
        }
        // Keeps the compiler from knowing what was written.
        let memory = std::hint::black_box(&mut memory);
        for (slice, words) in memory.chunks(SLICE).enumerate() {
            let mut words = words.iter().enumerate();
            if let Some((i, _)) = words.find(|(i, word)| **word != word_at(slice, *i)) {
                return Outcome::Bad(slice * SLICE + i);
            }
            done += 1;
            progress(done, steps);
        }
    }
    Outcome::Sound
}

/// `--test-memory`: tests so many megabytes and tells how far it is, a line for each percent; on a
/// terminal they take each other's place.
pub fn run(megabytes: u64) -> ExitCode {
    let Some(bytes) = usize::try_from(megabytes)
        .ok()
        .and_then(|m| m.checked_shl(20))
    else {
        eprintln!("Unable to allocate {megabytes} megabytes");
        return ExitCode::FAILURE;
    };
    println!("Please keep the test running several minutes per GB of memory.");
    let end = if rustix::termios::isatty(std::io::stdout()) {
        '\r'
    } else {
        '\n'
    };
    let mut told = 0;
    let progress = |done: usize, steps: usize| {
        let percent = done * 100 / steps;
        if percent != told {
            told = percent;
            print!("Testing {megabytes} megabytes: {percent}%{end}");
            // Nobody may be listening.
            let _ = std::io::stdout().flush();
        }
    };
    match test(bytes, progress) {
        Outcome::Sound => {
            println!("\nYour memory passed this test.");
            println!("Please if you are still in doubt use the following two tools:");
            println!("1) memtest86: http://www.memtest86.com/");
            println!("2) memtester: http://pyropus.ca/software/memtester/");
            ExitCode::SUCCESS
        }
        Outcome::Bad(word) => {
            println!("\n*** MEMORY ERROR DETECTED: word {word} ***");
            ExitCode::FAILURE
        }
        Outcome::NoMemory => {
            eprintln!("Unable to allocate {megabytes} megabytes");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_goes_to_the_end() {
        let mut last = (0, 1);
        let told = |done, steps| {
            assert_eq!(done, last.0 + 1);
            last = (done, steps);
        };
        assert_eq!(test(2 * SLICE * 8 + 24, told), Outcome::Sound);
        assert_eq!(last, (24, 24));
        // The sanitizer takes it for a mistake.
        #[cfg(not(asan))]
        assert_eq!(test(usize::MAX / 16 * 8, |_, _| {}), Outcome::NoMemory);
    }
}
