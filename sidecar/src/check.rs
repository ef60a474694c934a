//! `shardmill check`: validates a file and, if asked, sees whether what it names answers.

use std::future::Future;
use std::path::Path;

use shardmill::Probe;

use crate::assembly::{self, PROBE_TIMEOUT};
use crate::config;
use crate::run::SidecarError;

/// Validates the file at `path`; with `online` also asks the stream, the destination, the store and the function of
/// each mapping. Prints one line each and returns whether everything is well.
///
/// # Errors
/// The file is not valid.
pub async fn check(path: &Path, online: bool) -> Result<bool, SidecarError> {
    let loaded = config::load(path, &|name| std::env::var(name).ok())?;
    for note in loaded.ignored.iter().chain(&loaded.warnings) {
        say!("note     line {}: {}: {}", note.line, note.key, note.message);
    }
    for mapping in &loaded.config.mappings {
        let mapping = &mapping.mapping;
        say!("ok       {} reads {}", mapping.application_name(), mapping.event_source().arn);
    }
    if !online {
        return Ok(true);
    }
    let worker = assembly::worker(&loaded.config.worker)?;
    let aws = assembly::aws(&loaded.config.aws, assembly::stream_region(&loaded.config)).await;
    let mut stores = assembly::Stores::new(loaded.config.worker.lease);
    let mut well = true;
    for mapping in loaded.config.mappings {
        let parts = match assembly::parts(mapping, &aws, &worker, &mut stores).await {
            Ok(parts) => parts,
            Err(error) => {
                say!("FAILED   {error}");
                well = false;
                continue;
            }
        };
        well &= line(&parts.source.0.describe(), async {
            let listing = parts.source.0.shards().await.map_err(|e| e.to_string())?;
            Ok(format!("{} shards", listing.shards.len()))
        })
        .await;
        well &= line(&parts.store.describe(), async {
            let leases = parts.store.list().await.map_err(|e| e.to_string())?;
            Ok(format!("{} leases", leases.len()))
        })
        .await;
        if let Some(destination) = &parts.destination {
            well &= line(&destination.0.describe(), async {
                Ok(match destination.0.probe().await.map_err(|e| e.to_string())? {
                    Probe::NotAsked(why) => format!("not asked: {why}"),
                    _ => "answers".to_owned(),
                })
            })
            .await;
        }
        well &= line("function", async {
            parts.function.probe().await.map_err(|e| e.to_string())?;
            Ok("answers".to_owned())
        })
        .await;
    }
    Ok(well)
}

async fn line(what: &str, probe: impl Future<Output = Result<String, String>>) -> bool {
    let result = tokio::time::timeout(PROBE_TIMEOUT, probe).await;
    match result.unwrap_or_else(|_| Err(format!("no answer within {} s", PROBE_TIMEOUT.as_secs()))) {
        Ok(text) => {
            say!("ok       {what}: {text}");
            true
        }
        Err(text) => {
            say!("FAILED   {what}: {text}");
            false
        }
    }
}
