//! Kinesis, DynamoDB Streams and tables for leases in memory, for programs in any language: see docs/testing.md.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use shardmill_testkit::{Fakes, TlsOptions};

/// Kinesis, DynamoDB Streams and DynamoDB tables for leases in memory, for tests of programs in any language.
///
/// All answer at one address of 127.0.0.1, which is the first line of the output. Set AWS_ENDPOINT_URL to it; any
/// credentials do. Streams, records, faults and the rest come by POST to paths below /control/: see docs/testing.md.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = false)]
struct Options {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    port: u16,
    /// Calls that /control/kinesis/calls and /control/dynamodb/calls remember, each.
    #[arg(long, default_value_t = 100_000, value_name = "CALLS")]
    keep_calls: usize,
    /// Serve TLS with HTTP/2 (or HTTP/1.1), and write the certificate that clients must trust to this file, in PEM.
    #[arg(long, value_name = "FILE")]
    tls: Option<PathBuf>,
    /// With --tls: calls that a connection of HTTP/2 takes at the same time.
    #[arg(long, default_value_t = 100, value_name = "CALLS", requires = "tls")]
    maximum_concurrent_streams: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match serve(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The reader may be gone.
            let _ = writeln!(io::stderr(), "shardmill-fake cannot serve at port {}: {error}", options.port);
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: &Options) -> io::Result<()> {
    let fakes = Fakes::new();
    fakes.kinesis().keep_calls(options.keep_calls);
    fakes.dynamodb().keep_calls(options.keep_calls);
    let server = match &options.tls {
        None => fakes.serve(options.port).await?,
        Some(file) => {
            let mut tls = TlsOptions::default();
            tls.maximum_concurrent_streams = options.maximum_concurrent_streams;
            let server = fakes.serve_tls(options.port, tls).await?;
            std::fs::write(file, server.certificate().unwrap_or_default()).map_err(|error| {
                io::Error::new(error.kind(), format!("--tls {}: {error}", file.display()))
            })?;
            server
        }
    };
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", server.url())?;
    stdout.flush()?;
    tokio::signal::ctrl_c().await
}
