//! What is measured, and how samples become a figure.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What went wrong, human-readable.
pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Wall time and CPU time, user and system, from one moment on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    wall: Instant,
    cpu: Duration,
    clock: ClockId,
}

/// What a stopwatch showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lap {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

impl Stopwatch {
    /// Counts the CPU time of all threads of this process.
    pub(crate) fn start() -> Self {
        Self::of(ClockId::ProcessCPUTime)
    }

    /// Counts the CPU time of this thread only.
    pub(crate) fn of_this_thread() -> Self {
        Self::of(ClockId::ThreadCPUTime)
    }

    fn of(clock: ClockId) -> Self {
        Self { wall: Instant::now(), cpu: cpu(clock), clock }
    }

    pub(crate) fn lap(&self) -> Lap {
        Lap { wall: self.wall.elapsed(), cpu: cpu(self.clock).saturating_sub(self.cpu) }
    }
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Nanoseconds per item.
pub(crate) fn ns_per(time: Duration, items: u64) -> f64 {
    time.as_secs_f64() * 1e9 / items as f64
}

/// Resident memory of a process, in bytes, as `/proc/PID/status` shows it; `self` is this process.
pub(crate) fn resident_bytes(process: &str) -> Fallible<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// CPU time of another process so far, user and system, as `/proc/PID/stat` shows it: in hundredths of a second.
pub(crate) fn cpu_of(process: u32) -> Fallible<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the program's name in parentheses, which may contain anything.
    let (_, fields) = stat.rsplit_once(')').ok_or("no fields")?;
    let field = |n: usize| fields.split_whitespace().nth(n).and_then(|field| field.parse::<u64>().ok());
    let ticks = field(11).zip(field(12)).map(|(user, system)| user + system).ok_or("no CPU times")?;
    Ok(Duration::from_millis(ticks * 10))
}

/// The median; with an even number of samples the mean of the two in the middle.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// A figure of the report against what was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) samples: Vec<f64>,
    pub(crate) bound: Bound,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost {
        goal: f64,
        floor: f64,
    },
    AtLeast {
        goal: f64,
        floor: f64,
    },
    /// Shown for comparison.
    None,
}

impl Figure {
    fn verdict(&self) -> (String, &'static str) {
        let value = median(&self.samples);
        let judged = |goal: bool, floor: bool| match (goal, floor) {
            (true, _) => "goal",
            (_, true) => "floor",
            _ => "**beyond the floor**",
        };
        match self.bound {
            Bound::AtMost { goal, floor } => {
                (format!("≤ {goal} (floor {floor})"), judged(value <= goal, value <= floor))
            }
            Bound::AtLeast { goal, floor } => {
                (format!("≥ {goal} (floor {floor})"), judged(value >= goal, value >= floor))
            }
            Bound::None => (String::new(), ""),
        }
    }
}

/// Prints figures as a Markdown table.
pub(crate) fn print_table(figures: &[Figure]) {
    println!("| figure | unit | median | lowest | highest | runs | asked for | meets |");
    println!("|---|---|---:|---:|---:|---:|---|---|");
    for figure in figures {
        let (bound, verdict) = figure.verdict();
        let low = figure.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let high = figure.samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        println!(
            "| {} | {} | {} | {} | {} | {} | {bound} | {verdict} |",
            figure.name,
            figure.unit,
            short(median(&figure.samples)),
            short(low),
            short(high),
            figure.samples.len(),
        );
    }
}

/// Three or four digits that matter.
fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert!((median(&[9.0, 1.0, 3.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median(&[9.0, 1.0, 3.0, 4.0]) - 3.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_figure_is_judged_by_its_median_against_goal_and_floor() {
        let judged = |value, bound| Figure { name: "x", unit: "ns", samples: vec![value], bound }.verdict().1;
        let most = Bound::AtMost { goal: 100.0, floor: 300.0 };
        assert_eq!([100.0, 101.0, 301.0].map(|v| judged(v, most)), ["goal", "floor", "**beyond the floor**"]);
        let least = Bound::AtLeast { goal: 0.95, floor: 0.8 };
        assert_eq!([0.95, 0.8, 0.79].map(|v| judged(v, least)), ["goal", "floor", "**beyond the floor**"]);
    }
}
