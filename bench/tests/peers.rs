//! `bench/peers/run.py` with few records: what is there gives figures, the rest is skipped by name.

use std::path::Path;
use std::process::Command;

/// The interpreter itself, which starts without a search path.
fn python() -> Option<String> {
    let found = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    match found {
        Ok(output) if output.status.success() => {
            Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
        }
        _ => {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "python3 is needed");
            println!("skipped: python3 is not installed");
            None
        }
    }
}

#[test]
fn peers_that_are_there_give_figures_and_the_others_are_skipped_by_name() {
    let Some(python) = python() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/run.py");
    let binaries = Path::new(env!("CARGO_BIN_EXE_shardmill-bench")).parent().expect("it is in a folder");
    let mut run = Command::new(python);
    run.arg(script)
        .arg("--binaries")
        .arg(binaries)
        .args(["--only", "bare,library-json,library-cbor,sidecar,go"]);
    run.args(["--rounds", "1", "--records", "1000", "--warm-up", "0", "--shards", "2", "--page", "100"]);
    // Without a search path there is no Go.
    let output = run.env("PATH", "").output().expect("it starts");
    let (table, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{log}");
    let rows: Vec<Vec<&str>> =
        table.lines().skip(2).map(|row| row.split('|').map(str::trim).collect()).collect();
    let mut names = ["SDK for Rust", "JSON", "CBOR", "sidecar", "Go"].into_iter();
    assert_eq!(rows.len(), 5, "{table}");
    for row in rows {
        let name = names.next().unwrap_or_default();
        assert!(row[1].contains(name), "{table}");
        let skipped = match name {
            "Go" => Some("skipped: this machine lacks Go"),
            "sidecar" if !binaries.join("shardmill").is_file() => Some("skipped: shardmill is not in"),
            _ => None,
        };
        if let Some(reason) = skipped {
            assert!(row[2].starts_with(reason), "{table}");
            continue;
        }
        let rate = row[2].replace(',', "").parse::<u64>();
        assert!(
            rate.is_ok_and(|rate| rate > 0) && row[6].ends_with("MB") && row[7].ends_with(" s"),
            "{table}"
        );
    }
}
