//! Whether the program is a Lambda runtime that can load its function: started once, up to its first `/next`.

use std::time::Duration;

use super::api::Life;
use super::process::Process;
use super::{CommandHandler, ProbeError};

/// How long the program may take, as Lambda gives it for its initialisation without provisioned concurrency, and more.
const LONGEST: Duration = Duration::from_secs(30);
/// How long it may take to end.
const TO_END: Duration = Duration::from_secs(2);

impl CommandHandler {
    /// Starts the program, waits until it asks for its first invocation, and ends it without one. What it prints goes to
    /// the log.
    ///
    /// # Errors
    /// [`ProbeError`]: it cannot be started, ended before, reported by `/init/error` that it cannot load its function, or
    /// did not ask within 30 s.
    pub async fn try_start(&self) -> Result<(), ProbeError> {
        let options = &self.pool.options;
        let process = Process::start(options, None).await.map_err(ProbeError)?;
        let mut life = process.life.clone();
        let limit = LONGEST.min(options.start_timeout);
        let outcome = match tokio::time::timeout(limit, life.wait_for(|life| *life != Life::Starting)).await {
            Ok(Ok(life)) => match &*life {
                // The user who asks for a trial reads the answer, so it has the function's own words. It has seen no
                // record.
                Life::InitFailed(error) => {
                    Err(format!("reported that it cannot start: {}: {}", error.summary, error.details))
                }
                Life::Exited(ended) => Err(format!(
                    "ended before its first /next ({}); its output is in the log above",
                    ended.how
                )),
                _ => Ok(()),
            },
            Ok(Err(_)) => Err("ended, and its exit was not seen".to_owned()),
            Err(_) => {
                Err(format!("did not ask for /next within {} s: is it a Lambda runtime?", limit.as_secs()))
            }
        };
        process.terminate();
        // What does not end by itself is killed when it is dropped.
        let _ = tokio::time::timeout(TO_END, process.exited()).await;
        outcome.map_err(|text| ProbeError(format!("{} {text}", options.command.join(" "))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::CommandOptions;
    use super::*;

    fn shell(script: &str) -> CommandHandler {
        CommandHandler::new(CommandOptions::new(["/bin/sh", "-c", script])).unwrap()
    }

    #[tokio::test]
    async fn incident_104_a_program_that_ends_before_its_first_next_is_told() {
        let error = shell("echo no module named nope >&2; exit 3").try_start().await.unwrap_err().to_string();
        assert!(error.contains("ended before its first /next") && error.contains('3'), "{error}");
        let missing = CommandHandler::new(CommandOptions::new(["no-such-program"])).unwrap();
        let error = missing.try_start().await.unwrap_err().to_string();
        assert!(error.contains("not on the PATH"), "{error}");
    }

    #[tokio::test]
    async fn incident_104_a_program_that_asks_for_its_first_invocation_has_started_and_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let ended = folder.path().join("ended");
        // A runtime in two lines: it asks, and notes that it was asked to end.
        let script = format!(
            "trap 'touch {}; exit 0' TERM; exec 3<>/dev/tcp/${{AWS_LAMBDA_RUNTIME_API/:/\\/}}; \
             printf 'GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n' \"$AWS_LAMBDA_RUNTIME_API\" >&3; \
             while :; do sleep 0.05; done",
            ended.display()
        );
        let handler = CommandHandler::new(CommandOptions::new(["bash", "-c", &script])).unwrap();
        handler.try_start().await.unwrap();
        assert!(ended.exists(), "it was asked to end and could");
    }

    #[tokio::test]
    async fn incident_104_a_runtime_that_cannot_load_its_function_is_told_with_its_own_words() {
        let script = "exec 3<>/dev/tcp/${AWS_LAMBDA_RUNTIME_API/:/\\/}; \
                      body='{\"errorType\":\"Runtime.ImportModuleError\",\"errorMessage\":\"No module named nope\"}'; \
                      printf 'POST /2018-06-01/runtime/init/error HTTP/1.1\\r\\nHost: %s\\r\\nContent-Length: %s\\r\\n\\r\\n%s' \
                      \"$AWS_LAMBDA_RUNTIME_API\" \"${#body}\" \"$body\" >&3; sleep 1; exit 1";
        let handler = CommandHandler::new(CommandOptions::new(["bash", "-c", script])).unwrap();
        let error = handler.try_start().await.unwrap_err().to_string();
        assert!(error.contains("cannot start") && error.contains("No module named nope"), "{error}");
    }
}
