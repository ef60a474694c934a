//! The environment that Lambda sets (AWS "Working with Lambda environment variables").

use super::CommandOptions;
use super::process::absolute_directory;

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
    if options.concurrency() > 1 {
        variables.push(("AWS_LAMBDA_MAX_CONCURRENCY", options.concurrency().to_string()));
    }
    if let Some(region) = &options.region {
        variables.push(("AWS_REGION", region.clone()));
        variables.push(("AWS_DEFAULT_REGION", region.clone()));
    }
    variables
}
