//! The binary `shardmill`: AWS Lambda's stream event source mapping next to a program in any language.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use shardmill_sidecar::logging::{self, LogFormat};
use shardmill_sidecar::run::SidecarError;
use shardmill_sidecar::{check, config, demo, handler, launch, run, say};
use tracing_subscriber::filter::LevelFilter;

/// The library leaves the allocator to its embedder.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs AWS Lambda stream event source mappings outside of Lambda: polls every shard in order, invokes your function
/// with micro-batches, retries, bisects, sends discarded batches to a dead-letter destination, and checkpoints.
#[derive(Debug, Parser)]
#[command(name = "shardmill", version = VERSION, max_term_width = 100)]
struct Cli {
    /// How log lines on standard error look.
    #[arg(long, value_enum, default_value_t, global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

/// Version, commit and the optional features that are built in.
const VERSION: &str = match (cfg!(feature = "sns"), cfg!(feature = "s3")) {
    (false, false) => concat!(env!("CARGO_PKG_VERSION"), " (", env!("SHARDMILL_BUILD"), ", features none)"),
    (true, false) => concat!(env!("CARGO_PKG_VERSION"), " (", env!("SHARDMILL_BUILD"), ", features sns)"),
    (false, true) => concat!(env!("CARGO_PKG_VERSION"), " (", env!("SHARDMILL_BUILD"), ", features s3)"),
    (true, true) => concat!(env!("CARGO_PKG_VERSION"), " (", env!("SHARDMILL_BUILD"), ", features sns, s3)"),
};

const RUN_HELP: &str = "\
Example:
  shardmill run -c shardmill.yaml

A whole file:
  EventSourceArn: arn:aws:kinesis:eu-west-1:123456789012:stream/orders
  FunctionName: orders-worker
  StartingPosition: TRIM_HORIZON
  MaximumRetryAttempts: 3
  BisectBatchOnFunctionError: true
  DestinationConfig: {OnFailure: {Destination: \"file:./dead-letters.jsonl\"}}
  Function: {Url: \"http://127.0.0.1:8080/\", Timeout: 20}
  Checkpoints: sqlite:./shardmill.db";

const COMPLETIONS_HELP: &str = "\
Examples:
  source <(shardmill completions bash)
  shardmill completions zsh > \"${fpath[1]}/_shardmill\"
  shardmill completions fish > ~/.config/fish/completions/shardmill.fish";

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the whole path on this machine, without AWS and without a configuration, and checks the outcome.
    #[command(after_help = "Examples:\n  shardmill demo\n  shardmill demo --dynamodb http://127.0.0.1:8000")]
    Demo {
        /// Reads the stream of a table in this DynamoDB Local instead of a Kinesis stream. The table is the demo's own.
        #[arg(long, value_name = "URL")]
        dynamodb: Option<String>,
    },
    /// Runs the mappings of a file until SIGTERM, SIGINT or SIGHUP.
    #[command(after_help = RUN_HELP)]
    Run(File),
    /// Validates a file; with --online also asks the stream, the destination, the store and the function.
    #[command(after_help = "Example:\n  shardmill check -c shardmill.yaml --online")]
    Check {
        #[command(flatten)]
        file: File,
        /// See whether everything that the file names answers; reads nothing from the stream. A Function.Command is
        /// started, up to its first /next, and stopped again.
        #[arg(long)]
        online: bool,
    },
    /// Prints the JSON Schema of the file, for editors.
    #[command(after_help = "Example:\n  shardmill schema > shardmill.schema.json")]
    Schema,
    /// Prints a script with which a shell completes commands and options.
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell that reads the script.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
struct File {
    /// The configuration: YAML or JSON; `-`: from standard input.
    #[arg(short, long = "config", value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    // Before the command line is read: what follows is the function's own.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == launch::ARGUMENT) {
        return launch::launch(arguments);
    }
    launch::enable();
    let _no_process_is_left_behind = EndProcesses;
    let cli = Cli::parse();
    // The demo prints its own story, and its function fails on purpose: only other trouble is logged.
    let (level, quiet) = match cli.command {
        Command::Demo { .. } => (LevelFilter::WARN, Some("shardmill::trouble")),
        _ => (LevelFilter::INFO, None),
    };
    let status = match logging::start(cli.log_format, level, quiet) {
        Ok(()) => in_runtime(cli.command),
        Err(error) => {
            logging::print_error(&format_args!(
                "the thread that writes the log could not be started: {error}"
            ));
            ExitCode::FAILURE
        }
    };
    logging::flush();
    status
}

fn in_runtime(command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            logging::print_error(&format_args!("the runtime could not be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(execute(command));
    // What hangs in a blocking call must not keep the process from ending.
    runtime.shutdown_background();
    result.unwrap_or_else(|error| {
        logging::print_error(&error);
        error.exit_code()
    })
}

/// Ends the functions' processes whichever way `main` is left, also by a panic.
struct EndProcesses;

impl Drop for EndProcesses {
    fn drop(&mut self) {
        handler::end_all_processes();
    }
}

async fn execute(command: Command) -> Result<ExitCode, SidecarError> {
    match command {
        Command::Demo { dynamodb } => {
            let well = demo::demo(dynamodb.as_deref()).await?;
            Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Run(file) => run::run(&file.config).await.map(|()| ExitCode::SUCCESS),
        Command::Check { file, online } => {
            let well = Box::pin(check::check(&file.config, online)).await?;
            Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Schema => {
            say!("{:#}", config::schema());
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            // The generator panics where it cannot write, into a closed pipe for one.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "shardmill", &mut script);
            say!("{}", String::from_utf8_lossy(&script).trim_end());
            Ok(ExitCode::SUCCESS)
        }
    }
}
