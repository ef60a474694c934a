//! The environment that Lambda sets (AWS "Defined runtime environment variables").
//!
//! Left out is what would not be true here: `AWS_EXECUTION_ENV` (a managed runtime), `LAMBDA_RUNTIME_DIR` and the library
//! paths of Lambda's image, `AWS_XRAY_DAEMON_ADDRESS`, and `AWS_LAMBDA_DOTNET_PREJIT`. Credentials and PATH are the sidecar's.

use std::path::{Path, PathBuf};

use super::CommandOptions;

/// The variables; the user's own come after them and win.
pub(super) fn lambda(options: &CommandOptions) -> Vec<(&'static str, String)> {
    let directory = absolute_directory(options.working_directory.as_deref()).unwrap_or_default();
    let mut variables = vec![
        ("AWS_LAMBDA_FUNCTION_NAME", options.function_name.clone()),
        ("AWS_LAMBDA_FUNCTION_VERSION", options.function_version.clone()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", options.memory_megabytes.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".into()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", options.function_name)),
        ("AWS_LAMBDA_LOG_STREAM_NAME", format!("[{}]", options.function_version)),
        ("LAMBDA_TASK_ROOT", directory.display().to_string()),
        ("TZ", ":UTC".into()),
        // Runtimes take the handler as their last argument; some read it here.
        ("_HANDLER", options.command.last().cloned().unwrap_or_default()),
    ];
    // Lambda sets en_US.UTF-8, which its image has; C.UTF-8 needs no locale to be installed.
    if ["LANG", "LC_ALL", "LC_CTYPE"].iter().all(|name| is_unset(name)) {
        variables.push(("LANG", "C.UTF-8".into()));
    }
    // Else the X-Ray SDKs throw where no segment is open.
    if is_unset("AWS_XRAY_CONTEXT_MISSING") {
        variables.push(("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR".into()));
    }
    if options.concurrency() > 1 {
        variables.push(("AWS_LAMBDA_MAX_CONCURRENCY", options.concurrency().to_string()));
    }
    if let Some(region) = &options.region {
        variables.push(("AWS_REGION", region.clone()));
        variables.push(("AWS_DEFAULT_REGION", region.clone()));
    }
    variables
}

/// The directory in which the function runs.
pub(super) fn absolute_directory(configured: Option<&Path>) -> Result<PathBuf, String> {
    let current =
        std::env::current_dir().map_err(|e| format!("the working directory cannot be found out: {e}"))?;
    let Some(configured) = configured else { return Ok(current) };
    let directory = current.join(configured);
    if directory.is_dir() {
        Ok(directory)
    } else {
        Err(format!("Function.WorkingDirectory: {} is not a directory", directory.display()))
    }
}

fn is_unset(name: &str) -> bool {
    std::env::var_os(name).is_none_or(|value| value.is_empty())
}
