//! The table against std's collections.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::*;

impl<L: Layout> Table<L> {
    /// Asserts what the module promises.
    fn check(&self) {
        assert_eq!(self.directory.len(), 1 << self.depth);
        let all = || self.all_segments();
        assert_eq!(all().count(), self.segment_count());
        assert_eq!(all().map(Segment::len).sum::<usize>(), self.len);
        let deepest = all().filter(|s| s.depth == self.depth).count();
        assert_eq!(deepest, self.deepest);
        let mut covered = 0;
        for (number, segment) in all().enumerate() {
            let range = self.range_of(segment);
            covered += range.len();
            assert!(segment.slots() <= self.widest);
            assert!(self.directory[range].iter().all(|&n| n as usize == number));
            let prefix = u64::from(segment.prefix);
            for spot in segment.spots() {
                let hash = hash(segment.record::<L>(spot, &self.bigs).0);
                assert_eq!(hash >> 1 >> (63 - segment.depth), prefix);
            }
        }
        assert_eq!(covered, self.directory.len());
    }
}

/// A small generator, so that a failure repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005) + 1;
        ((self.0 >> 33) as usize * n) >> 31
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = match self.below(40) {
            0 => self.below(most * 40),
            1 => 230 + self.below(20),
            2 => INLINE_MAX - 20 + self.below(40),
            _ => self.below(most),
        };
        vec![self.below(256) as u8; len]
    }
}

use super::segment::INLINE_MAX;

fn sorted(table: &Table<Pairs>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let pairs = table.iter().map(|(k, v)| (k.to_vec(), v.to_vec()));
    pairs.collect()
}

fn model_run(seed: u64, steps: usize, keys: usize) {
    let mut dice = Dice(seed);
    let mut table: Table<Pairs> = Table::new();
    let mut model: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let name = |n: usize| {
        let mut name = format!("field:{n}").into_bytes();
        name.resize(
            name.len() + [0, 0, 0, 300, 2000][n % 5] * usize::from(n % 50 < 5),
            b'.',
        );
        name
    };
    let mut kept = (table.share(), BTreeMap::new());
    for step in 0..steps {
        if step % (keys / 3) == 0 {
            // What was kept is as it was, whatever happened since.
            assert_eq!(sorted(&kept.0), kept.1);
            kept = (table.share(), model.clone().into_iter().collect());
        }
        let key = name(dice.below(keys));
        let growing = (step / keys) % 3 != 2;
        if dice.below(10) < if growing { 8 } else { 2 } {
            let value = dice.bytes(30);
            assert_eq!(table.insert(&key, &value), !model.contains_key(&key));
            model.insert(key, value);
        } else {
            assert_eq!(table.remove(&key), model.remove(&key).is_some());
        }
        assert_eq!(table.len(), model.len());
        let key = name(dice.below(keys));
        assert_eq!(table.get(&key), model.get(&key).map(Vec::as_slice));
        if let Some(value) = table.get_mut(&key) {
            value.reverse();
            model.get_mut(&key).expect("as in the table").reverse();
        }
        if step % 5000 == 0 {
            table.check();
        }
    }
    table.check();
    assert_eq!(sorted(&kept.0), kept.1);
    let copy = table.clone();
    assert_eq!(table.iter().count(), model.len());
    assert_eq!(sorted(&table), model.clone().into_iter().collect());
    while let Some(key) = table.pop_random() {
        assert!(model.remove(&key).is_some());
        if table.len().is_multiple_of(1000) {
            table.check();
        }
    }
    assert!(model.is_empty());
    assert_eq!(
        (table.depth, table.segment_count(), table.bigs.len()),
        (0, 1, 0)
    );
    assert_eq!(copy.len(), sorted(&copy).len());
}

#[test]
fn behaves_as_a_map_while_it_grows_and_shrinks() {
    model_run(1, 60_000, 5_000);
    model_run(2, 5_000, 20);
    model_run(3, 100_000, 30_000);
}

