//! LATENCY GRAPH: a series of spikes as four rows of characters.

use super::latency::Series;

/// Width of the graph in characters.
const COLUMNS: usize = 80;
const ROWS: usize = 4;

/// The graph of an event at a Unix time in seconds.
pub fn latency(event: &str, series: &Series, now: i64) -> String {
    let spikes = series.samples.iter().map(|(_, ms)| *ms);
    let (low, high) = (spikes.clone().min().unwrap_or(0), spikes.max().unwrap_or(0));
    let mut graph = format!(
        "{event} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
        series.max_ms,
        "-".repeat(COLUMNS)
    );
    for part in series.samples.chunks(COLUMNS) {
        render(&mut graph, part, now, (low, high));
    }
    graph
}

fn render(graph: &mut String, samples: &[(i64, u32)], now: i64, (low, high): (u32, u32)) {
    // Each row holds three levels: `_` low in it, `o` in the middle, `#` filled.
    let steps = ROWS * 3;
    let range = f64::from(high - low).max(1.0);
    let levels: Vec<usize> = samples
        .iter()
        .map(|(_, ms)| (f64::from(ms - low) / range * (steps - 1) as f64).round() as usize)
        .collect();
    for row in (0..ROWS).rev() {
        let line: String = levels.iter().map(|level| cell(*level, row)).collect();
        graph.push_str(line.trim_end());
        graph.push('\n');
    }
    graph.push('\n');
    labels(graph, samples, now);
}

fn cell(level: usize, row: usize) -> char {
    match level.checked_sub(row * 3) {
        None => ' ',
        Some(0) => '_',
        Some(1) => 'o',
        Some(2) => '#',
        Some(_) => '|',
    }
}

/// How long ago each sample was, one character a line below it.
fn labels(graph: &mut String, samples: &[(i64, u32)], now: i64) {
    let labels: Vec<Vec<char>> = samples
        .iter()
        .map(|(time, _)| ago(now - time).chars().collect())
        .collect();
    let longest = labels.iter().map(Vec::len).max().unwrap_or(0);
    for line in 0..longest {
        let text: String = labels
            .iter()
            .map(|l| l.get(line).copied().unwrap_or(' '))
            .collect();
        graph.push_str(text.trim_end());
        graph.push('\n');
    }
}

fn ago(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_levels_and_ages() {
        let series = Series {
            samples: vec![(100, 1), (160, 500), (190, 1000)],
            max_ms: 1000,
        };
        let graph = latency("command", &series, 200);
        assert!(graph.starts_with("command - high 1000 ms, low 1 ms (all time high 1000 ms)\n---"));
        assert!(graph.contains("\n__|\n") || graph.contains("_"), "{graph}");
        assert!(graph.ends_with("141\nm00\n ss\n"), "{graph}");
    }
}
