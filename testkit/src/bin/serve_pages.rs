//! Serves prepared `GetRecords` pages for benchmarks and prints its address: see `shardmill_testkit::pages`.

use shardmill_testkit::pages::{Options, PageServer};
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let server = Options::parse(std::env::args().skip(1))
        .and_then(|options| PageServer::bind(options).map_err(|e| format!("cannot serve: {e}")));
    let (server, url) = match server.and_then(|s| s.url().map(|url| (s, url)).map_err(|e| e.to_string())) {
        Ok(both) => both,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "{message}");
            return ExitCode::from(2);
        }
    };
    let mut stdout = std::io::stdout();
    if writeln!(stdout, "{url}").and_then(|()| stdout.flush()).is_err() {
        return ExitCode::FAILURE;
    }
    match server.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cannot serve: {error}");
            ExitCode::FAILURE
        }
    }
}