fn name(n: usize) -> Vec<u8> {
    format!("member:{n}").into_bytes()
}

#[test]
fn a_scan_shows_what_stays_once_while_segments_split_and_merge() {
    let mut table: Table<Keys> = Table::new();
    (0..3000).for_each(|n| assert!(table.insert(&name(n), b"")));
    let (mut cursor, mut calls, mut extra) = (0, 0, 3000);
    let mut seen: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    loop {
        cursor = table.scan(cursor, 10, |key, _| {
            *seen.entry(key.to_vec()).or_default() += 1;
        });
        assert!(cursor < 1 << CURSOR_BITS);
        if cursor == 0 {
            break;
        }
        calls += 1;
        for _ in 0..200 {
            if calls < 70 {
                assert!(table.insert(&name(extra), b""));
                extra += 1;
            } else if extra > 3000 {
                extra -= 1;
                assert!(table.remove(&name(extra)));
            }
        }
    }
    assert!(calls > 100, "{calls} calls");
    assert!((0..3000).all(|n| seen.get(&name(n)) == Some(&1)));
    assert!(seen.values().all(|&times| times == 1));
}

#[test]
fn cursors_of_others_do_no_harm() {
    let mut table: Table<Fixed<8>> = Table::new();
    for n in 0..1000u64 {
        table.insert(&n.to_le_bytes(), &(n * n).to_le_bytes());
    }
    for cursor in [1, 12345, (1 << 53) - 1, 1 << 53, u64::MAX] {
        table.scan(cursor, 5, |key, value| {
            let n = u64::from_le_bytes(key.try_into().expect("eight bytes"));
            assert_eq!(value, (n * n).to_le_bytes());
        });
    }
    assert_eq!(Table::<Keys>::new().scan(0, 10, |_, _| panic!("empty")), 0);
}

#[test]
fn elements_are_drawn_with_the_same_probability() {
    // Unevenly filled: what is left after most were removed.
    let mut table: Table<Keys> = Table::new();
    (0..20_000).for_each(|n| assert!(table.insert(&name(n), b"")));
    (200..20_000).for_each(|n| assert!(table.remove(&name(n))));
    table.check();
    const DRAWS: usize = 100_000;
    let mut drawn: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for _ in 0..DRAWS {
        let (key, _) = table.random().expect("it is not empty");
        *drawn.entry(key.to_vec()).or_default() += 1;
    }
    let expected = DRAWS as f64 / 200.0;
    let square = |count: usize| (count as f64 - expected).powi(2) / expected;
    let chi_square: f64 = drawn.values().map(|&count| square(count)).sum();
    assert_eq!(drawn.len(), 200);
    // 199 degrees of freedom: beyond 300 once in a million runs.
    assert!(chi_square < 300.0, "chi-square {chi_square}");
}

#[test]
fn memory_is_as_promised_and_comes_back() {
    const N: usize = 200_000;
    let mut table: Table<Keys> = Table::new();
    let mut worst: f64 = 0.0;
    let key = |n: usize| format!("member:{n:08}").into_bytes();
    for n in 0..N {
        table.insert(&key(n), b"");
        if n % 10_000 == 9_999 {
            worst = worst.max(table.memory() as f64 / n as f64);
        }
    }
    println!(
        "{worst:.1} bytes a member at worst, {:.1} now",
        table.memory() as f64 / N as f64
    );
    assert!(worst < 27.0, "{worst} bytes a member");
    let mut exact = 0;
    for chunk in &table.segments {
        exact += chunk.iter().map(Segment::memory).sum::<usize>();
    }
    assert!(table.memory().abs_diff(exact) < exact / 10);
    let full = table.memory();
    (0..N * 3 / 4).for_each(|n| assert!(table.remove(&key(n))));
    println!("{full} bytes full, {} with a quarter", table.memory());
    assert!(table.memory() < full * 2 / 5);
    let all: BTreeSet<&[u8]> = table.iter().map(|(key, _)| key).collect();
    assert_eq!(all.len(), N / 4);
}
